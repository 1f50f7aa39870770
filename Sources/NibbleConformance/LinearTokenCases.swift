internal import NibbleCore

extension OperationCases {
    /// Linear layers in every activation dtype, at numbers of tokens around every limit at which a backend changes its algorithm.
    package static let linearByTokens: [OperationCase] =
        productsByTokens + severalTiles + severalRounds + manyOutliers + storing + groupsByTokens

    // MARK: Formats and shapes

    private static func weights(_ loadDType: DType) -> [(String, WeightFormat, LinearArithmetic)] {
        func fourBit(_ codebook: FourBitFormat.Codebook, _ blockSize: Int, nested: Bool = false) -> WeightFormat {
            .fourBit(FourBitFormat(codebook: codebook, blockSize: blockSize, isNested: nested))
        }
        return [
            ("dense", .dense(loadDType), .init()),
            ("dense float32", .dense(.float32), .init()),
            ("nf4", fourBit(.nf4, 64), .init()),
            ("fp4", fourBit(.fp4, 64), .init()),
            ("nf4 nested", fourBit(.nf4, 64, nested: true), .init()),
            ("fp4 blocks of 32", fourBit(.fp4, 32), .init()),
            ("nf4 blocks of 256", fourBit(.nf4, 256), .init()),
            ("nf4 float32 compute", fourBit(.nf4, 64), .init(computeDType: .float32)),
            ("int8", .int8, .init()),
            ("int8 without outliers", .int8, .init(outlierThreshold: 0)),
            ("int8 outliers of the call", .int8, .init(outlierScope: .call, roundsActivationsToHalf: true)),
            ("mxfp4", .fourBit(.mxfp4), .init()),
        ]
    }

    /// Tokens, N, K: one token, a few, up to and past every number a kernel may treat as a limit; odd and tiny extents.
    private static let shapes: [(Int, Int, Int)] = [
        (1, 1, 1), (1, 33, 64), (1, 100, 320), (1, 24, 1000), (2, 64, 192), (3, 7, 33), (5, 129, 128), (8, 48, 64), (9, 80, 128),
        (16, 16, 448), (17, 130, 256), (33, 31, 512), (70, 33, 96), (130, 48, 64), (257, 40, 192),
    ]

    private static let productsByTokens: [OperationCase] = loadDTypes.flatMap { loadDType in
        weights(loadDType).flatMap { name, format, arithmetic in
            shapes.map { tokens, features, columns in
                OperationCase("linear \(name) [\(tokens), \(features), \(columns)]", loadDType: loadDType) { context in
                    try [false, true].map { isPrepared in
                        let operand = try LinearOperand(
                            context, format, features, columns, seed: 31, isPrepared: isPrepared, arithmetic: arithmetic)
                        return try multiply(context, [operand], tokens: tokens, Storing())
                    }.worst
                }
            }
        }
    }

    /// 4-bit and int8 products with more outputs and columns than a block of a kernel takes, for numbers of tokens up to and past
    /// those of a block.
    private static let severalTiles: [OperationCase] = loadDTypes.flatMap { loadDType in
        let names: Set = ["nf4", "fp4", "nf4 nested", "mxfp4", "int8", "int8 without outliers", "int8 outliers of the call"]
        return weights(loadDType).filter { names.contains($0.0) }.flatMap { name, format, arithmetic in
            [(1, 140, 2112), (9, 260, 1088), (40, 140, 704), (90, 130, 448), (128, 150, 192), (129, 20, 320)].map {
                tokens, features, columns in
                OperationCase("linear \(name), tiles [\(tokens), \(features), \(columns)]", loadDType: loadDType) { context in
                    let operands = try [features, 24].map {
                        try LinearOperand(
                            context, format, $0, columns, seed: 38, hasBias: $0 == 24, isPrepared: true, arithmetic: arithmetic)
                    }
                    return try multiply(context, operands, tokens: tokens, Storing(residual: .other))
                }
            }
        }
    }

    /// 4-bit products of one token that take a block several rounds of its ring, several tiles, and more tiles than it sums at a
    /// time, in two layers.
    private static let severalRounds: [OperationCase] = [DType.float16, .bfloat16].flatMap { loadDType in
        [(20, 16384), (2200, 2112), (17000, 2048)].filter { $0.0 < 10_000 || loadDType == .float16 }.map { features, columns in
            OperationCase("linear nf4, rounds [1, \(features), \(columns)]", loadDType: loadDType) { context in
                let operands = try [features, 24].map {
                    try LinearOperand(
                        context, .fourBit(FourBitFormat(codebook: .nf4)), $0, columns, seed: 39, hasBias: $0 == 24,
                        isPrepared: true)
                }
                return try multiply(context, operands, tokens: 1, Storing(residual: .other))
            }
        }
    }

    /// int8 products of rows with many outliers: about a hundred in a row, more than a list holds in some rows, nearly all columns.
    private static let manyOutliers: [OperationCase] = loadDTypes.flatMap { loadDType in
        [(1, 40, 1500), (3, 70, 1504), (8, 33, 2052), (20, 33, 1501), (40, 64, 2100), (130, 40, 1504), (300, 9, 2048)].flatMap {
            shape in
            [Float(2.5), 0.95, 0.01].flatMap { threshold in
                [LinearArithmetic.OutlierScope.token, .call].map { scope in
                    let (tokens, features, columns) = shape
                    let name = "linear int8 outliers from \(threshold) by \(scope) [\(tokens), \(features), \(columns)]"
                    return OperationCase(name, loadDType: loadDType) { context in
                        let operands = try [features, 24].map { features in
                            try LinearOperand(
                                context, .int8, features, columns, seed: 36, hasBias: features == 24, isPrepared: true,
                                arithmetic: LinearArithmetic(outlierThreshold: threshold, outlierScope: scope))
                        }
                        return try multiply(context, operands, tokens: tokens, Storing())
                    }
                }
            }
        }
    }

