package import NibbleCore

/// What the decoder (or encoder) does with the modules of a family's tree.
package struct StackDescription: Sendable {
    /// The module that holds embeddings, blocks and final norm.
    package var path: String
    /// E
    package var width: Int
    package var embeddingScale: Float = 1
    /// Whether ``embeddingScale`` is first rounded to the table's dtype, as in the Gemma models.
    package var roundsEmbeddingScale = false
    package var positions: PositionTable = .none
    /// Whether positions count the padding before an input, as in BART's encoder. Elsewhere they count real tokens only.
    package var countsPadding = false
    package var layers: [LayerDescription]
    /// Rotary embeddings that layers refer to by index.
    package var rotary: [RotaryDescription] = []
    /// Inputs that each layer has of its own; every layer then has a ``LayerDescription/perLayerActivation``.
    package var perLayer: PerLayerDescription?

    package init(path: String, width: Int, layers: [LayerDescription]) {
        self.path = path
        self.width = width
        self.layers = layers
    }

    /// The position embeddings that are added to the token embeddings.
    package enum PositionTable: Sendable {
        case none
        /// A learned table whose row for position p is p + offset.
        case learned(offset: Int)
        /// A fixed table of sines in the first half of the width and cosines in the second. It is computed where the checkpoint
        /// does not hold it.
        case sinusoidal(positions: Int, Sinusoids = .transformer)
    }
}

/// Inputs that each layer has of its own, made from the tokens and their embeddings (Gemma 4 E):
/// `(table[token] × embeddingScale + norm(projection(embedding) × projectionScale)) × sumScale`.
package struct PerLayerDescription: Sendable {
    /// P: elements of one layer's input.
    package var width: Int
    package var embeddingScale: Float
    package var projectionScale: Float
    package var sumScale: Float

    package init(width: Int, embeddingScale: Float, projectionScale: Float, sumScale: Float) {
        self.width = width
        self.embeddingScale = embeddingScale
        self.projectionScale = projectionScale
        self.sumScale = sumScale
    }
}

/// One block: its token mixer, its feed-forward, and how they join the residual stream.
///
/// A token mixer is attention, a recurrent mixer, or both side by side on the same input (Falcon-H1). A block may also lack one
/// of its two halves: see ``FeedForwardDescription/none``.
package struct LayerDescription: Sendable {
    package var selfAttention: AttentionDescription?
    package var recurrence: RecurrentDescription?
    /// Encoder-decoders: the attention over the encoder's output.
    package var crossAttention: AttentionDescription?
    package var feedForward: FeedForwardDescription
    /// Attention and feed-forward read the same residual and are summed (GPT-J, GPT-NeoX, Falcon).
    package var isParallel = false
    /// The residual is the norm's output, not its input (`apply_residual_connection_post_layernorm`).
    package var residualFollowsNorm = false
    /// Sublayer outputs are multiplied by this before they join the residual (Granite).
    package var residualScale: Float = 1
    /// The activation of the gate on the layer's own input, where it has one.
    package var perLayerActivation: Activation?
    /// The buffer of the block, one number, that the residual stream is multiplied by behind the block.
    package var outputScaleBuffer: String?
    /// The gate of a gated feed-forward is multiplied by the first, its result by the second (Falcon-H1).
    package var feedForwardScales: (gate: Float, output: Float) = (1, 1)

    package init(attention: AttentionDescription, feedForward: FeedForwardDescription) {
        selfAttention = attention
        self.feedForward = feedForward
    }

    package init(recurrence: RecurrentDescription?, feedForward: FeedForwardDescription) {
        self.recurrence = recurrence
        self.feedForward = feedForward
    }

    /// ``selfAttention``, for families to adjust. A layer without attention has nothing to adjust.
    package var attention: AttentionDescription {
        @inline(never) get { selfAttention ?? AttentionDescription(heads: 1, headSize: 1) }
        @inline(never) set { if selfAttention != nil { selfAttention = newValue } }
    }
}

