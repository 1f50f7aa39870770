import NibbleCore

/// One transformer block of any family.
///
/// Families have norms before a sublayer (GPT-2, Llama), on its output (OLMo 2, Gemma 2) or after the residual sum (OPT-350m,
/// BART). The block runs those that it has.
struct Block: Sendable {
    let description: LayerDescription
    let backend: any Backend
    let attention: SelfAttention?
    let recurrence: (any RecurrentMixer)?
    let crossAttention: CrossAttention?
    let feedForward: FeedForward?
    let perLayer: PerLayerSublayer?
    /// What the residual stream is multiplied by behind the block.
    private let outputScale: Float
    /// The stream that the weights are read from for each use; `nil`: they are resident.
    let stream: (any WeightStream)?
    private let attentionNorms: SublayerNorms
    private let crossAttentionNorms: SublayerNorms
    private let feedForwardNorms: SublayerNorms

    private struct SublayerNorms: Sendable {
        var input: Norm?
        var output: Norm?
        var residual: Norm?
    }

    init(_ module: LocatedModule, _ description: LayerDescription, _ weights: ModelWeights, bias: PositionBias) throws {
        func norms(_ input: Role, _ output: Role?, _ residual: Role) throws -> SublayerNorms {
            SublayerNorms(
                input: try weights.norm(module.first(input)), output: try output.flatMap { try weights.norm(module.first($0)) },
                residual: try weights.norm(module.first(residual)))
        }
        func sublayer(_ role: Role) throws -> LocatedModule {
            guard let found = module.first(role) else { throw ModelError.missingWeight("\(role)", module: module.path) }
            return found
        }
        self.description = description
        backend = weights.backend(module.path)
        stream = weights.streams[module.path]
        attention = try description.selfAttention.map {
            try SelfAttention(try sublayer(.selfAttention), $0, weights, bias: bias)
        }
        recurrence = try description.recurrence?.makeMixer(try sublayer(.recurrence), weights)
        crossAttention = try description.crossAttention.map {
            try CrossAttention(try sublayer(.crossAttention), $0, weights)
        }
        feedForward = try FeedForward(
            module.first(.feedForward) ?? module, description.feedForward, gateScale: description.feedForwardScales.gate, weights)
        perLayer = try PerLayerSublayer(module, description.perLayerActivation, weights)
        outputScale = try description.outputScaleBuffer.flatMap { try weights.number(module.path(of: $0), of: module) } ?? 1
        attentionNorms = try norms(.attentionNorm, .attentionOutputNorm, .attentionResidualNorm)
        crossAttentionNorms = try norms(.crossAttentionNorm, nil, .crossAttentionResidualNorm)
        feedForwardNorms = try norms(.feedForwardNorm, .feedForwardOutputNorm, .feedForwardResidualNorm)
    }

    /// The arguments of a call besides the hidden states.
    struct Context {
        var cache: LayerCache
        /// With the block table of the layer's keys and values.
        var batch: BatchIndices
        /// With the block table of states; `nil` where no layer has any.
        var states: BatchIndices?
        var rotary: RotaryTable?
        /// Encoder-decoders: this layer's keys and values of the encoder's output, and the indices that go with them.
        var cross: (cache: KeyValueCache, batch: BatchIndices)?
        var activations: ActivationBuffers
        /// The column of the per-layer inputs where this layer's begin.
        var perLayerColumn = 0
    }

    /// Transforms the residual stream `hidden`, float32 [T, E], in place.
    func callAsFunction(_ hidden: Tensor, _ context: Context) throws {
        if description.isParallel {
            try runParallel(hidden, context)
        } else {
            try runSequential(hidden, context)
        }
        try perLayer?(hidden, first: context.perLayerColumn, context.activations, backend)
        if outputScale != 1 { try backend.add(hidden, hidden, scale: outputScale - 1, into: hidden) }
    }

    private func runSequential(_ hidden: Tensor, _ context: Context) throws {
        let buffers = context.activations
        try mixTokens(hidden, context)
        if let crossAttention, let cross = context.cross {
            let input = try sublayerInput(hidden, crossAttentionNorms.input, buffers)
            let attended = try crossAttention.attend(input, cache: cross.cache, cross.batch, buffers, backend)
            try join(hidden, base: residual(hidden, input), crossAttentionNorms, buffers) {
                try backend.linear(attended, crossAttention.output, epilogue: $0, into: $1)
            }
        }
        guard let feedForward else { return }
        let input = try sublayerInput(hidden, feedForwardNorms.input, buffers)
        let scale = description.feedForwardScales.output / description.feedForwardScales.gate
        try join(hidden, base: residual(hidden, input), feedForwardNorms, buffers, scale: scale) {
            try feedForward(input, epilogue: $0, into: $1, buffers, backend)
        }
    }