    // MARK: Epilogues

    /// The epilogue of a product.
    private struct Storing: Sendable {
        var activation = Activation.identity
        var scale: Float = 1
        var hasRowScale = false
        var residual = Residual.none
        var storesFloat32 = false

        enum Residual: Sendable { case none, other, inPlace }
    }

    private static let variants: [(String, Storing)] = [
        ("residual", Storing(residual: .other)),
        ("residual in place", Storing(residual: .inPlace)),
        ("float32 output", Storing(storesFloat32: true)),
        ("float32 output, soft cap", Storing(activation: .softCap(2), storesFloat32: true)),
        ("gelu", Storing(activation: .geluTanh)),
        ("all of it", Storing(activation: .silu, scale: 0.75, hasRowScale: true, residual: .inPlace)),
    ]

    private static let storing: [OperationCase] = loadDTypes.flatMap { loadDType in
        [weights(loadDType)[0], weights(loadDType)[2], weights(loadDType)[8]].flatMap { format, weightFormat, arithmetic in
            variants.flatMap { name, variant in
                [1, 4, 100].flatMap { tokens in
                    [false, true].map { hasBias in
                        OperationCase(
                            "linear \(format) [\(tokens), 72, 128], \(name)\(hasBias ? ", bias" : "")", loadDType: loadDType
                        ) { context in
                            let operand = try LinearOperand(
                                context, weightFormat, 72, 128, seed: 32, hasBias: hasBias, isPrepared: true,
                                arithmetic: arithmetic)
                            return try multiply(context, [operand], tokens: tokens, variant)
                        }
                    }
                }
            }
        }
    }

    private static let groupsByTokens: [OperationCase] = loadDTypes.flatMap { loadDType in
        [1, 6, 90].flatMap { tokens in
            [[2, 2, 2], [0, 0], [8, 8, 8], [2, 3, 8, 0], [2, 2, 2, 2, 2, 2]].map { members in
                let names = members.map { weights(loadDType)[$0].0 }.joined(separator: ", ")
                return OperationCase("linear group of \(names), \(tokens) tokens", loadDType: loadDType) { context in
                    let operands = try members.enumerated().map { index, member in
                        try LinearOperand(
                            context, weights(loadDType)[member].1, 40 + 8 * index, 128, seed: 40 + UInt64(index),
                            hasBias: index % 2 == 0, isPrepared: index % 3 != 2)
                    }
                    return try multiply(context, operands, tokens: tokens, Storing(residual: .other))
                }
            }
        }
    }

    // MARK: One call

    private static func multiply(
        _ context: OperationContext, _ operands: [LinearOperand], tokens: Int, _ variant: Storing
    ) throws -> OperationResult {
        let group = LinearGroup(operands.map(\.layer))
        let input = try context.operand(
            activations(tokens, group.inFeatures), context.activation, [tokens, group.inFeatures])
        let dtype = variant.storesFloat32 ? .float32 : context.activation
        let shape: Shape = [tokens, group.outFeatures]
        let residual = try context.random(dtype, shape, seed: 34)
        let rowScale = try context.random(.float32, [tokens], seed: 35, offset: 1)
        let output = variant.residual == .inPlace ? residual.tensor : try context.output(dtype, shape)
        let epilogue = LinearEpilogue(
            activation: variant.activation, scale: variant.scale, rowScale: variant.hasRowScale ? rowScale.tensor : nil,
            residual: variant.residual == .none ? nil : residual.tensor)
        try context.backend.linear(input.tensor, group, epilogue: epilogue, into: output)

        let plainForms = operands.map { PlainLinear(input.values, $0) }
        var result = PlainLinear(joining: plainForms, tokens: tokens, widths: operands.map(\.outFeatures))
        for index in result.values.indices {
            let row = index / group.outFeatures
            let factor = Double(variant.scale) * (variant.hasRowScale ? rowScale.values[row] : 1)
            result.values[index] = PlainActivation.value(variant.activation, result.values[index]) * factor
            // No activation here is steeper than 1.1.
            result.slack[index] *= 1.1 * abs(factor)
            if variant.residual != .none { result.values[index] += residual.values[index] }
        }
        return OperationResult(
            got: result.forgiven(try context.values(of: output)), wanted: result.values,
            // Weights, products and results are rounded; a saturated result is small beside the value it comes from.
            tolerance: context.tolerance(steps: variant.activation.saturates ? 8 : 3))
    }

    /// Ordinary values, except for a few columns that are far above an outlier threshold of 6 in some rows.
    private static func activations(_ tokens: Int, _ columns: Int) -> [Float] {
        var values = HostValues.random(tokens * columns, seed: 33)
        for index in values.indices where index % columns % 13 == 5 && index / columns % 3 != 1 { values[index] *= 12 }
        return values
    }
}

extension PlainLinear {
    /// Layers of one group side by side.
    init(joining parts: [PlainLinear], tokens: Int, widths: [Int]) {
        values = []
        slack = []
        for token in 0..<tokens {
            for (part, width) in zip(parts, widths) {
                values += part.values[token * width..<(token + 1) * width]
                slack += part.slack[token * width..<(token + 1) * width]
            }
        }
    }
}

extension [OperationResult] {
    /// The worst of several results of one case.
    var worst: OperationResult { dropFirst().reduce(self[0]) { $0.and($1) } }
}
