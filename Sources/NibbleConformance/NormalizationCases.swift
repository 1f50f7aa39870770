internal import NibbleCore

enum ReferenceNorm {
    /// `weight` and `bias` have the run's length, or stand for ones and zeros.
    static func value(_ kind: Norm.Kind, epsilon: Float, _ x: [Double], weight: [Double]?, bias: [Double]?) -> [Double] {
        let count = Double(x.count)
        let mean = kind == .layer ? x.reduce(0, +) / count : 0
        let variance = x.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / count
        let factor = 1 / (variance + Double(epsilon)).squareRoot()
        return x.indices.map { (x[$0] - mean) * factor * (weight?[$0] ?? 1) + (bias?[$0] ?? 0) }
    }
}

extension OperationCases {
    public static let normalization: [OperationCase] = loadDTypes.flatMap { loadDType in
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
        case plain, weighted, biased, residual, residualInPlace, inPlace
    }

    private static func normalize(
        _ context: OperationContext, _ kind: Norm.Kind, _ tokens: Int, _ width: Int, _ variant: NormVariant
    ) throws -> OperationResult {
        let shape: Shape = [tokens, width]
        // An offset makes the mean matter.
        let input = try context.random(context.activation, shape, seed: 9, scale: 2, offset: 1)
        let residual = try context.random(context.activation, shape, seed: 10)
        let weight = try context.random(.float32, [width], seed: 11, offset: 1)
        let bias = try context.random(.float32, [width], seed: 12)
        let hasWeight = variant != .plain
        let hasBias = variant == .biased || variant == .residual
        let hasResidual = variant == .residual || variant == .residualInPlace
        let norm = Norm(
            kind: kind, epsilon: 1e-5, weight: hasWeight ? weight.tensor : nil, bias: hasBias ? bias.tensor : nil)
        let output =
            switch variant {
            case .inPlace: input.tensor
            case .residualInPlace: residual.tensor
            default: try context.output(context.activation, shape)
            }
        try context.backend.normalize(input.tensor, norm, residual: hasResidual ? residual.tensor : nil, into: output)
        var wanted: [Double] = []
        for token in 0..<tokens {
            let row = Array(input.values[token * width..<(token + 1) * width])
            let normal = ReferenceNorm.value(
                kind, epsilon: 1e-5, row, weight: hasWeight ? weight.values : nil, bias: hasBias ? bias.values : nil)
            wanted += normal.enumerated().map { hasResidual ? $1 + residual.values[token * width + $0] : $1 }
        }
        return OperationResult(got: try context.values(of: output), wanted: wanted, tolerance: context.tolerance(steps: 2))
    }
}
