internal import NibbleCore

extension OperationCases {
    /// Linear layers with the low-rank sums of adapters, in every stored form of the layer and of the adapters.
    package static let lowRank: [OperationCase] = loadDTypes.flatMap { lowRank($0) }

    private static func lowRank(_ loadDType: DType) -> [OperationCase] {
        let kinds: [[OperationCase]] = [
            byTokens(loadDType), byRank(loadDType), byForm(loadDType), manyOutputs(loadDType), byEpilogue(loadDType),
            groups(loadDType), afterNorm(loadDType), mixtures(loadDType),
        ]
        return Array(kinds.joined())
    }

    private typealias Form = LowRankOperand.Form

    private static func bases(_ loadDType: DType) -> [(String, WeightFormat)] {
        [
            ("dense", .dense(loadDType)), ("dense float32", .dense(.float32)), ("nf4", .fourBit(FourBitFormat(codebook: .nf4))),
            ("nested fp4", .fourBit(FourBitFormat(codebook: .fp4, isNested: true))), ("int8", .int8),
        ]
    }

    /// One adapter for all rows; or several, of which the second is not used and the third is added to others.
    private static func byTokens(_ loadDType: DType) -> [OperationCase] {
        let forms = [Form(ranks: [16]), Form(ranks: [8, 4, 16, 3], a: .float16, b: .float32)]
        return bases(loadDType).flatMap { name, format in
            [1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 300].map { tokens in
                OperationCase("adapters on \(name) × \(tokens)", loadDType: loadDType) { context in
                    try forms.map { form in
                        try LowRankCase(context, [(format, 40)], 128, tokens, form, isPrepared: true).result()
                    }.worst
                }
            }
        }
    }

    private static func byRank(_ loadDType: DType) -> [OperationCase] {
        [1, 2, 7, 8, 9, 24, 64, 100, 128].flatMap { rank in
            [(1, 33, 192), (3, 17, 1000), (20, 48, 64), (70, 50, 320)].map { tokens, features, columns in
                OperationCase("adapters of rank \(rank) [\(tokens), \(features), \(columns)]", loadDType: loadDType) { context in
                    let format = WeightFormat.fourBit(FourBitFormat(codebook: .nf4))
                    return try [[rank], [rank, 8], [3, rank, 16]].map { ranks in
                        try LowRankCase(
                            context, [(format, features)], columns, tokens, Form(ranks: ranks), isPrepared: columns % 64 == 0
                        ).result()
                    }.worst
                }
            }
        }
    }

    /// Dtypes, lora_B's bias and DoRA's gains; odd extents.
    private static func byForm(_ loadDType: DType) -> [OperationCase] {
        let dtypes: [DType] = [.float32, .float16, .bfloat16]
        return dtypes.flatMap { dtype in
            [(false, false), (true, false), (false, true), (true, true)].flatMap { hasBiases, hasGains in
                [(1, 5, 7), (1, 40, 13_000), (2, 31, 257), (9, 1, 64), (33, 100, 130)].map { tokens, features, columns in
                    let form = Form(ranks: [5, 16, 0, 8], a: dtype, b: dtype, hasBiases: hasBiases, hasGains: hasGains)
                    let name = "adapters in \(dtype)\(hasBiases ? ", biases" : "")\(hasGains ? ", gains" : "")"
                    return OperationCase("\(name) [\(tokens), \(features), \(columns)]", loadDType: loadDType) { context in
                        try [.dense(loadDType), .int8].map { format in
                            try LowRankCase(context, [(format, features)], columns, tokens, form).result()
                        }.worst
                    }
                }
            }
        }
    }

    /// More outputs than a card computes at a time.
    private static func manyOutputs(_ loadDType: DType) -> [OperationCase] {
        let forms: [(dtype: DType, tokens: Int)] = [(.float32, 1), (.float16, 1), (.bfloat16, 1), (.bfloat16, 33)]
        return [0, 2].flatMap { base in
            forms.map { dtype, tokens in
                let (name, format) = bases(loadDType)[base]
                return OperationCase("adapters in \(dtype) on \(name) of many outputs × \(tokens)", loadDType: loadDType) {
                    let form = Form(ranks: [16, 8, 24], a: dtype, b: dtype)
                    return try LowRankCase($0, [(format, 4_500), (format, 70)], 128, tokens, form, isPrepared: true).result()
                }
            }
        }
    }

