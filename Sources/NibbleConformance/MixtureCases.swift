internal import NibbleCore

extension OperationCases {
    /// Mixtures of experts: every format, from one token to many, experts with all tokens and with none.
    package static let experts: [OperationCase] =
        mixturesByFormat + mixturesByShape + tiledMixtures + manyExperts + ungatedMixtures

    private static func formats(_ loadDType: DType) -> [(String, WeightFormat, LinearArithmetic)] {
        func fourBit(_ codebook: FourBitFormat.Codebook, _ blockSize: Int = 64, nested: Bool = false) -> WeightFormat {
            .fourBit(FourBitFormat(codebook: codebook, blockSize: blockSize, isNested: nested))
        }
        return [
            ("dense", .dense(loadDType), .init()), ("nf4", fourBit(.nf4), .init()),
            ("fp4 nested", fourBit(.fp4, nested: true), .init()), ("int8", .int8, .init()), ("mxfp4", .fourBit(.mxfp4), .init()),
            ("int8 without outliers", .int8, .init(outlierThreshold: 0)), ("nf4 blocks of 32", fourBit(.nf4, 32), .init()),
            ("nf4 float32 compute", fourBit(.nf4), .init(computeDType: .float32)), ("dense float32", .dense(.float32), .init()),
            ("int8 outliers of the call", .int8, .init(outlierScope: .call, roundsActivationsToHalf: true)),
        ]
    }

    /// Every format at every number of tokens at which a backend changes its algorithm.
    private static let mixturesByFormat: [OperationCase] = loadDTypes.flatMap { loadDType in
        formats(loadDType).enumerated().flatMap { index, format in
            (index < 6 ? [1, 2, 8, 9, 40, 90] : [1, 5, 40]).map { tokens in
                var mixture = Mixture(format, tokens: tokens)
                mixture.hasBiases = tokens % 2 == 0
                return mixture.operationCase(loadDType)
            }
        }
    }

    /// Odd widths, separate layers for gate and up, all tokens on one expert, hundreds of tokens, the clamped GLU.
    private static let mixturesByShape: [OperationCase] = [DType.float32, .bfloat16].flatMap { loadDType in
        formats(loadDType).prefix(4).flatMap { format in
            [(1, 1), (2, 6), (6, 70)].flatMap { topK, tokens in
                var mixture = Mixture(format, tokens: tokens)
                (mixture.topK, mixture.width, mixture.hidden) = (topK, 72, 100)
                (mixture.isSplit, mixture.activation) = (true, .gated(.clampedGLU(limit: 1.5, alpha: 1.702)))
                var crowded = Mixture(format, tokens: 3 * tokens)
                (crowded.topK, crowded.choice, crowded.hasBiases) = (topK, .crowded, true)
                return [mixture, crowded]
            }.map { $0.operationCase(loadDType) } + [Mixture(format, tokens: 300).operationCase(loadDType)]
        }
    }

    /// 4-bit weights with an odd number of column tiles, gate and up in one layer and in two.
    private static let tiledMixtures: [OperationCase] = loadDTypes.flatMap { loadDType in
        formats(loadDType).filter { ["nf4", "fp4 nested", "mxfp4"].contains($0.0) }.flatMap { format in
            [false, true].flatMap { isSplit in
                [1, 3, 20, 300].map { tokens in
                    var mixture = Mixture(format, tokens: tokens)
                    (mixture.topK, mixture.width, mixture.hidden) = (4, 64, 320)
                    (mixture.isSplit, mixture.hasBiases) = (isSplit, true)
                    mixture.activation = .gated(.clampedGLU(limit: 1.5, alpha: 1.702))
                    return mixture.operationCase(loadDType)
                }
            }
        }
    }

    /// Every format without gates, at the numbers of tokens at which a backend changes its algorithm.
    private static let ungatedMixtures: [OperationCase] = [DType.float32, .bfloat16].flatMap { loadDType in
        formats(loadDType).enumerated().flatMap { index, format in
            (index < 6 ? [1, 2, 9, 40, 90] : [1, 40]).map { tokens in
                var mixture = Mixture(format, tokens: tokens)
                (mixture.activation, mixture.hasBiases) = (.plain(.reluSquared), tokens % 2 == 0)
                if tokens == 9 { (mixture.width, mixture.hidden) = (72, 100) }
                return mixture.operationCase(loadDType)
            }
        }
    }

    private static let manyExperts: [OperationCase] = [1, 7, 130].flatMap { tokens in
        formats(.bfloat16).prefix(2).map { format in
            var mixture = Mixture(format, tokens: tokens)
            (mixture.count, mixture.topK, mixture.width, mixture.hidden) = (128, 8, 64, 64)
            return mixture.operationCase(.bfloat16)
        }
    }
}

