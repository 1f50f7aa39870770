internal import NibbleCore

extension OperationCases {
    /// Linear layers in every format, canonical and prepared, with every epilogue; groups.
    package static let linear: [OperationCase] = products + epilogues + groups + codebooks

    private static let fourBitFormats: [FourBitFormat] = [
        FourBitFormat(codebook: .nf4), FourBitFormat(codebook: .fp4), FourBitFormat(codebook: .nf4, isNested: true),
        FourBitFormat(codebook: .fp4, blockSize: 128, isNested: true), FourBitFormat(codebook: .nf4, blockSize: 32),
        FourBitFormat(codebook: .nf4, blockSize: 256), .mxfp4,
    ]

    private static let formats: [WeightFormat] =
        loadDTypes.map { .dense($0) } + fourBitFormats.map { .fourBit($0) } + [.int8]

    /// (N, K): whole tiles; ragged N; blocks that straddle rows; odd sizes; several panels deep; a single feature.
    private static let sizes = [(32, 128), (41, 256), (33, 80), (5, 7), (19, 576), (1, 64), (20, 1100)]

    private static let products: [OperationCase] = formats.flatMap { format in
        sizes.enumerated().flatMap { index, size in
            // Every size as a GEMV and as a GEMM; the other numbers of rows in turn.
            [1, 19, [2, 3, 4, 70, 5, 7, 12][index]].flatMap { tokens in
                arithmetics(format).map { arithmetic in
                    OperationCase("linear \(format.label) [\(size.0), \(size.1)] × \(tokens)\(arithmetic.label)") {
                        try product($0, format, size, tokens, arithmetic, LinearVariant(hasBias: index % 2 == 1))
                    }
                }
            }
        }
    }

    private static func arithmetics(_ format: WeightFormat) -> [LinearArithmetic] {
        switch format {
        case .dense: [LinearArithmetic()]
        case .fourBit:
            [nil, .float32, .float16, .bfloat16].map { LinearArithmetic(computeDType: $0) } + [
                LinearArithmetic(allowsInt8Activations: true)
            ]
        case .int8:
            [0, 3].flatMap { threshold in
                [LinearArithmetic.OutlierScope.token, .call].map {
                    LinearArithmetic(
                        outlierThreshold: threshold, outlierScope: $0, roundsActivationsToHalf: $0 == .call)
                }
            }
        }
    }

    private static let epilogues: [OperationCase] = [WeightFormat.dense(.bfloat16), .fourBit(fourBitFormats[0]), .int8].flatMap {
        format in
        loadDTypes.flatMap { loadDType in
            [1, 9].flatMap { tokens in
                LinearVariant.all.map { variant in
                    OperationCase("linear \(format.label) × \(tokens) \(variant)", loadDType: loadDType) {
                        try product($0, format, (37, 128), tokens, LinearArithmetic(), variant)
                    }
                }
            }
        }
    }

    private static func product(
        _ context: OperationContext, _ format: WeightFormat, _ size: (Int, Int), _ tokens: Int, _ arithmetic: LinearArithmetic,
        _ variant: LinearVariant
    ) throws -> OperationResult {
        let plain = try PlainWeight(context, format, outFeatures: size.0, inFeatures: size.1, seed: 1)
        let run = try LinearProductCase(context, [plain], tokens, arithmetic, variant)
        let wanted = run.wanted()
        let canonical = try run.result([plain.weight], wanted)
        return canonical.and(try run.result([try context.backend.prepare(plain.weight)], wanted))
    }

    private static let groups: [OperationCase] = {
        let members: [[WeightFormat]] = [
            [.fourBit(fourBitFormats[0]), .fourBit(fourBitFormats[0]), .fourBit(fourBitFormats[1])],
            [.dense(.float32), .fourBit(fourBitFormats[2]), .int8], [.int8, .int8], [.dense(.bfloat16), .dense(.float16)],
        ]
        return members.flatMap { formats in
            [1, 3, 30].map { tokens in
                OperationCase("linear group \(formats.map(\.label).joined(separator: ", ")) × \(tokens)") { context in
                    let plainForms = try formats.enumerated().map { index, format in
                        try PlainWeight(
                            context, format, outFeatures: 16 + 13 * index, inFeatures: 128, seed: UInt64(index + 1))
                    }
                    let weights = try plainForms.map { try context.backend.prepare($0.weight) }
                    let run = try LinearProductCase(context, plainForms, tokens, LinearArithmetic(), LinearVariant(hasBias: true))
                    return try run.result(weights, run.wanted())
                }
            }
        }
    }()

