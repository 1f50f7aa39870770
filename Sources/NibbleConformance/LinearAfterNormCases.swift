internal import NibbleCore

extension OperationCases {
    /// Linear layers that read the normalized and rounded residual stream and add their product to it.
    package static let linearAfterNorm: [OperationCase] = loadDTypes.flatMap { loadDType in
        formatsAfterNorm(loadDType).flatMap { name, format, arithmetic in
            PrecedingNorm.allCases.flatMap { variant in
                [
                    (1, 40, 128), (1, 33, 1000), (1, 48, 2560), (1, 20, 10304), (3, 40, 192), (20, 150, 576),
                ].map { tokens, features, columns in
                    OperationCase("linear \(name) [\(tokens), \(features), \(columns)] after \(variant)", loadDType: loadDType) {
                        try product($0, format, arithmetic, tokens, features, columns, variant)
                    }
                }
            }
        }
    }

    /// Linear layers that read a gated activation.
    package static let linearAfterGate: [OperationCase] = loadDTypes.flatMap { loadDType in
        formatsAfterNorm(loadDType).flatMap { name, format, arithmetic in
            [GateActivation.product(.silu), .product(.geluTanh), .clampedGLU(limit: 1, alpha: 1.7)].flatMap { activation in
                [(1, 40, 128), (3, 40, 192), (20, 150, 576)].map { tokens, features, columns in
                    let shape = "[\(tokens), \(features), \(columns)]"
                    return OperationCase("linear \(name) \(shape) after \(activation)", loadDType: loadDType) {
                        try product($0, format, arithmetic, tokens, features, columns, activation)
                    }
                }
            }
        }
    }

    private static func formatsAfterNorm(_ loadDType: DType) -> [(String, WeightFormat, LinearArithmetic)] {
        let nf4 = WeightFormat.fourBit(FourBitFormat(codebook: .nf4))
        let nested = WeightFormat.fourBit(FourBitFormat(codebook: .fp4, isNested: true))
        let others: [DType] = loadDType == .float16 ? [.bfloat16] : loadDType == .bfloat16 ? [.float16] : []
        return [("dense", .dense(loadDType)), ("nf4", nf4), ("fp4 nested", nested), ("int8", .int8)].map {
            ($0.0, $0.1, LinearArithmetic())
        } + others.map { ("nf4 in \($0)", nf4, LinearArithmetic(computeDType: $0)) }
    }

    private enum PrecedingNorm: String, CaseIterable {
        case none, rms, rmsPlain, layer, layerPlain
    }

    private static func product(
        _ context: OperationContext, _ format: WeightFormat, _ arithmetic: LinearArithmetic, _ tokens: Int, _ features: Int,
        _ columns: Int,
        _ variant: PrecedingNorm
    ) throws -> OperationResult {
        let operand = try LinearOperand(
            context, format, features, columns, seed: 71, hasBias: true, isPrepared: true, arithmetic: arithmetic)
        // An offset makes the mean matter.
        let input = try context.random(.float32, [tokens, columns], seed: 72, scale: 2, offset: 1)
        let weight = try context.random(.float32, [columns], seed: 73, offset: 1)
        let bias = try context.random(.float32, [columns], seed: 74)
        let residual = try context.random(.float32, [tokens, features], seed: 75)
        let isPlain = variant == .rmsPlain || variant == .layerPlain
        let norm =
            variant == .none
            ? nil
            : Norm(
                kind: variant == .layer || variant == .layerPlain ? .layer : .rms, epsilon: 1e-5,
                weight: isPlain ? nil : weight.tensor, bias: variant == .layer ? bias.tensor : nil)

        let prepared = (0..<tokens).flatMap { token -> [Double] in
            let row = Array(input.values[token * columns..<(token + 1) * columns])
            guard let norm else { return row }
            return PlainNorm.value(
                norm.kind, epsilon: 1e-5, row, weight: isPlain ? nil : weight.values, bias: variant == .layer ? bias.values : nil)
        }
        let rounded = HostValues.values(HostValues.tensor(prepared.map { Float($0) }, context.activation, [prepared.count]))
        var plain = PlainLinear(arithmetic.converted(rounded), operand)
        plain.values = zip(plain.values, residual.values).map(+)

        let output = residual.tensor
        try context.backend.linear(
            input.tensor, after: norm, scratch: try context.output(context.activation, [tokens, columns]),
            LinearGroup([operand.layer]), epilogue: LinearEpilogue(residual: residual.tensor), into: output)
        return OperationResult(
            got: plain.forgiven(try context.values(of: output)), wanted: plain.values,
            tolerance: tolerance(context, arithmetic))
    }

    private static func tolerance(_ context: OperationContext, _ arithmetic: LinearArithmetic) -> Double {
        max(context.tolerance(steps: 4), OperationContext.tolerance(arithmetic.computeDType ?? .float32, steps: 4))
    }

    /// Compares with a gate and a product that are called one after the other.
    private static func product(
        _ context: OperationContext, _ format: WeightFormat, _ arithmetic: LinearArithmetic, _ tokens: Int, _ features: Int,
        _ columns: Int,
        _ activation: GateActivation
    ) throws -> OperationResult {
        let operand = try LinearOperand(
            context, format, features, columns, seed: 76, hasBias: true, isPrepared: true, arithmetic: arithmetic)
        let input = try context.random(context.activation, [tokens, 2 * columns], seed: 77, scale: 1.5)
        let gated = try context.output(context.activation, [tokens, columns])
        try context.backend.gate(input.tensor, activation, into: gated)
        let plain = PlainLinear(arithmetic.converted(try context.values(of: gated)), operand)
        let output = try context.output(context.activation, [tokens, features])
        try context.backend.linear(
            input.tensor, gatedBy: activation, scratch: try context.output(context.activation, [tokens, columns]),
            LinearGroup([operand.layer]), epilogue: LinearEpilogue(), into: output)
        return OperationResult(
            got: plain.forgiven(try context.values(of: output)), wanted: plain.values,
            tolerance: tolerance(context, arithmetic))
    }
}

extension LinearArithmetic {
    /// Rounded to the dtype that 4-bit weights are multiplied in.
    func converted(_ values: [Double]) -> [Double] {
        guard let computeDType, computeDType != .float32 else { return values }
        return HostValues.values(HostValues.tensor(values.map(Float.init), computeDType, [values.count]))
    }
}
