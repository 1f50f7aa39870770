import NibbleCore

/// Embeddings, blocks and final norm of a decoder or an encoder, with their weights.
struct TransformerStack: Sendable {
    let description: StackDescription
    let embedding: EmbeddingLayer
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
        blocks = try zip(located, description.layers).map { module, layer in
            try Block(
                module, layer, weights, bias: try biases.bias(layer.attention, on: weights.backend(module.path)))
        }
        finalNorm = try stack.first(.finalNorm).flatMap { module in
            try weights.norm(module).map { ($0, weights.backend(module.path)) }
        }
        projectOut = try stack.first(.projectOut).map { (try weights.group($0), weights.backend($0.path)) }
    }

    /// Backends in the order in which tokens pass through them, without repeats.
    var backends: [any Backend] {
        var seen = [any Backend]()
        let all = [embedding.backend] + blocks.map(\.backend) + [finalNorm?.backend, projectOut?.backend].compactMap { $0 }
        for backend in all where !seen.contains(where: { $0 === backend }) { seen.append(backend) }
        return seen
    }

    var workspaceSizes: WorkspaceSizes {
        var sizes = WorkspaceSizes(width: description.width)
        for block in blocks { block.widen(&sizes) }
        return sizes
    }
}

extension Block {
    /// Grows `sizes` to what this block needs.
    func widen(_ sizes: inout WorkspaceSizes) {
        func grow(_ size: inout Int, _ value: Int) { size = max(size, value) }
        grow(&sizes.projections, attention.projections.outFeatures)
        grow(&sizes.attended, attention.output.inFeatures)
        if let crossAttention {
            grow(&sizes.projections, max(crossAttention.query.outFeatures, crossAttention.keyValue.outFeatures))
            grow(&sizes.attended, crossAttention.output.inFeatures)
        }
        switch feedForward {
        case .plain(let up, _, _):
            grow(&sizes.inner, up.outFeatures)
        case .gated(let gateUp, _, let down):
            grow(&sizes.inner, gateUp.outFeatures)
            grow(&sizes.gated, down.inFeatures)
        case .experts(let mixture):
            grow(&sizes.router, mixture.router.outFeatures)
            if let shared = mixture.shared {
                grow(&sizes.inner, shared.gateUp.outFeatures)
                grow(&sizes.gated, shared.down.inFeatures)
            }
        }
    }
}

/// The relative position table that a stack's layers share, with a copy on every backend that runs one.
private struct RelativeBiases {
    private let table: Tensor?

    init(blocks: [LocatedModule], _ weights: ModelWeights) {
        table = blocks.lazy.compactMap { $0.first(.relativeBias) }.first.flatMap { weights.tensors[$0.path(of: "weight")] }
    }

    func bias(_ attention: AttentionDescription, on backend: any Backend) throws -> PositionBias {
        switch attention.bias {
        case .none:
            return .none
        case .alibi(let slopes):
            let tensor = try backend.allocate(.float32, [slopes.count])
            try backend.copy(.host(slopes, .float32, [slopes.count]), to: tensor)
            return .alibi(slopes: tensor)
        case .relative(let isBidirectional, let maximumDistance):
            guard let table else { throw ModelError.missingWeight("relative_attention_bias", module: "attention") }
            var local = table
            if table.device != backend.device {
                local = try backend.allocate(.float32, table.shape)
                try backend.copy(table, to: local)
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
        case .sinusoidal(let positions):
            let table = Sinusoids.table(positions: positions, width: description.width)
            let tensor = try backend.allocate(.float32, [positions, description.width])
            try backend.copy(.host(table, .float32, [positions, description.width]), to: tensor)
            positionTable = tensor
        }
        projectIn = try stack.first(.projectIn).map { try weights.group($0) }
        norm = try weights.norm(stack.first(.embeddingNorm))
        call = EmbeddingCall(
            table: try weights.table(module), scale: description.embeddingScale, positionTable: positionTable)
    }

    /// Writes [T, E] into `hidden`.
    func callAsFunction(_ batch: BatchIndices, into hidden: Tensor, _ workspace: Workspace) throws {
        defer { stream?.release() }
        if let projectIn {
            // The table is narrower than the stream; positions join after the projection.
            let narrow = workspace.projections(batch.tokenCount, width: call.table.shape[1])
            try backend.embed(EmbeddingCall(table: call.table, scale: call.scale), batch, into: narrow)
            try backend.linear(narrow, projectIn, epilogue: .init(), into: hidden)
            if let positions = call.positionTable {
                let added = workspace.normed(batch.tokenCount)
                try backend.embed(EmbeddingCall(table: positions), batch.readingPositions, into: added)
                try backend.add(hidden, added, scale: 1, into: hidden)
            }
        } else {
            try backend.embed(call, batch, into: hidden)
        }
        if let norm { try backend.normalize(hidden, norm, residual: nil, into: hidden) }
    }
}

extension BatchIndices {
    /// The same tokens with their positions in place of their ids.
    fileprivate var readingPositions: BatchIndices {
        BatchIndices(
            tokens: positions, positions: positions, rows: rows, queryOffsets: queryOffsets, lengths: lengths,
            blockTable: blockTable, tokenCount: tokenCount, rowCount: rowCount, maximumQueryLength: maximumQueryLength,
            maximumLength: maximumLength)
    }
}