    /// Rows with a single nonzero column, whose code is exact. The result shows how int8 activations round the codebook.
    private static let codebooks: [OperationCase] = [
        (FourBitFormat.Codebook.nf4, 0.015), (.fp4, 0.0115), (.mxfp4, 0.01),
    ].flatMap {
        codebook, bound in
        [1, 3, 19].map { tokens in
            let format = WeightFormat.fourBit(FourBitFormat(codebook: codebook))
            return OperationCase("linear \(format.label), single columns × \(tokens) with int8 activations") { context in
                let columns = 256
                let plain = try PlainWeight(context, format, outFeatures: 41, inFeatures: columns, seed: 1)
                var x = [Float](repeating: 0, count: tokens * columns)
                for token in 0..<tokens { x[token * columns + 37 * token % columns] = 1 }
                let input = try context.operand(x, context.activation, [tokens, columns])
                let output = try context.output(context.activation, [tokens, plain.outFeatures])
                let layer = Linear(
                    name: "layers.0", weight: try context.backend.prepare(plain.weight),
                    arithmetic: LinearArithmetic(allowsInt8Activations: true))
                try context.backend.linear(input.tensor, LinearGroup([layer]), epilogue: LinearEpilogue(), into: output)
                // The bound of eight bits. With seven, errors would be 1.5 times (fp4) or twice (nf4) as large.
                return OperationResult(
                    got: try context.values(of: output), wanted: plain.product(input.values),
                    tolerance: max(bound, context.tolerance(steps: 2)))
            }
        }
    }
}

/// The epilogue of a product.
struct LinearVariant: CustomStringConvertible {
    var hasBias = false
    var activation = Activation.identity
    var scale: Float = 1
    var hasRowScale = false
    var residual = Residual.none

    enum Residual: String {
        case none, separate, inPlace
    }

    static let all: [LinearVariant] =
        OperationCases.activations.map { LinearVariant(hasBias: true, activation: $0) } + [
            LinearVariant(scale: 0.5), LinearVariant(hasRowScale: true), LinearVariant(residual: .separate),
            LinearVariant(hasBias: true, residual: .inPlace),
            LinearVariant(hasBias: true, activation: .geluTanh, scale: -2, hasRowScale: true, residual: .inPlace),
        ]

    var description: String {
        var parts = hasBias ? ["bias"] : []
        if activation != .identity { parts.append("\(activation)") }
        if scale != 1 { parts.append("scale \(scale)") }
        if hasRowScale { parts.append("row scale") }
        if residual != .none { parts.append("residual \(residual)") }
        return parts.isEmpty ? "plain" : parts.joined(separator: ", ")
    }
}

/// A linear call with its operands, and its plain form.
private struct LinearProductCase {
    let context: OperationContext
    let plainForms: [PlainWeight]
    let biases: [OperationContext.Operand]
    let arithmetic: LinearArithmetic
    let variant: LinearVariant
    let input: OperationContext.Operand
    let rowScale: OperationContext.Operand
    let residual: OperationContext.Operand
    let tokens: Int

    init(
        _ context: OperationContext, _ plainForms: [PlainWeight], _ tokens: Int, _ arithmetic: LinearArithmetic,
        _ variant: LinearVariant
    ) throws {
        self.context = context
        self.plainForms = plainForms
        self.arithmetic = arithmetic
        self.variant = variant
        self.tokens = tokens
        let inFeatures = plainForms[0].inFeatures
        // Some values beyond the outlier threshold.
        var x = HostValues.random(tokens * inFeatures, seed: 30)
        for index in stride(from: 3, to: x.count, by: 61) { x[index] *= 5 }
        input = try context.operand(x, context.activation, [tokens, inFeatures])
        rowScale = try context.random(.float32, [tokens], seed: 31)
        let outFeatures = plainForms.reduce(0) { $0 + $1.outFeatures }
        residual = try context.random(context.activation, [tokens, outFeatures], seed: 32)
        biases = try plainForms.enumerated().map { index, plain in
            try context.random(.float32, [plain.outFeatures], seed: UInt64(40 + index))
        }
    }

