import NibbleCore

/// Embeddings, blocks and final norm of a decoder or an encoder, with their weights.
struct TransformerStack: Sendable {
    let description: StackDescription
    let embedding: EmbeddingLayer
    let perLayer: PerLayerEmbedding?
    let blocks: [Block]
    let finalNorm: (norm: Norm, backend: any Backend)?
    /// After the final norm (OPT-350m).
    let projectOut: (layer: LinearGroup, backend: any Backend)?

    init(_ description: StackDescription, _ tree: ModuleTree, _ weights: ModelWeights) throws {
        guard let stack = tree.module(at: description.path) else {
            throw ModelError.missingWeight("stack", module: description.path)
        }
        let located = stack.all(.block)
        let biases = RelativeBiases(blocks: located, weights)
        self.description = description
        embedding = try EmbeddingLayer(stack, description, tree, weights)
        perLayer = try description.perLayer.map { try PerLayerEmbedding($0, stack, weights) }
        blocks = try zip(located, description.layers).map { module, layer in
            try Block(module, layer, weights, bias: try layer.selfAttention.map { try biases.bias($0, of: module) } ?? .none)
        }
        finalNorm = try stack.first(.finalNorm).flatMap { module in
            try weights.norm(module).map { ($0, weights.backend(module.path)) }
        }
        projectOut = try stack.first(.projectOut).map { (try weights.group($0), weights.backend($0.path)) }
    }

    /// Where the final norm and the projection behind it run.
    var endBackends: [any Backend] { [finalNorm?.backend, projectOut?.backend].compactMap(\.self) }

    /// The backends in the order in which tokens pass through them, each once.
    var backends: [any Backend] {
        var seen = [any Backend]()
        let all = [embedding.backend] + blocks.map(\.backend) + [finalNorm?.backend, projectOut?.backend].compactMap { $0 }
        for backend in all where !seen.contains(where: { $0 === backend }) { seen.append(backend) }
        return seen
    }

    /// The layer whose cache layer `index` uses: itself, or the first on its backend that reads the keys and values of the same layer.
    func cacheLayer(of index: Int) -> Int {
        guard let source = description.layers[index].attention.sharedLayer else { return index }
        let backend = blocks[index].backend
        if blocks[source].backend === backend { return source }
        return (source..<index).first {
            description.layers[$0].attention.sharedLayer == source && blocks[$0].backend === backend
        } ?? index
    }

    var activationWidths: ActivationWidths {
        var sizes = ActivationWidths(width: description.width)
        for block in blocks { block.widen(&sizes) }
        if let perLayer {
            sizes.perLayer = perLayer.width
            sizes.projections = max(sizes.projections, perLayer.width)
        }
        return sizes
    }
}

extension Block {
    /// Grows `sizes` to what this block needs.
    func widen(_ sizes: inout ActivationWidths) {
        func grow(_ size: inout Int, _ value: Int) { size = max(size, value) }
        if let attention {
            grow(&sizes.projections, attention.projections.outFeatures)
            grow(&sizes.attended, attention.output.inFeatures)
        }
        description.recurrence?.widen(&sizes)
        if let crossAttention {
            grow(&sizes.projections, max(crossAttention.query.outFeatures, crossAttention.keyValue.outFeatures))
            grow(&sizes.attended, crossAttention.output.inFeatures)
        }
        if let perLayer { grow(&sizes.gated, perLayer.gate.outFeatures) }
        switch feedForward {
        case nil: break
        case .plain(let up, _, _):
            grow(&sizes.inner, up.outFeatures)
        case .gated(let gateUp, _, let down, _):
            grow(&sizes.inner, gateUp.outFeatures)
            grow(&sizes.gated, down.inFeatures)
        case .experts(let mixture):
            grow(&sizes.router, mixture.router.outFeatures)
            grow(&sizes.chosenExperts, mixture.description.topK)
            if description.sumsMixtureApart { grow(&sizes.projections, sizes.width) }
            if let latent = mixture.description.latent { sizes.widen(latent: latent) }
            if let shared = mixture.shared {
                grow(&sizes.inner, shared.gateUp.outFeatures)
                grow(&sizes.gated, shared.down.inFeatures)
            }
        }
    }
}

/// Position biases of a stack's layers. A relative table that layers share is copied to every backend that needs it.
private struct RelativeBiases {
    private let weights: ModelWeights
    private let shared: Table?

    private typealias Table = (tensor: Tensor, backend: any Backend)

    init(blocks: [LocatedModule], _ weights: ModelWeights) {
        self.weights = weights
        shared = blocks.lazy.compactMap { RelativeBiases.table(of: $0, weights) }.first
    }

    private static func table(of block: LocatedModule, _ weights: ModelWeights) -> Table? {
        guard let module = block.first(.relativeBias), let tensor = weights.tensors[module.path(of: "weight")] else { return nil }
        return (tensor, weights.backend(module.path))
    }

