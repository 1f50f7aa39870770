import NibbleCore

/// What each layer is given of the tokens themselves, beside the residual stream (Gemma 4 E): a second embedding table, whose rows
/// hold P elements for each of L layers, plus a projection of the embeddings.
struct PerLayerEmbedding: Sendable {
    private let description: PerLayerDescription
    private let table: EmbeddingCall
    private let projection: LinearGroup
    private let norm: Norm

    init(_ description: PerLayerDescription, _ stack: LocatedModule, _ weights: ModelWeights) throws {
        guard let embedding = stack.first(.perLayerEmbedding), let norm = try weights.norm(stack.first(.perLayerInputNorm)) else {
            throw ModelError.missingWeight("per-layer embedding", module: stack.path)
        }
        self.description = description
        let table = try weights.table(embedding)
        self.table = EmbeddingCall(table: table, scale: table.dtype.rounded(description.embeddingScale))
        projection = try weights.group(stack.first(.perLayerModelProjection))
        self.norm = norm
    }

    /// L·P
    var width: Int { projection.outFeatures }

    /// Fills the buffer of per-layer inputs from the tokens and their embeddings `hidden`.
    func callAsFunction(_ hidden: Tensor, _ batch: BatchIndices, _ buffers: ActivationBuffers, _ backend: any Backend) throws {
        let tokens = batch.tokenCount
        let inputs = buffers.perLayer(tokens)
        try backend.embed(table, batch, into: inputs)
        let projected = buffers.projections(tokens, width: width)
        try backend.linear(
            LinearInput(hidden, after: nil, scratch: buffers.normed(tokens)), projection,
            epilogue: .init(scale: description.projectionScale), into: projected)
        let runs = Shape(tokens * (width / description.width), description.width)
        let sums = inputs.viewed(as: runs)
        try backend.normalize(projected.viewed(as: runs), norm, residual: sums, into: sums)
        try backend.add(sums, sums, scale: description.sumScale - 1, into: sums)
    }
}

/// The last sublayer of a block with inputs of its own: hidden += norm(projection(activation(gate hidden) ⊙ input)).
struct PerLayerSublayer: Sendable {
    private let activation: Activation
    let gate: LinearGroup
    private let projection: LinearGroup
    private let norm: Norm

    init?(_ block: LocatedModule, _ activation: Activation?, _ weights: ModelWeights) throws {
        guard let activation else { return nil }
        guard let norm = try weights.norm(block.first(.perLayerOutputNorm)) else {
            throw ModelError.missingWeight("norm", module: block.path)
        }
        self.activation = activation
        gate = try weights.group(block.first(.perLayerGate))
        projection = try weights.group(block.first(.perLayerProjection))
        self.norm = norm
    }

    /// - Parameter first: the column of the per-layer inputs where this layer's begin.
    func callAsFunction(_ hidden: Tensor, first: Int, _ buffers: ActivationBuffers, _ backend: any Backend) throws {
        let tokens = hidden.shape[0]
        let gated = buffers.gated(tokens, width: gate.outFeatures)
        try backend.linear(
            LinearInput(hidden, after: nil, scratch: buffers.normed(tokens)), gate, epilogue: .init(activation: activation),
            into: gated)
        try backend.multiply(gated, by: buffers.perLayer(tokens), from: first, into: gated)
        let output = buffers.secondNormed(tokens)
        try backend.linear(gated, projection, epilogue: .init(adapters: buffers.adapters), into: output)
        try backend.normalize(output, norm, residual: hidden, into: hidden)
    }
}
