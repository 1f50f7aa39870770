import NibbleCore

extension DescriptionCheck {
    mutating func checkBlock(
        _ block: LocatedModule, _ layer: LayerDescription, _ stack: StackDescription, isDecoder: Bool, sharedBias: LocatedModule?
    ) throws {
        let attention = try role(.selfAttention, in: block)
        try checkSelfAttention(attention, layer.attention, width: stack.width)
        try checkBias(layer.attention, of: block, sharedBias: sharedBias)
        try checkCrossAttention(block, layer, width: stack.width, isDecoder: isDecoder)
        try checkFeedForward(block.first(.feedForward) ?? block, layer.feedForward, width: stack.width)
        try checkNorms(of: block, layer, width: stack.width)
    }

    // MARK: Attention

    private func checkNumbers(_ attention: AttentionDescription, _ module: LocatedModule) throws {
        let (heads, groups) = (attention.heads, attention.keyValueHeads)
        try expect(
            heads > 0 && groups > 0 && attention.headSize > 0 && heads % max(groups, 1) == 0, module,
            "heads in whole groups", "\(heads) heads, \(groups) of keys and values, \(attention.headSize) elements")
        try expect(attention.scale.isFinite, module, "a finite scale of scores", "\(attention.scale)")
        try expect(attention.window.map { $0 > 0 } ?? true, module, "a positive window", "\(attention.window ?? 0)")
        try expect(attention.softCap.map { $0 > 0 } ?? true, module, "a positive soft cap", "\(attention.softCap ?? 0)")
        try expect(attention.clip.map { $0 > 0 } ?? true, module, "a positive bound", "\(attention.clip ?? 0)")
        if let temperature = attention.temperature {
            try expect(
                temperature.beta.isFinite && temperature.length > 0, module,
                "a finite query temperature over a positive length", "\(temperature.beta) over \(temperature.length)")
        }
    }

    private mutating func checkSelfAttention(
        _ module: LocatedModule, _ attention: AttentionDescription, width: Int
    ) throws {
        try checkNumbers(attention, module)
        let (queries, keys) = (attention.heads * attention.headSize, attention.keyValueHeads * attention.headSize)
        if let fused = module.first(.queryKeyValue) {
            try linear(fused, in: width, out: queries + 2 * keys)
            try checkFused(fused, attention)
        } else {
            try linear(role(.query, in: module), in: width, out: queries)
            try linear(role(.key, in: module), in: width, out: keys)
            try linear(role(.value, in: module), in: width, out: keys)
            let sideBySide = QueryKeyValueLayout.stacked(
                heads: attention.heads, keyValueHeads: attention.keyValueHeads, headSize: attention.headSize)
            try expect(
                attention.layout == sideBySide, module, "queries, keys and values side by side",
                "the layout of a fused projection")
        }
        try linear(role(.attentionOutput, in: module), in: queries, out: width)
        try checkHeadNorms(module, attention)
    }

    private mutating func checkHeadNorms(_ module: LocatedModule, _ attention: AttentionDescription) throws {
        let norms = [module.first(.queryNorm), module.first(.keyNorm)]
        try expect(
            (norms[0] == nil) == (norms[1] == nil), module, "norms of queries and of keys, or neither", "one of them")
        for (norm, heads) in zip(norms, [attention.heads, attention.keyValueHeads]) {
            guard let norm else { continue }
            let size = attention.headSize
            if case .norm = norm.node.kind {
                try checkNorm(norm, shapes: attention.normScope == .token ? [[heads * size]] : [[size], [heads, size]])
            } else {
                // One norm a head.
                let each = norm.descendants.filter { if case .norm = $0.node.kind { true } else { false } }
                try expect(each.count == heads, norm, "\(heads) norms", "\(each.count)")
                for single in each { try checkNorm(single, width: size) }
            }
        }
    }

    private mutating func checkBias(
        _ attention: AttentionDescription, of block: LocatedModule, sharedBias: LocatedModule?
    ) throws {
        switch attention.bias {
        case .none: return
        case .alibi(let slopes):
            try expect(slopes.count == attention.heads, block, "\(attention.heads) slopes", "\(slopes.count)")
        case .relative(_, let maximumDistance):
            guard let table = block.first(.relativeBias) ?? sharedBias else {
                throw wrong(block.path, "a module with the role \(Role.relativeBias), or one in another block", "none")
            }
            let buckets = table.node.parameters.first?.shape.dimensions.first ?? 0
            try expect(buckets > 0 && maximumDistance > 0, table, "a table of buckets", "\(buckets) of up to \(maximumDistance)")
            try shape(table, [buckets, attention.heads])
            consume(table)
        }
    }

