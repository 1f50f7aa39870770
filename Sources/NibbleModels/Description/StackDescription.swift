public import NibbleCore

/// Everything the decoder (or encoder) needs to know of a family beyond its module tree.
public struct StackDescription: Sendable {
    /// The module that holds embeddings, blocks and final norm.
    public var path: String
    /// E
    public var width: Int
    public var embeddingScale: Float = 1
    /// Whether that factor is first rounded to the table's dtype, as the Gemma models do.
    public var roundsEmbeddingScale = false
    public var positions: PositionTable = .none
    /// Whether padding before an input moves its positions, as in the encoders of BART's kind. Elsewhere positions count
    /// real tokens only.
    public var countsPadding = false
    public var layers: [LayerDescription]
    /// Rotary embeddings that layers refer to by index.
    public var rotary: [RotaryDescription] = []

    public init(path: String, width: Int, layers: [LayerDescription]) {
        self.path = path
        self.width = width
        self.layers = layers
    }

    public enum PositionTable: Sendable {
        case none
        /// A learned table whose row for position p is p + offset.
        case learned(offset: Int)
        /// The fixed table of the original Transformer: sines in the first half of the width, cosines in the second. It is
        /// computed where the checkpoint does not hold it.
        case sinusoidal(positions: Int)
    }
}

public struct LayerDescription: Sendable {
    public var attention: AttentionDescription
    /// Encoder-decoders: the attention over the encoder's output.
    public var crossAttention: AttentionDescription?
    public var feedForward: FeedForwardDescription
    /// Attention and feed-forward read the same residual and are summed (GPT-J, GPT-NeoX, Falcon).
    public var isParallel = false
    /// The residual is the norm's output, not its input (`apply_residual_connection_post_layernorm`).
    public var residualFollowsNorm = false
    /// Sublayer outputs are multiplied by this before they join the residual (Granite).
    public var residualScale: Float = 1

    public init(attention: AttentionDescription, feedForward: FeedForwardDescription) {
        self.attention = attention
        self.feedForward = feedForward
    }
}

public struct AttentionDescription: Sendable {
    /// H
    public var heads: Int
    /// G
    public var keyValueHeads: Int
    /// D
    public var headSize: Int
    /// Scores are multiplied by this.
    public var scale: Float
    /// How queries, keys and values stand in the projections' output.
    public var layout: QueryKeyValueLayout
    public var isCausal = true
    public var softCap: Float?
    public var window: Int?
    /// Index into ``StackDescription/rotary``.
    public var rotary: Int?
    public var bias: Bias = .none
    public var normScope: QueryKeyNorm.Scope = .head
    /// Projections are clamped to ± this.
    public var clip: Float?

    public enum Bias: Sendable {
        case none
        /// One slope a head.
        case alibi(slopes: [Float])
        /// The table is the block's own, or else the first one found in the stack.
        case relative(isBidirectional: Bool, maximumDistance: Int)
    }

    /// `layout` defaults to separate query, key and value side by side, `scale` to 1/√D.
    public init(
        heads: Int, keyValueHeads: Int? = nil, headSize: Int, scale: Float? = nil, layout: QueryKeyValueLayout? = nil
    ) {
        self.heads = heads
        self.keyValueHeads = keyValueHeads ?? heads
        self.headSize = headSize
        self.scale = scale ?? 1 / Float(headSize).squareRoot()
        self.layout = layout ?? .stacked(heads: heads, keyValueHeads: keyValueHeads ?? heads, headSize: headSize)
    }
}

public enum FeedForwardDescription: Sendable {
    /// down(activation(up x))
    case plain(Activation)
    /// down(activation(gate x) ⊙ up x)
    case gated(Activation)
    case experts(ExpertsDescription)
}

public struct ExpertsDescription: Sendable {
    public var count: Int
    public var topK: Int
    public var normalizesWeights: Bool
    public var activation: Activation
    /// F of one expert.
    public var width: Int

    public init(count: Int, topK: Int, normalizesWeights: Bool, activation: Activation, width: Int) {
        self.count = count
        self.topK = topK
        self.normalizesWeights = normalizesWeights
        self.activation = activation
        self.width = width
    }
}

/// From the last hidden state to logits.
public struct HeadDescription: Sendable {
    /// Logits are multiplied by this.
    public var scale: Float = 1
    public var softCap: Float?
    /// A bias outside the head module (`final_logits_bias`); old checkpoints may lack it.
    public var biasPath: String?

    public init() {}
}
