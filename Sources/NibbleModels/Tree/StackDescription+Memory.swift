package import NibbleCore

extension StackDescription {
    /// The widths that running this stack's blocks takes, from shapes alone.
    package func activationWidths(_ tree: ModuleTree) -> ActivationWidths {
        var sizes = ActivationWidths(width: width)
        guard let stack = tree.module(at: path) else { return sizes }
        for (block, layer) in zip(stack.all(.block), layers) {
            sizes = sizes.widened(block.activationWidths(width: width))
            layer.recurrence?.widen(&sizes)
        }
        if layers.contains(where: \.sumsMixtureApart) { sizes.projections = max(sizes.projections, width) }
        if let projection = stack.first(.perLayerModelProjection) {
            sizes.perLayer = projection.outFeatures
            sizes.projections = max(sizes.projections, projection.outFeatures)
        }
        for case .experts(let experts) in layers.map(\.feedForward) {
            sizes.chosenExperts = max(sizes.chosenExperts, experts.topK)
            if let latent = experts.latent { sizes.widen(latent: latent) }
        }
        if let projectIn = stack.first(.projectIn) { sizes.projections = max(sizes.projections, projectIn.inFeatures) }
        if let projectOut = stack.first(.projectOut) { sizes.projections = max(sizes.projections, projectOut.outFeatures) }
        return sizes
    }
}

extension StackDescription {
    /// Bytes of a session's index buffers on one device.
    package static func indexBytes(
        tokens: Int, rows: Int, context: Int, tables: Int = 1, hasStates: Bool = false
    ) -> Int {
        IndexBuffers.byteCount(
            .init(
                tokens: tokens, rows: rows, blocksPerRow: max(KeyValueGeometry.blocks(for: context), 1), tables: tables,
                hasStates: hasStates)) + AdapterTable.byteCount(slots: rows)
    }

    /// Bytes of index buffers, rotary tables and the like that a session keeps on each device.
    package func tableBytes(_ tree: ModuleTree, tokens: Int, rows: Int, context: Int) -> Int {
        let rotary = rotary.reduce(0) { sum, rotary in
            sum + (rotary.dependsOnLength ? 2 : 1) * context * rotary.rotated * DType.float32.byteCount
        }
        let heads = layers.reduce(0) { $0 + ($1.selfAttention?.heads ?? 0) }
        let layout = CacheLayout(layers, rows: rows, capacity: context, chunkTokens: tokens)
        let indices = StackDescription.indexBytes(
            tokens: tokens, rows: rows, context: context, tables: layout.keyValueTables, hasStates: layout.stateTable != nil)
        return indices + rotary
            + heads * DType.float32.byteCount + computedBytes
    }

    /// Position tables that a checkpoint may leave out are computed in float32.
    private var computedBytes: Int {
        guard case .sinusoidal(let positions, _) = positions else { return 0 }
        return positions * width * DType.float32.byteCount
    }

    /// An allowance for pairs of copied blocks, sampled tokens and other small buffers.
    package static let smallBytes = 64 << 10
}

extension ModelArchitecture {
    /// The largest calls of a session that runs `stack`, from shapes alone, on a device with or without the head.
    package func workspaceRequest(
        _ stack: StackDescription, holdsHead: Bool, tokens: Int, rows: Int, context: Int, formats: Set<WeightFormat>,
        arithmetic: LinearArithmetic
    ) -> WorkspaceRequest {
        let sizes = stack.activationWidths(tree)
        // The head is the widest layer by far, but sees few tokens.
        let head = holdsHead ? logitsRows(rows) * vocabularySize / max(tokens, 1) : 0
        let attention = stack.layers.compactMap(\.selfAttention)
        return WorkspaceRequest(
            tokens: tokens, rows: rows, context: context,
            inFeatures: max(sizes.width, sizes.attended, sizes.inner, sizes.gated),
            outFeatures: max(sizes.width, sizes.projections, sizes.inner, head), heads: attention.map(\.heads).max() ?? 0,
            headSize: attention.map(\.headSize).max() ?? 0, vocabulary: holdsHead ? vocabularySize : 0, formats: formats,
            arithmetic: arithmetic, experts: stack.experts)
    }

    /// Rows of logits that a session of `rows` rows holds.
    package func logitsRows(_ rows: Int) -> Int { LogitsBuffers.sliceRows(rows) }
}

extension StackDescription {
    fileprivate var experts: WorkspaceRequest.Experts? {
        layers.lazy.compactMap { layer in
            guard case .experts(let experts) = layer.feedForward else { return nil }
            return WorkspaceRequest.Experts(
                count: experts.count, topK: experts.topK, width: experts.latent ?? width, hidden: experts.width)
        }.first
    }
}

extension LayerDescription {
    /// Whether a mixture is summed beside the residual stream before it joins.
    var sumsMixtureApart: Bool {
        if case .experts(let experts) = feedForward { residualScale != 1 || experts.shared == .apart } else { false }
    }
}

extension LocatedModule {
    /// Of a linear module: N, or 0 for any other.
    var outFeatures: Int { matrix.map { isTransposed ? $0[1] : $0[0] } ?? 0 }
    /// Of a linear module: K, or 0 for any other.
    var inFeatures: Int { matrix.map { isTransposed ? $0[0] : $0[1] } ?? 0 }

    private var matrix: Shape? { node.parameters.first { $0.shape.rank == 2 }?.shape }
    private var isTransposed: Bool { if case .transposedLinear = node.kind { true } else { false } }

    private func width(_ roles: Role...) -> Int { roles.reduce(0) { $0 + (first($1)?.outFeatures ?? 0) } }

    fileprivate func activationWidths(width: Int) -> ActivationWidths {
        var sizes = ActivationWidths(width: width)
        for attention in [first(.selfAttention), first(.crossAttention)].compactMap({ $0 }) {
            // Keys that are values, too, are projected twice.
            let value: Role = attention.first(.value) == nil ? .key : .value
            sizes.projections = max(sizes.projections, attention.width(.queryKeyValue, .query, .key, value))
            sizes.attended = max(sizes.attended, attention.first(.attentionOutput)?.inFeatures ?? 0)
        }
        let feedForward = first(.feedForward) ?? self
        let part = feedForward.first(.sharedExpert) ?? feedForward
        sizes.inner = part.width(.gateUp, .gate, .up)
        sizes.gated = max(part.first(.down)?.inFeatures ?? 0, first(.perLayerGate)?.outFeatures ?? 0)
        sizes.router = feedForward.width(.router)
        return sizes
    }
}
