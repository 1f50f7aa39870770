internal import NibbleCore

/// The plain form of a norm.
enum PlainNorm {
    /// Normalizes `x` as a whole. `weight` and `bias` have its length; `nil` means ones and zeros.
    static func value(_ kind: Norm.Kind, epsilon: Float, _ x: [Double], weight: [Double]?, bias: [Double]?) -> [Double] {
        let count = Double(x.count)
        let mean = kind == .layer ? x.reduce(0, +) / count : 0
        let variance = x.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / count
        let factor = 1 / (variance + Double(epsilon)).squareRoot()
        return x.indices.map { (x[$0] - mean) * factor * (weight?[$0] ?? 1) + (bias?[$0] ?? 0) }
    }
}

extension OperationCases {
    package static let normalization: [OperationCase] = loadDTypes.flatMap { loadDType in
        [Norm.Kind.layer, .rms].flatMap { kind in
            [(1, 64), (3, 100), (5, 4096), (40, 333)].flatMap { tokens, width in
                NormVariant.allCases.map { variant in
                    OperationCase("normalize \(kind) [\(tokens), \(width)] \(variant)", loadDType: loadDType) {
                        try normalize($0, kind, tokens, width, variant)
                    }
                }
            }
        }
    }

    enum NormVariant: String, CaseIterable {
        /// Input and output are activations.
        case plain, weighted, biased, residual, residualInPlace, inPlace
        /// From the float32 residual stream, into it, or both.
        case fromStream, intoStream, addedToStream, streamInPlace

        func dtypes(_ activation: DType) -> (input: DType, residual: DType) {
            switch self {
            case .fromStream: (.float32, activation)
            case .intoStream, .addedToStream: (activation, .float32)
            case .streamInPlace: (.float32, .float32)
            default: (activation, activation)
            }
        }
    }

    private static func normalize(
        _ context: OperationContext, _ kind: Norm.Kind, _ tokens: Int, _ width: Int, _ variant: NormVariant
    ) throws -> OperationResult {
        let shape: Shape = [tokens, width]
        // An offset makes the mean matter.
        let dtypes = variant.dtypes(context.activation)
        let input = try context.random(dtypes.input, shape, seed: 9, scale: 2, offset: 1)
        let residual = try context.random(dtypes.residual, shape, seed: 10)
        let weight = try context.random(.float32, [width], seed: 11, offset: 1)
        let bias = try context.random(.float32, [width], seed: 12)
        let hasWeight = variant != .plain
        let hasBias = variant == .biased || variant == .residual
        let hasResidual = variant == .residual || variant == .residualInPlace || variant == .addedToStream
        let norm = Norm(
            kind: kind, epsilon: 1e-5, weight: hasWeight ? weight.tensor : nil, bias: hasBias ? bias.tensor : nil)
        let output =
            switch variant {
            case .inPlace, .streamInPlace: input.tensor
            case .residualInPlace, .addedToStream: residual.tensor
            case .intoStream: try context.output(.float32, shape)
            default: try context.output(context.activation, shape)
            }
        try context.backend.normalize(input.tensor, norm, residual: hasResidual ? residual.tensor : nil, into: output)
        var wanted: [Double] = []
        for token in 0..<tokens {
            let row = Array(input.values[token * width..<(token + 1) * width])
            let normal = PlainNorm.value(
                kind, epsilon: 1e-5, row, weight: hasWeight ? weight.values : nil, bias: hasBias ? bias.values : nil)
            wanted += normal.enumerated().map { hasResidual ? $1 + residual.values[token * width + $0] : $1 }
        }
        return OperationResult(
            got: try context.values(of: output), wanted: wanted, tolerance: OperationContext.tolerance(output.dtype, steps: 2))
    }
}
