internal import NibbleCore
internal import NibbleQuantization

/// A linear layer with what its plain form needs.
struct LinearOperand {
    let layer: Linear
    /// [N, K]; of a quantized weight, what its codes stand for.
    let weights: [Double]
    /// [N]
    let bias: [Double]
    /// Codes and row scales of an int8 weight.
    let int8: (codes: [Int8], scales: [Double])?

    var outFeatures: Int { layer.outFeatures }
    var inFeatures: Int { layer.inFeatures }

    /// A random weight, quantized by the backend itself; quantization cases check its bytes.
    init(
        _ context: OperationContext, _ format: WeightFormat, _ outFeatures: Int, _ inFeatures: Int, seed: UInt64,
        hasBias: Bool = false, isPrepared: Bool = false, arithmetic: LinearArithmetic = .init()
    ) throws {
        let scale = 1 / Float(inFeatures).squareRoot()
        let values = HostValues.random(outFeatures * inFeatures, seed: seed, scale: scale)
        let dtype: DType = if case .dense(let dtype) = format { dtype } else { .float32 }
        let source = HostValues.tensor(values, dtype, [outFeatures, inFeatures])
        // Nothing is quantized to MXFP4 but by its plain form.
        let weight =
            if case .fourBit(.mxfp4) = format {
                try PlainWeight(
                    context, format, outFeatures: outFeatures, inFeatures: inFeatures, seed: seed, scale: scale
                ).weight
            } else {
                try context.backend.quantize(source, to: format)
            }
        (weights, int8) = try LinearOperand.values(weight, context)
        let bias = try hasBias ? context.random(.float32, [outFeatures], seed: seed + 1) : nil
        self.bias = bias?.values ?? [Double](repeating: 0, count: outFeatures)
        layer = Linear(
            name: "layer", weight: isPrepared ? try context.backend.prepare(weight) : weight, bias: bias?.tensor,
            arithmetic: arithmetic)
    }

    private static func values(
        _ weight: LinearWeight, _ context: OperationContext
    ) throws -> ([Double], (codes: [Int8], scales: [Double])?) {
        switch weight {
        case .dense(let tensor): return (try context.values(of: tensor), nil)
        case .fourBit(let weight):
            let count = weight.outFeatures * weight.inFeatures
            let codes = PlainFourBit.unpack(try context.bytes(of: weight.codes), count: count)
            let scales = try absmax(weight.scales, context)
            let table = weight.format.codebook.values
            return (codes.indices.map { Double(table[Int(codes[$0])]) * scales[$0 / weight.format.blockSize] }, nil)
        case .int8(let weight):
            let codes = try context.bytes(of: weight.values).map { Int8(bitPattern: $0) }
            let scales = try context.values(of: weight.scales)
            let columns = weight.values.shape[1]
            return (codes.indices.map { Double(codes[$0]) * scales[$0 / columns] / 127 }, (codes, scales))
        case .prepared(let weight): return try values(try weight.canonical(), context)
        }
    }

    private static func absmax(_ scales: BlockScales, _ context: OperationContext) throws -> [Double] {
        switch scales {
        case .plain(let absmax): try context.values(of: absmax)
        case .exponents(let exponents): try context.bytes(of: exponents).map { Double(BlockScales.power($0)) }
        case .nested(let nested):
            PlainNested.dequantize(
                .init(
                    codes: try context.bytes(of: nested.codes), absmax: try context.values(of: nested.absmax).map { Float($0) },
                    offset: nested.offset)
            ).map(Double.init)
        }
    }
}

/// x · Wᵀ + b in double precision.
struct PlainLinear {
    /// [M, N]
    var values: [Double]
    /// How far each value may be off because rounding decides between two codes of an activation.
    var slack: [Double]

    /// - Parameter input: [M, K]
    init(_ input: [Double], _ operand: LinearOperand) {
        if let int8 = operand.int8 {
            self = PlainLinear(input, operand, int8.codes, int8.scales)
            return
        }
        let (features, columns) = (operand.outFeatures, operand.inFeatures)
        values = []
        for row in 0..<input.count / columns {
            for feature in 0..<features {
                var sum = operand.bias[feature]
                for column in 0..<columns { sum += input[row * columns + column] * operand.weights[feature * columns + column] }
                values.append(sum)
            }
        }
        slack = [Double](repeating: 0, count: values.count)
    }

    /// LLM.int8(): multiplies outlier columns unchanged, the others in int8.
    private init(_ input: [Double], _ operand: LinearOperand, _ codes: [Int8], _ scales: [Double]) {
        let (features, columns) = (operand.outFeatures, operand.inFeatures)
        let arithmetic = operand.layer.arithmetic
        let rows = input.count / columns
        let rounded = arithmetic.roundsActivationsToHalf ? input.map { Half(rounding: Float($0)).value } : input
        let limit = arithmetic.outlierThreshold > 0 ? Double(arithmetic.outlierThreshold) : .infinity
        let anywhere = (0..<columns).map { column in (0..<rows).contains { abs(rounded[$0 * columns + column]) >= limit } }
        values = []
        slack = []
        for row in 0..<rows {
            let x = Array(rounded[row * columns..<(row + 1) * columns])
            let scale = x.filter { abs($0) < limit }.reduce(0) { max($0, abs($1)) }
            let isOutlier = arithmetic.outlierScope == .call ? anywhere : x.map { abs($0) >= limit }
            let steps = x.indices.map { isOutlier[$0] || scale == 0 ? 0 : x[$0] * 127 / scale }
            for feature in 0..<features {
                var sum = 0.0
                var outliers = 0.0
                var doubt = 0.0
                for column in 0..<columns {
                    let weight = Double(codes[feature * columns + column])
                    if isOutlier[column] {
                        outliers += input[row * columns + column] * weight * scales[feature] / 127
                        continue
                    }
                    let step = steps[column]
                    sum += step.rounded(.toNearestOrEven) * weight
                    if abs(abs(step - step.rounded(.down)) - 0.5) < 1e-4 { doubt += abs(weight) }
                }
                let unit = scale * scales[feature] / (127 * 127)
                let bias = operand.layer.bias == nil ? nil : operand.bias[feature]
                let rounds = arithmetic.roundsActivationsToHalf
                let part = PlainLinear.integerPart(sum * unit, bias, roundsToHalf: rounds)
                // float32 arithmetic may round to the neighbouring float16.
                let reach = doubt * unit + 4e-7 * abs(sum * unit)
                let ends = [-reach, reach].map { PlainLinear.integerPart(sum * unit + $0, bias, roundsToHalf: rounds) }
                values.append(part + outliers)
                slack.append(max(part - ends[0], ends[1] - part))
            }
        }
    }

    /// bitsandbytes returns this part in float16.
    private static func integerPart(_ product: Double, _ bias: Double?, roundsToHalf: Bool) -> Double {
        guard roundsToHalf else { return product + (bias ?? 0) }
        let rounded = Half(rounding: Float(product)).value
        return bias.map { Half(rounding: Float(rounded + $0)).value } ?? rounded
    }

    /// `got`, moved towards `values` by up to the slack.
    func forgiven(_ got: [Double]) -> [Double] {
        guard got.count == values.count else { return got }
        return got.indices.map { index in
            let difference = got[index] - values[index]
            guard !difference.isNaN else { return got[index] }
            return values[index] + (difference < 0 ? -1 : 1) * max(abs(difference) - slack[index], 0)
        }
    }
}
