import NibbleCore

extension DescriptionCheck {
    mutating func checkBlock(
        _ block: LocatedModule, _ layer: LayerDescription, _ stack: StackDescription, isDecoder: Bool, sharedBias: LocatedModule?
    ) throws {
        if let attention = layer.selfAttention {
            let module = try role(.selfAttention, in: block)
            try checkSelfAttention(module, attention, width: stack.width)
            try checkSharing(module, attention, stack)
            try checkBias(attention, of: block, sharedBias: sharedBias)
        } else {
            try expect(block.first(.selfAttention) == nil, block, "a block without attention", "one that has it")
        }
        if let recurrence = layer.recurrence {
            try checkRecurrence(role(.recurrence, in: block), recurrence, width: stack.width)
        }
        try checkCrossAttention(block, layer, width: stack.width, isDecoder: isDecoder)
        try checkFeedForward(block.first(.feedForward) ?? block, layer.feedForward, width: stack.width)
        try checkNorms(of: block, layer, width: stack.width)
        try checkPerLayer(block, layer, stack)
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
            try expect(attention.outputGate == nil, fused, "a projection of queries, keys and values alone", "one with gates")
            try linear(fused, in: width, out: queries + 2 * keys)
            try checkFused(fused, attention)
        } else {
            try linear(role(.query, in: module), in: width, out: attention.outputGate == nil ? queries : 2 * queries)
            if attention.sharedLayer == nil {
                try linear(role(.key, in: module), in: width, out: keys)
                if !attention.valuesAreKeys { try linear(role(.value, in: module), in: width, out: keys) }
            }
            try checkSideBySide(module, attention)
        }
        try linear(role(.attentionOutput, in: module), in: queries, out: width)
        try checkHeadNorms(module, attention)
        guard attention.hasSinks else { return }
        try shape(module, [attention.heads], "sinks")
        consume(module)
    }

    /// A layer without keys of its own reads those of an earlier one with the same heads, and sees as much.
    private func checkSharing(
        _ module: LocatedModule, _ attention: AttentionDescription, _ stack: StackDescription
    ) throws {
        guard let place = attention.sharedLayer else { return }
        try expect(stack.layers.indices.contains(place), module, "keys and values of another layer", "layer \(place)")
        let source = stack.layers[place].attention
        try expect(
            source.sharedLayer == nil && source.keyValueHeads == attention.keyValueHeads
                && source.headSize == attention.headSize && source.window == attention.window, module,
            "\(attention.keyValueHeads) keys and values of \(attention.headSize) elements in layer \(place), with the same window",
            "\(source.keyValueHeads) of \(source.headSize)")
    }

    private func checkSideBySide(_ module: LocatedModule, _ attention: AttentionDescription) throws {
        var sideBySide = QueryKeyValueLayout.stacked(
            heads: attention.heads, keyValueHeads: attention.keyValueHeads, headSize: attention.headSize)
        if let gate = attention.outputGate {
            sideBySide = .gated(heads: attention.heads, keyValueHeads: attention.keyValueHeads, headSize: attention.headSize)
            try expect(
                gate == .init(offset: attention.headSize, stride: 2 * attention.headSize), module,
                "a gate behind each head's query", "another place for it")
        }
        try expect(
            attention.layout == sideBySide, module, "queries, keys and values side by side",
            "the layout of a fused projection")
    }

    private mutating func checkHeadNorms(_ module: LocatedModule, _ attention: AttentionDescription) throws {
        let norms = [module.first(.queryNorm), module.first(.keyNorm)]
        try expect(
            (norms[0] == nil) == (norms[1] == nil) || attention.sharedLayer != nil, module,
            "norms of queries and of keys, or neither", "one of them")
        if let norm = module.first(.valueNorm) {
            try expect(norm.node.parameters.isEmpty, norm, "a norm without weights", "one that has them")
            try checkNorm(norm, width: attention.headSize)
        }
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

    // MARK: Recurrent mixers

    private mutating func checkRecurrence(
        _ module: LocatedModule, _ recurrence: RecurrentDescription, width: Int
    ) throws {
        let (channels, kernel) = recurrence.convolution
        try expect(channels > 0 && (2...8).contains(kernel), module, "a convolution of length 2 to 8", "\(kernel)")
        let (inputs, widths) = (module.all(.mixerInput), recurrence.projectionWidths)
        try expect(inputs.count == widths.count, module, "\(widths.count) projections of its input", "\(inputs.count)")
        for (input, out) in zip(inputs, widths) { try linear(input, in: width, out: out) }
        let convolution = try role(.convolution, in: module)
        try shape(convolution, [channels, 1, kernel])
        for bias in convolution.node.parameters where bias.name == "bias" { try shape(convolution, [channels], "bias") }
        consume(convolution)
        if case .gatedDelta(let delta) = recurrence { try checkGatedDelta(module, delta) }
        if case .stateSpace(let space) = recurrence { try checkStateSpace(module, space) }
        try linear(role(.mixerOutput, in: module), in: recurrence.outputWidth, out: width)
    }

    private mutating func checkGatedDelta(_ module: LocatedModule, _ delta: GatedDeltaDescription) throws {
        try expect(
            delta.valueHeads % max(delta.keyHeads, 1) == 0 && (1...256).contains(delta.keySize)
                && (1...256).contains(delta.valueSize), module, "value heads in whole groups, of at most 256 elements",
            "\(delta.valueHeads) of \(delta.valueSize) over \(delta.keyHeads) of \(delta.keySize)")
        for name in ["A_log", "dt_bias"] { try shape(module, [delta.valueHeads], name) }
        consume(module)
        try checkNorm(role(.mixerNorm, in: module), width: delta.valueSize)
    }

    private mutating func checkStateSpace(_ module: LocatedModule, _ space: StateSpaceDescription) throws {
        try expect(
            space.heads % max(space.groups, 1) == 0 && (1...256).contains(space.headSize) && (1...256).contains(space.stateSize),
            module, "heads in whole groups, of at most 256 elements with states of at most 256",
            "\(space.heads) of \(space.headSize) in \(space.groups), with states of \(space.stateSize)")
        for name in ["A_log", "dt_bias", "D"] { try shape(module, [space.heads], name) }
        consume(module)
        guard space.hasNorm else { return try expect(module.first(.mixerNorm) == nil, module, "no norm", "one") }
        try checkNorm(role(.mixerNorm, in: module), width: space.width)
    }

    // MARK: Feed-forward

    private mutating func checkFeedForward(
        _ module: LocatedModule, _ description: FeedForwardDescription, width: Int
    ) throws {
        switch description {
        case .none: return
        case .plain:
            try checkPlain(module, width: width)
        case .gated:
            try checkGated(module, width: width)
        case .experts(let experts):
            try checkExperts(module, experts, width: width)
        }
    }

    private mutating func checkPlain(_ module: LocatedModule, width: Int) throws {
        let up = try role(.up, in: module)
        try linear(up, in: width)
        try linear(role(.down, in: module), in: up.outFeatures, out: width)
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
        let inputWidth = experts.latent ?? width
        switch fused.node.expertsLayout {
        case .rows:
            switch experts.activation {
            case .gated: try shape(fused, [experts.count, 2 * experts.width, inputWidth], "gate_up_proj")
            case .plain: try shape(fused, [experts.count, experts.width, inputWidth], "up_proj")
            }
            try shape(fused, [experts.count, inputWidth, experts.width], "down_proj")
        case .alternatingColumns:
            try shape(fused, [experts.count, width, 2 * experts.width], "gate_up_proj")
            try shape(fused, [experts.count, experts.width, width], "down_proj")
            try shape(fused, [experts.count, 2 * experts.width], "gate_up_proj_bias")
            try shape(fused, [experts.count, width], "down_proj_bias")
        }
        consume(fused)
        try checkRouter(module, experts)
        if let latent = experts.latent {
            try expect(experts.shared != .apart, module, "experts of the model's width beside a dense feed-forward", "\(latent)")
            try linear(role(.latentInput, in: module), in: width, out: latent)
            try linear(role(.latentOutput, in: module), in: latent, out: width)
        }
        if experts.shared == .apart { try checkApart(module, experts, width: width) }
        guard experts.shared != .none else { return }
        let shared = try role(.sharedExpert, in: module)
        switch experts.activation {
        case .gated: try checkGated(shared, width: width)
        case .plain: try checkPlain(shared, width: width)
        }
        if experts.shared == .gated { try linear(role(.sharedExpertGate, in: module), in: width, out: 1) }
    }

    private mutating func checkApart(_ module: LocatedModule, _ experts: ExpertsDescription, width: Int) throws {
        let scales = try role(.routerScales, in: module)
        try shape(scales, [width], "scale")
        try shape(scales, [experts.count], "per_expert_scale")
        consume(scales)
        for norm in [Role.routerNorm, .expertsNorm, .expertsOutputNorm, .sharedExpertOutputNorm] {
            try checkNorm(role(norm, in: module), width: width)
        }
        // What the two give is summed before it joins the residual stream.
        _ = try role(.feedForwardOutputNorm, in: module)
    }

    // MARK: The layer's own input

    private mutating func checkPerLayer(_ block: LocatedModule, _ layer: LayerDescription, _ stack: StackDescription) throws {
        if let buffer = layer.outputScaleBuffer { try checkBuffer(block, buffer, count: 1) }
        guard let inputs = stack.perLayer else {
            try expect(layer.perLayerActivation == nil, block, "no input of its own, as the stack has none", "one")
            return
        }
        try expect(layer.perLayerActivation != nil, block, "an input of its own, as the stack describes it", "none")
        try linear(role(.perLayerGate, in: block), in: stack.width, out: inputs.width)
        try linear(role(.perLayerProjection, in: block), in: inputs.width, out: stack.width)
        try checkNorm(role(.perLayerOutputNorm, in: block), width: stack.width)
    }

    private mutating func checkRouter(_ module: LocatedModule, _ experts: ExpertsDescription) throws {
        let router = experts.router
        try expect(router.scale.isFinite, module, "a finite scale of the experts' weights", "\(router.scale)")
        if let groups = router.groups {
            let size = groups.count > 0 ? experts.count / groups.count : 0
            let least = groups.score == .sumOfBestTwo ? 2 : 1
            try expect(
                (1...RouterRule.Groups.limit).contains(groups.count) && size * groups.count == experts.count && size >= least,
                module, "\(experts.count) experts in at most \(RouterRule.Groups.limit) equal groups of at least \(least)",
                "\(groups.count) groups")
            try expect(
                (1...groups.count).contains(groups.chosen) && groups.chosen * size >= experts.topK, module,
                "1 to \(groups.count) groups a token, with \(experts.topK) experts in them", "\(groups.chosen)")
        }
        guard let name = router.choiceBias else { return }
        let path = module.path(of: name)
        for owner in module.descendants {
            for parameter in owner.node.parameters where owner.path(of: parameter.name) == path {
                try expect(
                    parameter.shape.count == experts.count, owner, "\(experts.count) biases", "\(parameter.shape.count)")
                return consume(owner)
            }
            for buffer in owner.node.buffers where owner.path(of: buffer.name) == path && buffer.isPersistent {
                try expect(buffer.count == experts.count, owner, "\(experts.count) biases", "\(buffer.count)")
                return consume(buffer: path)
            }
        }
        throw wrong(path, "a bias of the router's scores", "none")
    }

    // MARK: Norms

    /// The norms that the block runs. A sequential block norms each sublayer somewhere; a parallel one reads its input through
    /// one norm or two and has none behind.
    private mutating func checkNorms(of block: LocatedModule, _ layer: LayerDescription, width: Int) throws {
        var sublayers: [[Role]] = []
        if layer.selfAttention != nil || layer.recurrence != nil {
            sublayers.append([.attentionNorm, .attentionOutputNorm, .attentionResidualNorm])
        }
        if !layer.feedForward.isNone {
            sublayers.append([.feedForwardNorm, .feedForwardOutputNorm, .feedForwardResidualNorm])
        }
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
