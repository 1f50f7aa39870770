// The arguments of a backend's operations. Letters: T tokens of the call, R rows, E model width, H heads, G key/value heads,
// D head size, V vocabulary, X experts. Activations are [T, width] in the backend's activation dtype.

/// out[t] = table[tokens[t]] × scale (+ positionTable[positions[t]]).
public struct EmbeddingCall: Sendable {
    /// [V, E], any float dtype
    public var table: Tensor
    public var scale: Float
    /// [P, E], any float dtype
    public var positionTable: Tensor?

    public init(table: Tensor, scale: Float = 1, positionTable: Tensor? = nil) {
        self.table = table
        self.scale = scale
        self.positionTable = positionTable
    }
}

/// A normalization over the last axis, or over runs of it.
public struct Norm: Sendable {
    public enum Kind: Sendable, Hashable {
        /// (x − mean) / √(variance + ε)
        case layer
        /// x / √(mean(x²) + ε)
        case rms
    }

    public var kind: Kind
    public var epsilon: Float
    /// float32 [E]; `nil` means ones. Weights that a family stores as w − 1 are stored here as w.
    public var weight: Tensor?
    /// float32 [E]
    public var bias: Tensor?

    public init(kind: Kind, epsilon: Float, weight: Tensor?, bias: Tensor? = nil) {
        self.kind = kind
        self.epsilon = epsilon
        self.weight = weight
        self.bias = bias
    }
}

/// Where queries, keys and values stand in a row of the projections' output: head h of the queries begins at
/// `query.offset + h × query.stride`, and so on. Covers separate, stacked and interleaved (per head or per group) layouts.
public struct QueryKeyValueLayout: Sendable, Hashable {
    /// Heads at regular distances. With `groupSize` > 0, heads come in groups: head h is at
    /// `offset + (h / groupSize) × stride + (h mod groupSize) × D`.
    public struct Part: Sendable, Hashable {
        public var offset: Int
        public var stride: Int
        public var groupSize: Int

        public init(offset: Int, stride: Int, groupSize: Int = 1) {
            self.offset = offset
            self.stride = stride
            self.groupSize = groupSize
        }
    }

    public var query: Part
    public var key: Part
    public var value: Part

    public init(query: Part, key: Part, value: Part) {
        self.query = query
        self.key = key
        self.value = value
    }

    /// [H·D | G·D | G·D]
    public static func stacked(heads: Int, keyValueHeads: Int, headSize: Int) -> QueryKeyValueLayout {
        QueryKeyValueLayout(
            query: Part(offset: 0, stride: headSize),
            key: Part(offset: heads * headSize, stride: headSize),
            value: Part(offset: (heads + keyValueHeads) * headSize, stride: headSize))
    }

    /// For each head its query, key and value: [H, 3, D] (BLOOM, GPT-NeoX).
    public static func interleaved(headSize: Int) -> QueryKeyValueLayout {
        QueryKeyValueLayout(
            query: Part(offset: 0, stride: 3 * headSize),
            key: Part(offset: headSize, stride: 3 * headSize),
            value: Part(offset: 2 * headSize, stride: 3 * headSize))
    }

    /// For each key/value head its queries, then key, then value: [G, H/G + 2, D] (Falcon's new decoder).
    public static func grouped(heads: Int, keyValueHeads: Int, headSize: Int) -> QueryKeyValueLayout {
        let perGroup = heads / keyValueHeads
        let stride = (perGroup + 2) * headSize
        return QueryKeyValueLayout(
            query: Part(offset: 0, stride: stride, groupSize: perGroup),
            key: Part(offset: perGroup * headSize, stride: stride),
            value: Part(offset: (perGroup + 1) * headSize, stride: stride))
    }
}

/// Cosines and sines for every position a session can reach.
public struct RotaryTable: Sendable {
    /// float32 [P, rotated / 2]
    public let cosines: Tensor
    /// float32 [P, rotated / 2]
    public let sines: Tensor
    /// How many of a head's first elements are rotated; even.
    public let rotated: Int
    /// Pairs are (2i, 2i+1) (GPT-J) instead of (i, i + rotated/2) (GPT-NeoX, Llama).
    public let isInterleaved: Bool

    public init(cosines: Tensor, sines: Tensor, rotated: Int, isInterleaved: Bool) {
        self.cosines = cosines
        self.sines = sines
        self.rotated = rotated
        self.isInterleaved = isInterleaved
    }
}

