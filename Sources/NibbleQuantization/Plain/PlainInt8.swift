/// Row-wise int8 with outlier decomposition, one element at a time (LLM.int8(), arXiv 2208.07339).
package enum PlainInt8 {
    package struct Quantized: Sendable, Equatable {
        /// [rows, K]
        package var codes: [Int8]
        /// The absmax of each row, not divided by 127.
        package var absmax: [Float]
        /// Ascending columns that were left out; in ``quantize(_:columns:threshold:)`` they are the whole call's.
        package var outlierColumns: [Int]

        package init(codes: [Int8], absmax: [Float], outlierColumns: [Int]) {
            self.codes = codes
            self.absmax = absmax
            self.outlierColumns = outlierColumns
        }
    }

    /// Rounds to float16, then quantizes each row of `columns` values to round(v × (127 × (1 / absmax))), ties to even.
    ///
    /// With a threshold, columns that hold a value of at least that magnitude in any row are left out (code 0); such values
    /// do not count for their row's absmax, others in those columns do.
    /// - Precondition: all values are finite.
    package static func quantize(_ values: [Float], columns: Int, threshold: Float = 0) -> Quantized {
        let rounded = values.map(roundedToHalf)
        let limit = threshold > 0 ? roundedToHalf(threshold) : .infinity
        let rows = columns == 0 ? 0 : values.count / columns
        let outlierColumns = (0..<columns).filter { column in
            (0..<rows).contains { rounded[$0 * columns + column].magnitude >= limit }
        }
        let isOutlier = Set(outlierColumns)
        var codes = [Int8]()
        var absmax = [Float]()
        for row in 0..<rows {
            let slice = rounded[row * columns..<(row + 1) * columns]
            let scale = slice.filter { $0.magnitude < limit }.reduce(0) { max($0, $1.magnitude) }
            let factor = scale > 0 ? 127 * (1 / scale) : 0
            absmax.append(scale)
            for (column, value) in slice.enumerated() {
                codes.append(isOutlier.contains(column) ? 0 : Int8((value * factor).rounded(.toNearestOrEven)))
            }
        }
        return Quantized(codes: codes, absmax: absmax, outlierColumns: outlierColumns)
    }

    /// values × absmax / 127.
    package static func dequantize(codes: [Int8], absmax: [Float], columns: Int) -> [Float] {
        codes.indices.map { Float(codes[$0]) * absmax[$0 / columns] * valueScale }
    }

    /// Σ a × b for rows of a [M, K] and b [N, K], exact: [M, N].
    package static func product(_ a: [Int8], _ b: [Int8], columns: Int) -> [Int32] {
        let rows = a.count / columns
        let features = b.count / columns
        return (0..<rows * features).map { index in
            let (row, feature) = (index / features, index % features)
            return (0..<columns).reduce(Int32(0)) {
                $0 + Int32(a[row * columns + $1]) * Int32(b[feature * columns + $1])
            }
        }
    }

    /// A sum of products as a float: (sum × row × feature) × 6.200012e-05 + bias, the last two in one rounding.
    package static func scaled(_ sum: Int32, row: Float, feature: Float, bias: Float = 0) -> Float {
        (Float(sum) * row * feature).multiplied(by: productScale, adding: bias)
    }

    /// 1 / 127² as CUDA's kernels have it.
    package static let productScale = Float(bitPattern: 0x3882_0610)
    /// 1 / 127
    package static let valueScale = Float(bitPattern: 0x3C01_0204)

    private static func roundedToHalf(_ value: Float) -> Float { Float(Float16(value)) }
}

extension Float {
    fileprivate func multiplied(by factor: Float, adding term: Float) -> Float { term.addingProduct(self, factor) }
}