    private static func byEpilogue(_ loadDType: DType) -> [OperationCase] {
        bases(loadDType).flatMap { name, format in
            LinearVariant.all.flatMap { variant in
                [1, 6, 40, 140].map { tokens in
                    OperationCase("adapters on \(name) × \(tokens), \(variant)", loadDType: loadDType) { context in
                        let form = Form(ranks: [16, 8, 4], hasBiases: tokens == 6, hasGains: tokens == 40)
                        return try LowRankCase(context, [(format, 72)], 128, tokens, form, variant, isPrepared: true).result()
                    }
                }
            }
        }
    }

    /// Layers that share an input; the second has no adapter, and kinds differ within a group.
    private static func groups(_ loadDType: DType) -> [OperationCase] {
        [[2, 2, 2], [0, 0], [4, 4, 4], [2, 3, 4, 0], [2, 2, 2, 2, 2, 2]].flatMap { members in
            [1, 3, 7, 32, 90].map { tokens in
                let names = members.map { bases(loadDType)[$0].0 }.joined(separator: ", ")
                return OperationCase("adapters on a group of \(names) × \(tokens)", loadDType: loadDType) { context in
                    let layers = members.enumerated().map { (bases(loadDType)[$1].1, 24 + 13 * $0) }
                    return try LowRankCase(
                        context, layers, 192, tokens, Form(ranks: [16, 8, 0, 4]), LinearVariant(hasBias: true), isPrepared: true,
                        bare: 1
                    ).result()
                }
            }
        }
    }

    private static func afterNorm(_ loadDType: DType) -> [OperationCase] {
        [0, 2, 4].flatMap { base in
            [nil, Norm.Kind.rms, .layer].flatMap { kind in
                [1, 3, 20].flatMap { tokens in
                    [128, 1000, 4096].map { columns in
                        let name = "adapters on \(bases(loadDType)[base].0) [\(tokens), \(columns)]"
                        return OperationCase("\(name) after \(kind.map { "\($0)" } ?? "rounding")", loadDType: loadDType) {
                            context in
                            var run = try LowRankCase(
                                context, [(bases(loadDType)[base].1, 40)], columns, tokens, Form(ranks: [16, 8]), isPrepared: true
                            )
                            run.norm = kind
                            return try run.result()
                        }
                    }
                }
            }
        }
    }

    // MARK: Mixtures

    private static func mixtures(_ loadDType: DType) -> [OperationCase] {
        [1, 5, 40].map { tokens in
            OperationCase("adapters on experts × \(tokens)", loadDType: loadDType) { try mix($0, tokens: tokens) }
        }
    }

    private static func mix(_ context: OperationContext, tokens: Int) throws -> OperationResult {
        let (count, width, hidden, form) = (4, 64, 96, Form(ranks: [8, 4]))
        let rows = try AdapterRowsOperand(context, tokens: tokens, adapters: form.ranks.count)
        let members = try (0..<count).map { index in
            let seed = 160 + 10 * UInt64(index)
            func layer(_ features: Int, _ columns: Int, _ seed: UInt64) throws -> LowRankLayer {
                try LowRankLayer(context, .dense(.float32), features, columns, seed: seed, form, unused: nil)
            }
            return (gateUp: try layer(2 * hidden, width, seed), down: try layer(width, hidden, seed + 5))
        }
        let input = try context.random(context.activation, [tokens, width], seed: 50)
        let ids = (0..<tokens).flatMap { (token: Int) -> [Int] in
            let first = token % count
            return [first, (first + 1 + token / count % (count - 1)) % count]
        }
        let weights = try context.random(.float32, [tokens, 2], seed: 52)
        let output = try context.output(context.activation, [tokens, width])
        let experts = members.map { Expert(gateUp: LinearGroup([$0.gateUp.layer]), down: $0.down.layer) }
        try context.backend.experts(
            input.tensor,
            ExpertsCall(
                ids: try context.integers(ids.map(Int32.init), [tokens, 2]), weights: weights.tensor, experts: ExpertSet(experts),
                activation: .gated(.product(.silu)), residual: nil, adapters: rows.rows), into: output)
        var wanted = [Double](repeating: 0, count: tokens * width)
        for (pair, expert) in ids.enumerated() {
            let token = pair / 2
            let x = Array(input.values[token * width..<(token + 1) * width])
            let both = members[expert].gateUp.outputs(x, [rows.weights(token)]).values
            let gated = (0..<hidden).map { PlainActivation.value(.silu, both[$0]) * both[hidden + $0] }
            let down = members[expert].down.outputs(gated, [rows.weights(token)]).values
            for index in 0..<width { wanted[token * width + index] += weights.values[pair] * down[index] }
        }
        return OperationResult(got: try context.values(of: output), wanted: wanted, tolerance: context.tolerance(steps: 6))
    }
}