    func result(_ weights: [LinearWeight], _ wanted: [Double]) throws -> OperationResult {
        let group = LinearGroup(
            weights.enumerated().map { index, weight in
                Linear(
                    name: "layers.\(index)", weight: weight, bias: variant.hasBias ? biases[index].tensor : nil,
                    arithmetic: arithmetic)
            })
        let output =
            variant.residual == .inPlace ? residual.tensor : try context.output(context.activation, residual.tensor.shape)
        try context.backend.linear(
            input.tensor, group,
            epilogue: LinearEpilogue(
                activation: variant.activation, scale: variant.scale, rowScale: variant.hasRowScale ? rowScale.tensor : nil,
                residual: variant.residual == .none ? nil : residual.tensor), into: output)
        let got = try context.values(of: output)
        if variant.residual == .inPlace { try restoreResidual() }
        return OperationResult(got: got, wanted: wanted, tolerance: tolerance)
    }

    private func restoreResidual() throws {
        let host = HostValues.tensor(residual.values.map { Float($0) }, residual.tensor.dtype, residual.tensor.shape)
        try context.backend.copy(host, to: residual.tensor)
    }

    func wanted() -> [Double] {
        let columns = plainForms.map { plain in plain.product(operand(of: plain)) }
        let total = residual.values.count / tokens
        var result = [Double]()
        for token in 0..<tokens {
            for (plain, (y, bias)) in zip(plainForms, zip(columns, biases)) {
                for feature in 0..<plain.outFeatures {
                    let sum = y[token * plain.outFeatures + feature] + (variant.hasBias ? bias.values[feature] : 0)
                    var value = PlainActivation.value(variant.activation, sum) * Double(variant.scale)
                    if variant.hasRowScale { value *= rowScale.values[token] }
                    result.append(value)
                }
            }
            guard variant.residual != .none else { continue }
            for column in 0..<total { result[token * total + column] += residual.values[token * total + column] }
        }
        return result
    }

    /// The input as a layer of this format multiplies it.
    private func operand(of plain: PlainWeight) -> [Double] {
        switch plain.weight.format {
        case .dense: return input.values
        case .int8: return PlainInt8Activations.values(input.values, columns: plain.inFeatures, arithmetic)
        case .fourBit: return arithmetic.converted(input.values)
        }
    }

    /// int8: an activation halfway between two steps may go either way, depending on how the reciprocal is rounded. 4 bits in
    /// 16-bit arithmetic: weights and results are rounded once each.
    private var tolerance: Double {
        var tolerance = context.tolerance(steps: 2)
        if plainForms.contains(where: { $0.weight.format == .int8 }) { tolerance = max(tolerance, 5e-3) }
        // Weights and activations have eight bits each, and their errors add up over K.
        if arithmetic.allowsInt8Activations { tolerance = max(tolerance, 8e-2) }
        if let dtype = arithmetic.computeDType { tolerance = max(tolerance, OperationContext.tolerance(dtype, steps: 2)) }
        // The error of a product is measured against its saturated activation, which is several times smaller.
        return variant.activation.saturates && tolerance >= OperationContext.tolerance(.float16) ? 4 * tolerance : tolerance
    }
}

extension WeightFormat {
    var label: String {
        switch self {
        case .dense(let dtype): "\(dtype)"
        case .fourBit(let format):
            "\(format.codebook.rawValue) \(format.blockSize)\(format.isNested ? " nested" : "")"
        case .int8: "int8"
        }
    }
}

extension LinearArithmetic {
    fileprivate var label: String {
        if let computeDType { return " in \(computeDType)" }
        if allowsInt8Activations { return " with int8 activations" }
        return outlierThreshold == 6 ? "" : " threshold \(outlierThreshold) by \(outlierScope)"
    }
}

extension Activation {
    /// Whether the function is bounded.
    var saturates: Bool {
        switch self {
        case .sigmoid, .tanh, .softCap: true
        default: false
        }
    }
}