/// Normalization of queries and keys before rotation.
public struct QueryKeyNorm: Sendable {
    public enum Scope: Sendable, Hashable {
        /// Each head on its own; weight [D], or [H, D] / [G, D] flattened.
        case head
        /// All heads of a token together (OLMo 2); weight [H·D] and [G·D].
        case token
    }

    public var scope: Scope
    public var query: Norm
    public var key: Norm

    public init(scope: Scope, query: Norm, key: Norm) {
        self.scope = scope
        self.query = query
        self.key = key
    }
}

/// Normalizes and rotates queries and keys in place and stores keys and values in the cache.
public struct RotateAndStoreCall: Sendable {
    /// [T, width]: the projections' output. Queries stay in it.
    public var projections: Tensor
    public var layout: QueryKeyValueLayout
    /// H; 0 when there are no queries in `projections` (cross-attention's keys and values).
    public var heads: Int
    public var norm: QueryKeyNorm?
    public var rotary: RotaryTable?
    public var cache: KeyValueCache
    /// Values are clamped to ±clip first (MPT, OLMo).
    public var clip: Float?

    public init(
        projections: Tensor, layout: QueryKeyValueLayout, heads: Int, norm: QueryKeyNorm? = nil, rotary: RotaryTable? = nil,
        cache: KeyValueCache, clip: Float? = nil
    ) {
        self.projections = projections
        self.layout = layout
        self.heads = heads
        self.norm = norm
        self.rotary = rotary
        self.cache = cache
        self.clip = clip
    }
}

/// What is added to the scaled scores before the softmax.
public enum PositionBias: Sendable {
    case none
    /// slopes[h] × (key − query); float32 [H]
    case alibi(slopes: Tensor)
    /// table[bucket(key − query)][h]; float32 [buckets, H] (T5, arXiv 1910.10683)
    case relative(table: Tensor, isBidirectional: Bool, maximumDistance: Int)
}

/// softmax(cap(QKᵀ × scale) + bias + mask) · V over the cache, for ragged rows.
public struct AttentionCall: Sendable {
    /// [T, width] with queries placed by `layout.query`.
    public var queries: Tensor
    public var layout: QueryKeyValueLayout.Part
    /// H, a multiple of the cache's heads; query head h reads key/value head h / (H/G).
    public var heads: Int
    public var cache: KeyValueCache
    public var scale: Float
    /// scores ← c · tanh(scores / c)
    public var softCap: Float?
    /// Key visible if query − key < window.
    public var window: Int?
    /// Causal: keys up to the query's position. Otherwise: all keys of the row.
    public var isCausal: Bool
    public var bias: PositionBias

    public init(
        queries: Tensor, layout: QueryKeyValueLayout.Part, heads: Int, cache: KeyValueCache, scale: Float,
        softCap: Float? = nil, window: Int? = nil, isCausal: Bool = true, bias: PositionBias = .none
    ) {
        self.queries = queries
        self.layout = layout
        self.heads = heads
        self.cache = cache
        self.scale = scale
        self.softCap = softCap
        self.window = window
        self.isCausal = isCausal
        self.bias = bias
    }
}

/// One expert of a mixture: down(activation(gate x) ⊙ up x).
public struct Expert: Sendable {
    /// gate and up side by side: [2F, E] in one or two layers.
    public var gateUp: LinearGroup
    public var down: Linear

    public init(gateUp: LinearGroup, down: Linear) {
        self.gateUp = gateUp
        self.down = down
    }
}

/// Σ over the top-k experts of weight × expert(x), added to `residual` where given.
public struct ExpertsCall: Sendable {
    /// float32 [T, X]
    public var routerLogits: Tensor
    public var experts: [Expert]
    public var topK: Int
    /// Whether the k softmax weights are scaled to sum to one.
    public var normalizesWeights: Bool
    public var activation: Activation
    public var residual: Tensor?

    public init(
        routerLogits: Tensor, experts: [Expert], topK: Int, normalizesWeights: Bool, activation: Activation, residual: Tensor?
    ) {
        self.routerLogits = routerLogits
        self.experts = experts
        self.topK = topK
        self.normalizesWeights = normalizesWeights
        self.activation = activation
        self.residual = residual
    }
}