/// What rows take of adapters: some use one, some several, some none, and the second adapter is used by nobody.
struct AdapterRowsOperand {
    let rows: AdapterRows
    private let table: [Double]
    private let slots: [Int32]
    private let adapters: Int

    static let unused = 1

    init(_ context: OperationContext, tokens: Int, adapters: Int) throws {
        self.adapters = adapters
        let slotCount = 5
        // More columns than adapters, as a model keeps room for more.
        let stride = adapters + 3
        var weights = [Float](repeating: 0, count: slotCount * stride)
        for slot in 0..<slotCount {
            for adapter in 0..<adapters where adapter != AdapterRowsOperand.unused {
                let isUsed = adapters <= 2 || (slot + adapter) % 3 != 1
                weights[slot * stride + adapter] = isUsed ? 0.75 + Float(slot) / 4 - Float(adapter) / 2 : 0
            }
        }
        table = weights.map(Double.init)
        slots = (0..<tokens).map { token in token % 7 == 3 ? -1 : Int32((token * 3 + token / 5) % slotCount) }
        rows = AdapterRows(
            weights: try context.operand(weights, .float32, [slotCount, stride]).tensor, slots: try context.integers(slots))
    }

    /// Of each adapter.
    func weights(_ token: Int) -> [Double] {
        guard slots[token] >= 0 else { return Array(repeating: 0, count: adapters) }
        let first = Int(slots[token]) * (adapters + 3)
        return Array(table[first..<first + adapters])
    }
}

/// A layer with adapters.
struct LowRankLayer {
    private let operand: LinearOperand
    private let lowRank: LowRankOperand?
    let layer: Linear

    /// - Parameter form: `nil`: no adapter changes the layer.
    init(
        _ context: OperationContext, _ format: WeightFormat, _ features: Int, _ columns: Int, seed: UInt64,
        _ form: LowRankOperand.Form?, hasBias: Bool = false, isPrepared: Bool = false, unused: Int?
    ) throws {
        let operand = try LinearOperand(
            context, format, features, columns, seed: seed, hasBias: hasBias, isPrepared: isPrepared)
        let lowRank = try form.map { try LowRankOperand(context, $0, features, columns, seed: seed + 2, unused: unused) }
        (self.operand, self.lowRank) = (operand, lowRank)
        layer = Linear(
            name: operand.layer.name, weight: operand.layer.weight, bias: operand.layer.bias,
            arithmetic: operand.layer.arithmetic, lowRankPlace: LowRankPlace(lowRank?.lowRank))
    }

    /// - Parameter weights: of each row.
    func outputs(_ input: [Double], _ weights: [[Double]]) -> PlainLinear {
        var plain = PlainLinear(input, operand)
        guard let lowRank else { return plain }
        let (n, k) = (operand.outFeatures, operand.inFeatures)
        for row in weights.indices {
            let projected = lowRank.projected(input[row * k..<(row + 1) * k], weights: weights[row])
            for feature in 0..<n {
                plain.values[row * n + feature] = lowRank.output(
                    plain.values[row * n + feature], bias: operand.bias[feature], feature: feature, projected: projected,
                    weights: weights[row])
            }
        }
        plain.slack = plain.slack.map { $0 * lowRank.stretch }
        return plain
    }
}