    /// Adds the token mixer's output to the residual stream: attention's, a recurrent mixer's, or those of both, which read the
    /// same input.
    private func mixTokens(_ hidden: Tensor, _ context: Context) throws {
        let buffers = context.activations
        guard attention != nil || recurrence != nil else { return }
        var input = try sublayerInput(hidden, attentionNorms.input, buffers)
        if attention != nil, recurrence != nil { input = LinearInput(try input.materialized(backend)) }
        var base = residual(hidden, input)
        if let (mixed, output) = try attend(input, context) {
            try join(hidden, base: base, attentionNorms, buffers, scale: attention?.description.outputScale) {
                try backend.linear(mixed, output, epilogue: $0, into: $1)
            }
            base = hidden
        }
        if let (mixed, output) = try recur(input, context) {
            try join(hidden, base: base, attentionNorms, buffers, scale: description.recurrence?.outputScale) {
                try backend.linear(mixed, output, epilogue: $0, into: $1)
            }
        }
    }

    /// Attention without its output projection, and that projection.
    private func attend(_ input: LinearInput, _ context: Context) throws -> (mixed: Tensor, output: LinearGroup)? {
        guard let attention, let cache = context.cache.keyValue else { return nil }
        let attended = try attention.attend(
            input, cache: cache, rotary: context.rotary, context.batch, context.activations, backend)
        return (attended, attention.output)
    }

    private func recur(_ input: LinearInput, _ context: Context) throws -> (mixed: Tensor, output: LinearGroup)? {
        guard let recurrence, let state = context.cache.state, let states = context.states else { return nil }
        return (try recurrence.mix(input, state: state, states, context.activations, backend), recurrence.output)
    }

    /// Both sublayers read the block's input, and both are added to it.
    private func runParallel(_ hidden: Tensor, _ context: Context) throws {
        let buffers = context.activations
        let tokens = hidden.shape[0]
        let input = try LinearInput(hidden, after: attentionNorms.input, scratch: buffers.normed(tokens)).materialized(backend)
        var second = input
        if let norm = feedForwardNorms.input {
            second = buffers.secondNormed(tokens)
            try backend.normalize(hidden, norm, residual: nil, into: second)
        }
        if let (mixed, output) = try attend(LinearInput(input), context) {
            try backend.linear(mixed, output, epilogue: epilogue(residual: hidden, buffers), into: hidden)
        }
        if let (mixed, output) = try recur(LinearInput(input), context) {
            try backend.linear(mixed, output, epilogue: epilogue(residual: hidden, buffers), into: hidden)
        }
        try feedForward?(LinearInput(second), epilogue: epilogue(residual: hidden, buffers), into: hidden, buffers, backend)
    }

    /// The input of a sublayer. Its norm is fused with the sublayer's first product, unless the residual needs it as well.
    private func sublayerInput(_ hidden: Tensor, _ norm: Norm?, _ buffers: ActivationBuffers) throws -> LinearInput {
        let input = LinearInput(hidden, after: norm, scratch: buffers.normed(hidden.shape[0]))
        return description.residualFollowsNorm ? LinearInput(try input.materialized(backend)) : input
    }

    private func residual(_ hidden: Tensor, _ input: LinearInput) -> Tensor {
        description.residualFollowsNorm ? input.tensor : hidden
    }

    private func epilogue(residual: Tensor?, scale: Float? = nil, _ buffers: ActivationBuffers) -> LinearEpilogue {
        LinearEpilogue(scale: (scale ?? 1) * description.residualScale, residual: residual, adapters: buffers.adapters)
    }

    /// hidden = base + sublayer(…) × scale, with the norms before and after the sum.
    private func join(
        _ hidden: Tensor, base: Tensor, _ norms: SublayerNorms, _ buffers: ActivationBuffers, scale: Float? = nil,
        _ sublayer: (_ epilogue: LinearEpilogue, _ output: Tensor) throws -> Void
    ) throws {
        if let norm = norms.output {
            let output = buffers.secondNormed(hidden.shape[0])
            try sublayer(.init(scale: scale ?? 1, adapters: buffers.adapters), output)
            if description.residualScale == 1 {
                try backend.normalize(output, norm, residual: base, into: hidden)
            } else {
                try backend.normalize(output, norm, residual: nil, into: output)
                try backend.add(base, output, scale: description.residualScale, into: hidden)
            }
        } else {
            try sublayer(epilogue(residual: base, scale: scale, buffers), hidden)
        }
        if let norm = norms.residual { try backend.normalize(hidden, norm, residual: nil, into: hidden) }
    }
}