    private mutating func checkCrossAttention(
        _ block: LocatedModule, _ layer: LayerDescription, width: Int, isDecoder: Bool
    ) throws {
        guard let attention = layer.crossAttention else {
            try expect(
                block.first(.crossAttention) == nil, block, "a block without attention over an encoder", "one that has it")
            return
        }
        guard isDecoder, let encoder = architecture.encoder else {
            throw wrong(block.path, "no attention over an encoder where there is none", "one that is described")
        }
        let module = try role(.crossAttention, in: block)
        try checkNumbers(attention, module)
        let (queries, keys) = (attention.heads * attention.headSize, attention.keyValueHeads * attention.headSize)
        try linear(role(.query, in: module), in: width, out: queries)
        try linear(role(.key, in: module), in: encoder.width, out: keys)
        try linear(role(.value, in: module), in: encoder.width, out: keys)
        try linear(role(.attentionOutput, in: module), in: queries, out: width)
    }

    // MARK: Feed-forward

    private mutating func checkFeedForward(
        _ module: LocatedModule, _ description: FeedForwardDescription, width: Int
    ) throws {
        switch description {
        case .plain:
            let up = try role(.up, in: module)
            try linear(up, in: width)
            try linear(role(.down, in: module), in: up.outFeatures, out: width)
        case .gated:
            try checkGated(module, width: width)
        case .experts(let experts):
            try checkExperts(module, experts, width: width)
        }
    }

    private mutating func checkGated(_ module: LocatedModule, width: Int) throws {
        let down = try role(.down, in: module)
        try linear(down, out: width)
        let inner = down.inFeatures
        if let fused = module.first(.gateUp) {
            try linear(fused, in: width, out: 2 * inner)
        } else {
            try linear(role(.gate, in: module), in: width, out: inner)
            try linear(role(.up, in: module), in: width, out: inner)
        }
    }

    private mutating func checkExperts(_ module: LocatedModule, _ experts: ExpertsDescription, width: Int) throws {
        try expect(
            experts.topK > 0 && experts.topK <= experts.count, module, "1 to \(experts.count) experts a token", "\(experts.topK)")
        try linear(role(.router, in: module), in: width, out: experts.count)
        let fused = try role(.experts, in: module)
        try expect(fused.isExperts, fused, "a set of experts", "another kind of module")
        try shape(fused, [experts.count, 2 * experts.width, width], "gate_up_proj")
        try shape(fused, [experts.count, width, experts.width], "down_proj")
        consume(fused)
        guard experts.shared != .none else { return }
        try checkGated(role(.sharedExpert, in: module), width: width)
        if experts.shared == .gated { try linear(role(.sharedExpertGate, in: module), in: width, out: 1) }
    }

    // MARK: Norms

    /// The norms that the block runs. A sequential block norms each sublayer somewhere; a parallel one reads its input through
    /// one norm or two and has none behind.
    private mutating func checkNorms(of block: LocatedModule, _ layer: LayerDescription, width: Int) throws {
        var sublayers: [[Role]] = [
            [.attentionNorm, .attentionOutputNorm, .attentionResidualNorm],
            [.feedForwardNorm, .feedForwardOutputNorm, .feedForwardResidualNorm],
        ]
        if layer.crossAttention != nil { sublayers.append([.crossAttentionNorm, .crossAttentionResidualNorm]) }
        if layer.isParallel {
            try expect(layer.crossAttention == nil, block, "a parallel block without cross-attention", "one that has it")
            sublayers = [[.attentionNorm]]
            try checkNorm(block.first(.feedForwardNorm), width: width)
        }
        for roles in sublayers {
            let norms = roles.compactMap { block.first($0) }
            try expect(!norms.isEmpty, block, "a norm with the role \(roles[0]) or one behind the sublayer", "none")
            for norm in norms { try checkNorm(norm, width: width) }
        }
    }
}