    func bias(_ attention: AttentionDescription, of block: LocatedModule) throws -> PositionBias {
        let backend = weights.backend(block.path)
        switch attention.bias {
        case .none:
            return .none
        case .alibi(let slopes):
            let tensor = try backend.allocate(.float32, [slopes.count])
            try backend.copy(.host(slopes, .float32, [slopes.count]), to: tensor)
            return .alibi(slopes: tensor)
        case .relative(let isBidirectional, let maximumDistance):
            guard let table = RelativeBiases.table(of: block, weights) ?? shared else {
                throw ModelError.missingWeight("relative_attention_bias", module: block.path)
            }
            var local = table.tensor
            if local.device != backend.device {
                local = try backend.allocate(.float32, table.tensor.shape)
                try transfer(table.tensor, from: table.backend, to: local, on: backend)
            }
            return .relative(table: local, isBidirectional: isBidirectional, maximumDistance: maximumDistance)
        }
    }
}

/// From token ids to the residual stream.
struct EmbeddingLayer: Sendable {
    let backend: any Backend
    private let call: EmbeddingCall
    private let norm: Norm?
    /// From the embedding's width to the model's (OPT-350m).
    private let projectIn: LinearGroup?
    private let stream: (any WeightStream)?

    init(_ stack: LocatedModule, _ description: StackDescription, _ tree: ModuleTree, _ weights: ModelWeights) throws {
        guard let module = stack.first(.tokenEmbedding) ?? tree.located.first(.tokenEmbedding) else {
            throw ModelError.missingWeight("token embedding", module: description.path)
        }
        backend = weights.backend(module.path)
        stream = weights.stream(module.path, tree)
        var positionTable: Tensor?
        switch description.positions {
        case .none: break
        case .learned(let offset):
            guard let positions = stack.first(.positionEmbedding) else {
                throw ModelError.missingWeight("position embedding", module: description.path)
            }
            let table = try weights.table(positions)
            positionTable = table.rows(min(offset, table.shape[0])..<table.shape[0])
        case .sinusoidal(let positions, let sinusoids):
            positionTable = try EmbeddingLayer.table(
                sinusoids, stack.first(.positionEmbedding), [positions, description.width], weights, on: backend)
        }
        projectIn = try stack.first(.projectIn).map { try weights.group($0) }
        norm = try weights.norm(stack.first(.embeddingNorm))
        let table = try weights.table(module)
        let scale = description.embeddingScale
        call = EmbeddingCall(
            table: table, scale: description.roundsEmbeddingScale ? table.dtype.rounded(scale) : scale,
            positionTable: positionTable)
    }

    /// The checkpoint's position table, or the computed one where the checkpoint has none.
    private static func table(
        _ sinusoids: Sinusoids, _ module: LocatedModule?, _ shape: Shape, _ weights: ModelWeights, on backend: any Backend
    ) throws -> Tensor {
        if let module, let table = weights.tensors[module.path(of: "weight")] { return table }
        let tensor = try backend.allocate(.float32, shape)
        try backend.copy(.host(sinusoids.table(positions: shape[0], width: shape[1]), .float32, shape), to: tensor)
        return tensor
    }

    /// - Throws: ``SessionError/positionOutOfRange(position:positions:)`` if a row of that length has no embeddings.
    func validate(positions count: Int) throws {
        guard let limit = call.positionTable?.shape[0], count > limit else { return }
        throw SessionError.positionOutOfRange(position: count - 1, positions: limit)
    }

    /// Writes [T, E] into `hidden`. `positions` replace the batch's where given.
    func callAsFunction(
        _ batch: BatchIndices, positions: [Int32]? = nil, into hidden: Tensor, _ buffers: ActivationBuffers
    ) throws {
        try stream?.acquire()
        defer { stream?.release() }
        if let projectIn {
            // The table is narrower than the stream; positions join after the projection.
            let narrow = buffers.projections(batch.tokenCount, width: call.table.shape[1])
            try backend.embed(EmbeddingCall(table: call.table, scale: call.scale), batch, into: narrow)
            try backend.linear(narrow, projectIn, epilogue: .init(adapters: buffers.adapters), into: hidden)
            try addPositions(batch.positions, batch, to: hidden, buffers)
        } else if let positions {
            let indices = try backend.allocate(.int32, [positions.count])
            try backend.copy(.host(positions, .int32, [positions.count]), to: indices)
            try backend.embed(EmbeddingCall(table: call.table, scale: call.scale), batch, into: hidden)
            try addPositions(indices, batch, to: hidden, buffers)
        } else {
            try backend.embed(call, batch, into: hidden)
        }
        if let norm { try backend.normalize(hidden, norm, residual: nil, into: hidden) }
    }

    private func addPositions(
        _ positions: Tensor, _ batch: BatchIndices, to hidden: Tensor, _ buffers: ActivationBuffers
    ) throws {
        guard let table = call.positionTable else { return }
        let added = buffers.normed(batch.tokenCount)
        try backend.embed(EmbeddingCall(table: table), batch.reading(positions), into: added)
        try backend.add(hidden, added, scale: 1, into: hidden)
    }
}

extension DType {
    /// `value` as this dtype would hold it.
    func rounded(_ value: Float) -> Float {
        switch self {
        case .bfloat16: Float(BFloat16(value))
        case .float16: Float(Float16(value))
        default: value
        }
    }
}

extension BatchIndices {
    /// The same tokens with `indices` in place of their ids.
    fileprivate func reading(_ indices: Tensor) -> BatchIndices {
        BatchIndices(
            tokens: indices, positions: positions, rows: rows, queryOffsets: queryOffsets, lengths: lengths,
            blockTable: blockTable, tokenCount: tokenCount, rowCount: rowCount, maximumQueryLength: maximumQueryLength,
            maximumLength: maximumLength)
    }
}
