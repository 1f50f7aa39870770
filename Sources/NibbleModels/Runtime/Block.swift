import NibbleCore

/// One transformer block of any family.
///
/// Families have norms before a sublayer (GPT-2, Llama), on its output (OLMo 2, Gemma 2) or after the residual sum (OPT-350m,
/// BART). The block runs those that it has.
struct Block: Sendable {
    let description: LayerDescription
    let backend: any Backend
    let attention: SelfAttention
    let crossAttention: CrossAttention?
    let feedForward: FeedForward
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
        attention = try SelfAttention(try sublayer(.selfAttention), description.attention, weights, bias: bias)
        crossAttention = try description.crossAttention.map {
            try CrossAttention(try sublayer(.crossAttention), $0, weights)
        }
        feedForward = try FeedForward(module.first(.feedForward) ?? module, description.feedForward, weights)
        attentionNorms = try norms(.attentionNorm, .attentionOutputNorm, .attentionResidualNorm)
        crossAttentionNorms = try norms(.crossAttentionNorm, nil, .crossAttentionResidualNorm)
        feedForwardNorms = try norms(.feedForwardNorm, .feedForwardOutputNorm, .feedForwardResidualNorm)
    }

    /// The arguments of a call besides the hidden states.
    struct Context {
        var cache: KeyValueCache
        var batch: BatchIndices
        var rotary: RotaryTable?
        /// Encoder-decoders: this layer's keys and values of the encoder's output, and the indices that go with them.
        var cross: (cache: KeyValueCache, batch: BatchIndices)?
        var activations: ActivationBuffers
    }

    /// Transforms the residual stream `hidden`, float32 [T, E], in place.
    func callAsFunction(_ hidden: Tensor, _ context: Context) throws {
        if description.isParallel {
            try runParallel(hidden, context)
        } else {
            try runSequential(hidden, context)
        }
    }

    private func runSequential(_ hidden: Tensor, _ context: Context) throws {
        let buffers = context.activations
        var input = try sublayerInput(hidden, attentionNorms.input, buffers)
        let attended = try attention.attend(
            input, cache: context.cache, rotary: context.rotary, context.batch, buffers, backend)
        try join(hidden, base: residual(hidden, input), attentionNorms, buffers) {
            try backend.linear(attended, attention.output, epilogue: $0, into: $1)
        }
        if let crossAttention, let cross = context.cross {
            input = try sublayerInput(hidden, crossAttentionNorms.input, buffers)
            let attended = try crossAttention.attend(input, cache: cross.cache, cross.batch, buffers, backend)
            try join(hidden, base: residual(hidden, input), crossAttentionNorms, buffers) {
                try backend.linear(attended, crossAttention.output, epilogue: $0, into: $1)
            }
        }
        input = try sublayerInput(hidden, feedForwardNorms.input, buffers)
        try join(hidden, base: residual(hidden, input), feedForwardNorms, buffers) {
            try feedForward(input, epilogue: $0, into: $1, buffers, backend)
        }
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
        let attended = try attention.attend(
            LinearInput(input), cache: context.cache, rotary: context.rotary, context.batch, buffers, backend)
        try backend.linear(attended, attention.output, epilogue: epilogue(residual: hidden), into: hidden)
        try feedForward(LinearInput(second), epilogue: epilogue(residual: hidden), into: hidden, buffers, backend)
    }

    /// The input of a sublayer. Its norm is fused with the sublayer's first product, unless the residual needs it as well.
    private func sublayerInput(_ hidden: Tensor, _ norm: Norm?, _ buffers: ActivationBuffers) throws -> LinearInput {
        let input = LinearInput(hidden, after: norm, scratch: buffers.normed(hidden.shape[0]))
        return description.residualFollowsNorm ? LinearInput(try input.materialized(backend)) : input
    }

    private func residual(_ hidden: Tensor, _ input: LinearInput) -> Tensor {
        description.residualFollowsNorm ? input.tensor : hidden
    }

    private func epilogue(residual: Tensor?) -> LinearEpilogue {
        LinearEpilogue(scale: description.residualScale, residual: residual)
    }

    /// hidden = base + sublayer(…), with the norms before and after the sum.
    private func join(
        _ hidden: Tensor, base: Tensor, _ norms: SublayerNorms, _ buffers: ActivationBuffers,
        _ sublayer: (_ epilogue: LinearEpilogue, _ output: Tensor) throws -> Void
    ) throws {
        if let norm = norms.output {
            let output = buffers.secondNormed(hidden.shape[0])
            try sublayer(.init(), output)
            if description.residualScale == 1 {
                try backend.normalize(output, norm, residual: base, into: hidden)
            } else {
                try backend.normalize(output, norm, residual: nil, into: output)
                try backend.add(base, output, scale: description.residualScale, into: hidden)
            }
        } else {
            try sublayer(epilogue(residual: base), hidden)
        }
        if let norm = norms.residual { try backend.normalize(hidden, norm, residual: nil, into: hidden) }
    }
}
