internal import NibbleCore
internal import NibbleQuantization

/// A quantized or dense weight made by the plain references, on a backend, and the values it stands for.
struct ReferenceWeight {
    let weight: LinearWeight
    /// [N, K], exactly what the stored form means.
    let values: [Double]
    let outFeatures: Int
    let inFeatures: Int

    init(
        _ context: OperationContext, _ format: WeightFormat, outFeatures: Int, inFeatures: Int, seed: UInt64
    ) throws {
        let shape: Shape = [outFeatures, inFeatures]
        let source = HostValues.random(shape.count, seed: seed)
        self.outFeatures = outFeatures
        self.inFeatures = inFeatures
        switch format {
        case .dense(let dtype):
            let operand = try context.operand(source, dtype, shape)
            weight = .dense(operand.tensor)
            values = operand.values
        case .fourBit(let format):
            let quantized = ReferenceFourBit.quantize(source, format.codebook, blockSize: format.blockSize)
            let packed = quantized.packed(format.codebook)
            let (scales, absmax) = try ReferenceWeight.scales(context, quantized.absmax, format)
            let fourBit = FourBitWeight(
                format: format, outFeatures: outFeatures, inFeatures: inFeatures,
                codes: try context.upload(.host(packed, .uint8, [packed.count])), scales: scales, sourceDType: .float32)
            weight = .fourBit(fourBit)
            values = ReferenceFourBit.dequantize(
                codes: quantized.codes, absmax: absmax, format.codebook, blockSize: format.blockSize
            ).map(Double.init)
        case .int8:
            let quantized = ReferenceInt8.quantize(source, columns: inFeatures)
            let codes = try context.upload(.host(quantized.codes, .int8, shape))
            let absmax = try context.upload(.host(quantized.absmax, .float32, [outFeatures]))
            weight = .int8(Int8Weight(values: codes, scales: absmax))
            values = ReferenceInt8.dequantize(codes: quantized.codes, absmax: quantized.absmax, columns: inFeatures)
                .map(Double.init)
        }
    }

    /// The scales as stored, and what they are read as.
    private static func scales(
        _ context: OperationContext, _ absmax: [Float], _ format: FourBitFormat
    ) throws -> (BlockScales, [Float]) {
        guard format.isNested else {
            return (.plain(try context.upload(.host(absmax, .float32, [absmax.count]))), absmax)
        }
        let nested = ReferenceNested.quantize(absmax)
        let scales = NestedScales(
            codes: try context.upload(.host(nested.codes, .uint8, [nested.codes.count])),
            absmax: try context.upload(.host(nested.absmax, .float32, [nested.absmax.count])), offset: nested.offset)
        return (.nested(scales), ReferenceNested.dequantize(nested))
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

/// What LLM.int8() does to activations, in the float32 steps that decide roundings.
enum ReferenceActivationQuantization {
    /// The values each row of x [T, K] is multiplied as: outliers as they are, the rest rounded to its row's 127 steps.
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