/// A mixture of random experts and the tokens that run through it.
private struct Mixture {
    enum Choice: Sendable {
        /// Each token has experts of its own.
        case spread
        /// All tokens have the same ones.
        case crowded
    }

    let name: String
    let format: WeightFormat
    let arithmetic: LinearArithmetic
    let tokens: Int
    var (count, topK, width, hidden) = (6, 2, 64, 192)
    var choice = Choice.spread
    /// gate and up as two layers.
    var isSplit = false
    var hasBiases = false
    var activation = ExpertActivation.gated(.product(.silu))

    init(_ format: (name: String, weight: WeightFormat, arithmetic: LinearArithmetic), tokens: Int) {
        (name, self.format, arithmetic) = format
        self.tokens = tokens
    }

    func operationCase(_ loadDType: DType) -> OperationCase {
        let traits =
            (choice == .crowded ? ", crowded" : "") + (hasBiases ? ", biases" : "") + (isSplit ? ", split" : "")
            + (isGated ? "" : ", ungated")
        return OperationCase(
            "experts \(name), \(topK) of \(count) [\(width), \(hidden)] × \(tokens)\(traits)", loadDType: loadDType
        ) { try run($0) }
    }

    private var isGated: Bool { if case .gated = activation { true } else { false } }

    /// The last expert has no tokens, unless a token has all experts.
    private var ids: [Int] {
        (0..<tokens).flatMap { token in
            (0..<topK).map {
                choice == .crowded ? (3 + $0) % count : (token * token + token + $0) % max(count - 1, topK)
            }
        }
    }

    private struct Member {
        let gateUp: [LinearOperand]
        let down: LinearOperand
    }

    private func member(_ context: OperationContext, _ index: Int) throws -> Member {
        func operand(_ outFeatures: Int, _ inFeatures: Int, _ seed: Int) throws -> LinearOperand {
            try LinearOperand(
                context, format, outFeatures, inFeatures, seed: UInt64(1000 + 8 * index + seed), hasBias: hasBiases,
                isPrepared: true, arithmetic: arithmetic)
        }
        return Member(
            gateUp: isSplit
                ? [try operand(hidden, width, 0), try operand(hidden, width, 2)]
                : [try operand(isGated ? 2 * hidden : hidden, width, 0)],
            down: try operand(width, hidden, 4))
    }

    private func run(_ context: OperationContext) throws -> OperationResult {
        let members = try (0..<count).map { try member(context, $0) }
        var x = HostValues.random(tokens * width, seed: 50)
        // Some values beyond the outlier threshold.
        for index in stride(from: 3, to: x.count, by: 97) { x[index] *= 9 }
        let input = try context.operand(x, context.activation, [tokens, width])
        let residual = try context.random(.float32, [tokens, width], seed: 51)
        let weights = try context.random(.float32, [tokens, topK], seed: 52, scale: 0.2, offset: 0.5)
        let output = try context.output(.float32, [tokens, width])
        try context.backend.experts(
            input.tensor,
            ExpertsCall(
                ids: try context.integers(ids.map(Int32.init), [tokens, topK]), weights: weights.tensor,
                experts: ExpertSet(members.map { Expert(gateUp: LinearGroup($0.gateUp.map(\.layer)), down: $0.down.layer) }),
                activation: activation, residual: residual.tensor), into: output)
        return OperationResult(
            got: try context.values(of: output), wanted: plain(input.values, weights.values, residual.values, members),
            // An expert rounds to the activation dtype between its two layers, and with int8 to 127 steps; experts are added up.
            tolerance: format == .int8 ? 0.08 : context.tolerance(steps: Double(4 * max(topK / 2, 2))))
    }

    private func plain(_ input: [Double], _ weights: [Double], _ residual: [Double], _ members: [Member]) -> [Double] {
        var wanted = residual
        for (pair, expert) in ids.enumerated() {
            let token = pair / topK
            let x = Array(input[token * width..<(token + 1) * width])
            let both = members[expert].gateUp.flatMap { PlainLinear(x, $0).values }
            let activated = (0..<hidden).map { index in
                switch activation {
                case .gated(let gate): PlainActivation.value(gate, both[index], both[hidden + index])
                case .plain(let activation): PlainActivation.value(activation, both[index])
                }
            }
            for (index, value) in PlainLinear(activated, members[expert].down).values.enumerated() {
                wanted[token * width + index] += weights[pair] * value
            }
        }
        return wanted
    }
}
