import NibbleCore

/// Self-attention of one block, with its weights.
struct SelfAttention: Sendable {
    let description: AttentionDescription
    /// Query, key and value, fused or side by side.
    let projections: LinearGroup
    let output: LinearGroup
    let norm: QueryKeyNorm?
    /// ε of the norm of values.
    private let valueEpsilon: Float?
    let bias: PositionBias
    let sinks: Tensor?

    init(
        _ module: LocatedModule, _ description: AttentionDescription, _ weights: ModelWeights, bias: PositionBias
    ) throws {
        self.description = description
        if let fused = module.first(.queryKeyValue) {
            projections = try weights.group(fused)
        } else if description.sharedLayer != nil {
            projections = try weights.group(module.first(.query))
        } else {
            // Keys that are values, too, are projected twice: one copy is normalized and rotated in place.
            projections = try weights.group(
                module.first(.query), module.first(.key), module.first(description.valuesAreKeys ? .key : .value))
        }
        output = try weights.group(module.first(.attentionOutput))
        if let query = try weights.norm(module.first(.queryNorm)) {
            norm = QueryKeyNorm(
                scope: description.normScope, query: query, key: try weights.norm(module.first(.keyNorm)) ?? query)
        } else {
            norm = nil
        }
        valueEpsilon = try weights.norm(module.first(.valueNorm))?.epsilon
        self.bias = bias
        sinks = description.hasSinks ? weights.tensors[module.path(of: "sinks")] : nil
        guard !description.hasSinks || sinks != nil else { throw ModelError.missingWeight("sinks", module: module.path) }
    }

    /// [T, E] → [T, H·D]: all of attention but the output projection.
    func attend(
        _ input: LinearInput, cache: KeyValueCache, rotary: RotaryTable?, _ batch: BatchIndices, _ buffers: ActivationBuffers,
        _ backend: any Backend
    ) throws -> Tensor {
        let tokens = input.tokens
        let projected = buffers.projections(tokens, width: projections.outFeatures)
        let attended = buffers.attended(tokens, width: output.inFeatures)
        try backend.linear(input, projections, epilogue: .init(adapters: buffers.adapters), into: projected)
        let rotation = RotateAndStoreCall(
            projections: projected, layout: description.layout, heads: description.heads, norm: norm, rotary: rotary,
            cache: cache, clip: description.clip, temperature: description.temperature, valueEpsilon: valueEpsilon,
            hasKeysAndValues: description.sharedLayer == nil)
        var call = AttentionCall(
            queries: projected, layout: description.layout.query, heads: description.heads, cache: cache,
            scale: description.scale, softCap: description.softCap, window: description.window,
            isCausal: description.isCausal, bias: bias, sinks: sinks)
        if batch.parts.isEmpty {
            try backend.attend(call, rotating: rotation, batch, into: attended)
        } else {
            try backend.rotateAndStore(rotation, batch)
            try attendInParts(&call, batch, projected, into: attended, backend)
        }
        if let gate = description.outputGate {
            try backend.normalizeGated(
                GatedNormCall(
                    input: attended, gate: projected, gateLayout: gate, norm: nil, runWidth: description.headSize,
                    gateActivation: .sigmoid), into: attended)
        }
        return attended
    }

    private func attendInParts(
        _ call: inout AttentionCall, _ batch: BatchIndices, _ projected: Tensor, into attended: Tensor, _ backend: any Backend
    ) throws {
        var first = 0
        for part in batch.parts {
            let range = first..<first + part.tokenCount
            call.queries = projected.rows(range)
            try backend.attend(call, part, into: attended.rows(range))
            first = range.upperBound
        }
    }
}

/// Attention of a decoder block over the encoder's output, whose keys and values are computed once.
struct CrossAttention: Sendable {
    let description: AttentionDescription
    let query: LinearGroup
    let keyValue: LinearGroup
    let output: LinearGroup

    init(_ module: LocatedModule, _ description: AttentionDescription, _ weights: ModelWeights) throws {
        self.description = description
        query = try weights.group(module.first(.query))
        keyValue = try weights.group(module.first(.key), module.first(.value))
        output = try weights.group(module.first(.attentionOutput))
    }

    /// Fills `cache` from the encoder's output [T, E].
    func store(
        _ encoded: Tensor, cache: KeyValueCache, _ batch: BatchIndices, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws {
        let projected = buffers.projections(encoded.shape[0], width: keyValue.outFeatures)
        try backend.linear(encoded, keyValue, epilogue: .init(adapters: buffers.adapters), into: projected)
        let layout = QueryKeyValueLayout.stacked(
            heads: 0, keyValueHeads: description.keyValueHeads, headSize: description.headSize)
        try backend.rotateAndStore(
            RotateAndStoreCall(projections: projected, layout: layout, heads: 0, cache: cache), batch)
    }

    /// [T, E] → [T, H·D]. Lengths and block table of `batch` are those of the encoder's keys.
    func attend(
        _ input: LinearInput, cache: KeyValueCache, _ batch: BatchIndices, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws -> Tensor {
        let tokens = input.tokens
        let queries = buffers.projections(tokens, width: query.outFeatures)
        let attended = buffers.attended(tokens, width: output.inFeatures)
        try backend.linear(input, query, epilogue: .init(adapters: buffers.adapters), into: queries)
        try backend.attend(
            AttentionCall(
                queries: queries, layout: .init(offset: 0, stride: description.headSize), heads: description.heads,
                cache: cache, scale: description.scale, isCausal: false), batch, into: attended)
        return attended
    }
}