/// An attention's heads, and how scores are computed.
package struct AttentionDescription: Sendable {
    /// H
    package var heads: Int
    /// G
    package var keyValueHeads: Int
    /// D
    package var headSize: Int
    /// Scores are multiplied by this.
    package var scale: Float
    /// Where queries, keys and values lie in the projections' output.
    package var layout: QueryKeyValueLayout
    package var isCausal = true
    package var softCap: Float?
    package var window: Int?
    /// Index into ``StackDescription/rotary``.
    package var rotary: Int?
    package var bias: Bias = .none
    /// Whether each head has a sink: a learned score in the softmax's denominator, the parameter `sinks` of the attention (gpt-oss).
    package var hasSinks = false
    package var normScope: QueryKeyNorm.Scope = .head
    /// Projections are clamped to ± this, after a norm that precedes rotation.
    package var clip: Float?
    /// A factor on rotated queries that grows with their position.
    package var temperature: QueryTemperature?
    /// Values are what the key projection gives, before norm and rotation. There is no projection of their own.
    package var valuesAreKeys = false
    /// The layer before this one whose keys and values it reads; `nil`: it has its own.
    package var sharedLayer: Int?
    /// Where each head's gate lies in the projections' output: the result is multiplied by its sigmoid (Qwen3-Next).
    package var outputGate: QueryKeyValueLayout.HeadOffsets?
    /// The output projection's result is multiplied by this.
    package var outputScale: Float = 1

    /// What is added to scores.
    package enum Bias: Sendable {
        case none
        /// One slope a head.
        case alibi(slopes: [Float])
        /// The table is the block's own, or else the first one in the stack.
        case relative(isBidirectional: Bool, maximumDistance: Int)
    }

    /// `layout` defaults to separate query, key and value side by side, `scale` to 1/√D.
    @inline(never)
    package init(
        heads: Int, keyValueHeads: Int? = nil, headSize: Int, scale: Float? = nil, layout: QueryKeyValueLayout? = nil
    ) {
        self.heads = heads
        self.keyValueHeads = keyValueHeads ?? heads
        self.headSize = headSize
        self.scale = scale ?? 1 / Float(headSize).squareRoot()
        self.layout = layout ?? .stacked(heads: heads, keyValueHeads: keyValueHeads ?? heads, headSize: headSize)
    }
}

/// The feed-forward of a block.
package enum FeedForwardDescription: Sendable {
    /// The block ends with its token mixer (Mamba 2).
    case none
    /// down(activation(up x))
    case plain(Activation)
    /// down(activation(gate x) ⊙ up x)
    case gated(Activation)
    case experts(ExpertsDescription)

    var isNone: Bool { if case .none = self { true } else { false } }
}

/// A sparse mixture of experts.
package struct ExpertsDescription: Sendable {
    /// X
    package var count: Int
    /// k
    package var topK: Int
    package var router: RouterDescription
    package var activation: ExpertActivation
    /// F of one expert.
    package var width: Int
    /// The width of the experts' input and output where it is not E: projections lead there and back (Nemotron 3).
    package var latent: Int?
    package var shared = SharedExpert.none
    /// A factor on the shared expert's output (Cohere 2 MoE averages).
    package var sharedScale: Float = 1

    /// An expert that sees every token.
    package enum SharedExpert: Sendable {
        case none
        case plain
        /// Its output is scaled by σ(gate · x) (Qwen2).
        case gated
        /// It reads the norm before the feed-forward, the router and the experts read norms of their own, and both outputs pass
        /// norms before they are summed (Gemma 4).
        case apart
    }

    package init(count: Int, topK: Int, router: RouterDescription, activation: GateActivation, width: Int) {
        self.count = count
        self.topK = topK
        self.router = router
        self.activation = .gated(activation)
        self.width = width
    }

    /// A mixture whose weights are a softmax over all experts.
    package init(count: Int, topK: Int, normalizesWeights: Bool, activation: Activation, width: Int) {
        self.init(
            count: count, topK: topK, router: .init(normalizes: normalizesWeights), activation: .product(activation), width: width
        )
    }
}

/// How a mixture chooses experts: ``RouterRule`` without its tensors.
package struct RouterDescription: Sendable {
    package var scoring = RouterRule.Scoring.softmax
    /// The path, below the feed-forward, of the tensor [X] that is added to scores for choosing; a buffer or a parameter.
    package var choiceBias: String?
    package var groups: RouterRule.Groups?
    package var normalizes: Bool
    package var floor = RouterRule.Floor.added(0)
    package var scale: Float = 1

    package init(normalizes: Bool) { self.normalizes = normalizes }

    /// - Parameters:
    ///   - bias: float32 [X], of the path ``choiceBias``.
    ///   - expertScale: float32 [X], a factor on each expert's weight.
    func rule(choiceBias bias: Tensor?, expertScale: Tensor?) -> RouterRule {
        RouterRule(
            scoring: scoring, choiceBias: bias, groups: groups, normalizes: normalizes, floor: floor, scale: scale,
            expertScale: expertScale)
    }
}

/// From the last hidden state to logits.
package struct HeadDescription: Sendable {
    /// Logits are multiplied by this.
    package var scale: Float = 1
    package var softCap: Float?
    /// A bias outside the head module (`final_logits_bias`); old checkpoints may lack it.
    package var biasPath: String?

    package init() {}
}
