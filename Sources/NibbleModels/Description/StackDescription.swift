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

/// One block: its attention, its feed-forward, and how they join the residual stream.
package struct LayerDescription: Sendable {
    package var attention: AttentionDescription
    /// Encoder-decoders: the attention over the encoder's output.
    package var crossAttention: AttentionDescription?
    package var feedForward: FeedForwardDescription
    /// Attention and feed-forward read the same residual and are summed (GPT-J, GPT-NeoX, Falcon).
    package var isParallel = false
    /// The residual is the norm's output, not its input (`apply_residual_connection_post_layernorm`).
    package var residualFollowsNorm = false
    /// Sublayer outputs are multiplied by this before they join the residual (Granite).
    package var residualScale: Float = 1

    package init(attention: AttentionDescription, feedForward: FeedForwardDescription) {
        self.attention = attention
        self.feedForward = feedForward
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
    package var normScope: QueryKeyNorm.Scope = .head
    /// Projections are clamped to ± this, after a norm that precedes rotation.
    package var clip: Float?
    /// A factor on rotated queries that grows with their position.
    package var temperature: QueryTemperature?

    /// What is added to scores.
    package enum Bias: Sendable {
        case none
        /// One slope a head.
        case alibi(slopes: [Float])
        /// The table is the block's own, or else the first one in the stack.
        case relative(isBidirectional: Bool, maximumDistance: Int)
    }

    /// `layout` defaults to separate query, key and value side by side, `scale` to 1/√D.
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
    /// down(activation(up x))
    case plain(Activation)
    /// down(activation(gate x) ⊙ up x)
    case gated(Activation)
    case experts(ExpertsDescription)
}

/// A sparse mixture of gated experts.
package struct ExpertsDescription: Sendable {
    package var count: Int
    package var topK: Int
    package var normalizesWeights: Bool
    package var activation: Activation
    /// F of one expert.
    package var width: Int
    package var shared = SharedExpert.none

    /// An expert that sees every token.
    package enum SharedExpert: Sendable {
        case none
        case plain
        /// Its output is scaled by σ(gate · x) (Qwen2).
        case gated
    }

    package init(count: Int, topK: Int, normalizesWeights: Bool, activation: Activation, width: Int) {
        self.count = count
        self.topK = topK
        self.normalizesWeights = normalizesWeights
        self.activation = activation
        self.width = width
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
