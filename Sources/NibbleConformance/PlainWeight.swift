internal import NibbleCore
internal import NibbleQuantization
internal import Synchronization

/// A dense weight, or one quantized by the plain form of its format, on a backend; and the values it stands for.
struct PlainWeight {
    let weight: LinearWeight
    /// [N, K], the exact values of the stored form.
    let values: [Double]
    let outFeatures: Int
    let inFeatures: Int

    init(
        _ context: OperationContext, _ format: WeightFormat, outFeatures: Int, inFeatures: Int, seed: UInt64,
        scale: Float = 1
    ) throws {
        let stored = StoredWeight.cached(format, outFeatures: outFeatures, inFeatures: inFeatures, seed: seed, scale: scale)
        values = stored.values
        self.outFeatures = outFeatures
        self.inFeatures = inFeatures
        switch stored.weight {
        case .dense(let tensor):
            weight = .dense(try context.upload(tensor))
        case .int8(let int8):
            weight = .int8(Int8Weight(values: try context.upload(int8.values), scales: try context.upload(int8.scales)))
        case .fourBit(let fourBit):
            let scales: BlockScales =
                switch fourBit.scales {
                case .plain(let absmax): .plain(try context.upload(absmax))
                case .exponents(let exponents): .exponents(try context.upload(exponents))
                case .nested(let nested):
                    .nested(
                        NestedScales(
                            codes: try context.upload(nested.codes), absmax: try context.upload(nested.absmax),
                            offset: nested.offset))
                }
            weight = .fourBit(
                FourBitWeight(
                    format: fourBit.format, outFeatures: outFeatures, inFeatures: inFeatures,
                    codes: try context.upload(fourBit.codes), scales: scales, sourceDType: fourBit.sourceDType))
        case .prepared(let prepared):
            weight = .prepared(prepared)
        }
    }

    /// x · Wᵀ for rows of x: [T, N].
    func product(_ x: [Double]) -> [Double] {
        let rows = x.count / inFeatures
        var y = [Double](repeating: 0, count: rows * outFeatures)
        x.withUnsafeBufferPointer { x in
            values.withUnsafeBufferPointer { w in
                for row in 0..<rows {
                    for feature in 0..<outFeatures {
                        var sum = 0.0
                        for column in 0..<inFeatures { sum += x[row * inFeatures + column] * w[feature * inFeatures + column] }
                        y[row * outFeatures + feature] = sum
                    }
                }
            }
        }
        return y
    }
}

/// A weight in host memory. Cases share them, because plain quantization is slow.
private struct StoredWeight: Sendable {
    let weight: LinearWeight
    let values: [Double]

    private static let cache = Mutex<[String: StoredWeight]>([:])

    static func cached(
        _ format: WeightFormat, outFeatures: Int, inFeatures: Int, seed: UInt64, scale: Float
    ) -> StoredWeight {
        let key = "\(format.label) \(outFeatures) \(inFeatures) \(seed) \(scale)"
        if let known = cache.withLock({ $0[key] }) { return known }
        let made = StoredWeight(
            format, [outFeatures, inFeatures], HostValues.random(outFeatures * inFeatures, seed: seed, scale: scale))
        cache.withLock { $0[key] = made }
        return made
    }

    private init(_ format: WeightFormat, _ shape: Shape, _ source: [Float]) {
        switch format {
        case .dense(let dtype):
            let tensor = HostValues.tensor(source, dtype, shape)
            weight = .dense(tensor)
            values = HostValues.values(tensor)
        case .fourBit(let format):
            let quantized = PlainFourBit.quantize(source, format.codebook, blockSize: format.blockSize)
            let packed = quantized.packed(format.codebook)
            let (scales, absmax) = StoredWeight.scales(quantized.absmax, format)
            weight = .fourBit(
                FourBitWeight(
                    format: format, outFeatures: shape[0], inFeatures: shape[1],
                    codes: .host(packed, .uint8, [packed.count]), scales: scales, sourceDType: .float32))
            values = PlainFourBit.dequantize(
                codes: quantized.codes, absmax: absmax, format.codebook, blockSize: format.blockSize
            ).map(Double.init)
        case .int8:
            let quantized = PlainInt8.quantize(source, columns: shape[1])
            weight = .int8(
                Int8Weight(
                    values: .host(quantized.codes, .int8, shape), scales: .host(quantized.absmax, .float32, [shape[0]])))
            values = PlainInt8.dequantize(codes: quantized.codes, absmax: quantized.absmax, columns: shape[1])
                .map(Double.init)
        }
    }

    /// The scales as stored, and the values they stand for.
    private static func scales(_ absmax: [Float], _ format: FourBitFormat) -> (BlockScales, [Float]) {
        if format.codebook == .mxfp4 {
            let exponents = absmax.map { UInt8($0.bitPattern >> 23) }
            return (.exponents(.host(exponents, .uint8, [exponents.count])), exponents.map(BlockScales.power))
        }
        guard format.isNested else { return (.plain(.host(absmax, .float32, [absmax.count])), absmax) }
        let nested = PlainNested.quantize(absmax)
        let scales = NestedScales(
            codes: .host(nested.codes, .uint8, [nested.codes.count]),
            absmax: .host(nested.absmax, .float32, [nested.absmax.count]), offset: nested.offset)
        return (.nested(scales), PlainNested.dequantize(nested))
    }
}

/// LLM.int8()'s quantization of activations, in float32 so that it rounds alike.
enum PlainInt8Activations {
    /// The values with which each row of x [T, K] is multiplied: outliers unchanged, the rest rounded to the row's 127 steps.
    static func values(_ x: [Double], columns: Int, _ arithmetic: LinearArithmetic) -> [Double] {
        let limit = arithmetic.outlierThreshold > 0 ? arithmetic.outlierThreshold : .infinity
        let seen = x.map { value in
            arithmetic.roundsActivationsToHalf ? Float(Half(rounding: Float(value)).value) : Float(value)
        }
        let rows = x.count / columns
        let shared = (0..<columns).filter { column in (0..<rows).contains { abs(seen[$0 * columns + column]) >= limit } }
        let columnsOut = arithmetic.outlierScope == .call ? Set(shared) : []
        var result = x
        for row in 0..<rows {
            let range = row * columns..<(row + 1) * columns
            let absmax = seen[range].filter { abs($0) < limit }.reduce(0) { max($0, abs($1)) }
            let factor = absmax > 0 ? 127 * (1 / absmax) : 0
            for index in range where abs(seen[index]) < limit && !columnsOut.contains(index % columns) {
                let code = (seen[index] * factor).rounded(.toNearestOrEven)
                result[index] = Double(code) * Double(absmax) / 127
            }
        }
        return result
    }
}