/// One call of a group with adapters.
private struct LowRankCase {
    private let context: OperationContext
    private let layers: [LowRankLayer]
    private let columns: Int
    private let tokens: Int
    private let variant: LinearVariant
    private let rows: AdapterRowsOperand
    /// Of the input, if one comes before the products; the input is float32 then.
    var norm: Norm.Kind??

    /// - Parameter bare: the layer that no adapter changes.
    init(
        _ context: OperationContext, _ layers: [(format: WeightFormat, features: Int)], _ columns: Int, _ tokens: Int,
        _ form: LowRankOperand.Form, _ variant: LinearVariant = LinearVariant(), isPrepared: Bool = false, bare: Int? = nil
    ) throws {
        self.context = context
        self.columns = columns
        self.tokens = tokens
        self.variant = variant
        rows = try AdapterRowsOperand(context, tokens: tokens, adapters: form.ranks.count)
        let unused = form.ranks.count > 1 ? AdapterRowsOperand.unused : nil
        self.layers = try layers.enumerated().map { index, layer in
            try LowRankLayer(
                context, layer.format, layer.features, columns, seed: 200 + 10 * UInt64(index), index == bare ? nil : form,
                hasBias: variant.hasBias, isPrepared: isPrepared, unused: unused)
        }
    }

    func result() throws -> OperationResult {
        let group = LinearGroup(layers.map(\.layer))
        let shape: Shape = [tokens, group.outFeatures]
        // The residual stream behind a norm is float32.
        let dtype = norm == nil ? context.activation : .float32
        let residual = try context.random(dtype, shape, seed: 34)
        let rowScale = try context.random(.float32, [tokens], seed: 35, offset: 1)
        let output = variant.residual == .inPlace ? residual.tensor : try context.output(dtype, shape)
        let epilogue = LinearEpilogue(
            activation: variant.activation, scale: variant.scale, rowScale: variant.hasRowScale ? rowScale.tensor : nil,
            residual: variant.residual == .none ? nil : residual.tensor, adapters: rows.rows)
        let seen = try multiply(group, epilogue, into: output)

        let weights = (0..<tokens).map { rows.weights($0) }
        let plainForms = layers.map { $0.outputs(seen, weights) }
        var plain = PlainLinear(joining: plainForms, tokens: tokens, widths: layers.map(\.layer.outFeatures))
        for index in plain.values.indices {
            let row = index / group.outFeatures
            let factor = Double(variant.scale) * (variant.hasRowScale ? rowScale.values[row] : 1)
            plain.values[index] = PlainActivation.value(variant.activation, plain.values[index]) * factor
            plain.slack[index] *= 1.1 * abs(factor)
            if variant.residual != .none { plain.values[index] += residual.values[index] }
        }
        return OperationResult(
            got: plain.forgiven(try context.values(of: output)), wanted: plain.values,
            tolerance: context.tolerance(steps: variant.activation.saturates ? 8 : 4))
    }

    /// Runs the call. Returns the activations that its products read.
    private func multiply(_ group: LinearGroup, _ epilogue: LinearEpilogue, into output: Tensor) throws -> [Double] {
        guard let kind = norm else {
            let input = try context.random(context.activation, [tokens, columns], seed: 33)
            try context.backend.linear(input.tensor, group, epilogue: epilogue, into: output)
            return input.values
        }
        let input = try context.random(.float32, [tokens, columns], seed: 72, scale: 2, offset: 1)
        let weight = try context.random(.float32, [columns], seed: 73, offset: 1)
        let norm = kind.map { Norm(kind: $0, epsilon: 1e-5, weight: weight.tensor, bias: nil) }
        try context.backend.linear(
            input.tensor, after: norm, scratch: try context.output(context.activation, [tokens, columns]), group,
            epilogue: epilogue, into: output)
        let prepared = (0..<tokens).flatMap { token -> [Double] in
            let row = Array(input.values[token * columns..<(token + 1) * columns])
            guard let kind else { return row }
            return PlainNorm.value(kind, epsilon: 1e-5, row, weight: weight.values, bias: nil)
        }
        return HostValues.values(HostValues.tensor(prepared.map { Float($0) }, context.activation, [prepared.count]))
    }
}
