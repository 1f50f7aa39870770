// The arguments of a backend's operations. Letters: T tokens of the call, R rows, E model width, H heads, G key/value heads,
// D head size, V vocabulary, X experts. Activations are [T, width] in the backend's activation dtype.

/// out[t] = table[tokens[t]] × scale (+ positionTable[positions[t]]).
package struct EmbeddingCall: Sendable {
    /// [V, E], any float dtype
    package var table: Tensor
    package var scale: Float
    /// [P, E], any float dtype
    package var positionTable: Tensor?

    package init(table: Tensor, scale: Float = 1, positionTable: Tensor? = nil) {
        self.table = table
        self.scale = scale
        self.positionTable = positionTable
    }
}

/// A normalization over the last axis, or over runs of it.
package struct Norm: Sendable {
    package enum Kind: Sendable, Hashable {
        /// (x − mean) / √(variance + ε)
        case layer
        /// x / √(mean(x²) + ε)
        case rms
    }

    package var kind: Kind
    package var epsilon: Float
    /// float32 [E]; `nil` means ones. A weight that checkpoints store as w − 1 is w here.
    package var weight: Tensor?
    /// float32 [E]
    package var bias: Tensor?

    package init(kind: Kind, epsilon: Float, weight: Tensor?, bias: Tensor? = nil) {
        self.kind = kind
        self.epsilon = epsilon
        self.weight = weight
        self.bias = bias
    }
}

/// Where queries, keys and values lie in a row of the projections' output: head h of the queries begins at
/// `query.offset + h × query.stride`, and so on. Covers separate projections, and fused ones that are stacked or interleaved
/// by head or by group.
package struct QueryKeyValueLayout: Sendable, Hashable {
    /// The offsets of heads at regular distances, in groups of `groupSize`: head h begins at
    /// `offset + (h / groupSize) × stride + (h mod groupSize) × D`.
    package struct HeadOffsets: Sendable, Hashable {
        package var offset: Int
        package var stride: Int
        package var groupSize: Int

        package init(offset: Int, stride: Int, groupSize: Int = 1) {
            self.offset = offset
            self.stride = stride
            self.groupSize = groupSize
        }
    }

    package var query: HeadOffsets
    package var key: HeadOffsets
    package var value: HeadOffsets

    package init(query: HeadOffsets, key: HeadOffsets, value: HeadOffsets) {
        self.query = query
        self.key = key
        self.value = value
    }

    /// [H·D | G·D | G·D]
    package static func stacked(heads: Int, keyValueHeads: Int, headSize: Int) -> QueryKeyValueLayout {
        QueryKeyValueLayout(
            query: HeadOffsets(offset: 0, stride: headSize),
            key: HeadOffsets(offset: heads * headSize, stride: headSize),
            value: HeadOffsets(offset: (heads + keyValueHeads) * headSize, stride: headSize))
    }

    /// [H · (query D, gate D) | G·D | G·D] (Qwen3-Next).
    package static func gated(heads: Int, keyValueHeads: Int, headSize: Int) -> QueryKeyValueLayout {
        QueryKeyValueLayout(
            query: HeadOffsets(offset: 0, stride: 2 * headSize),
            key: HeadOffsets(offset: 2 * heads * headSize, stride: headSize),
            value: HeadOffsets(offset: (2 * heads + keyValueHeads) * headSize, stride: headSize))
    }

    /// For each head its query, key and value: [H, 3, D] (BLOOM, GPT-NeoX).
    package static func interleaved(headSize: Int) -> QueryKeyValueLayout {
        QueryKeyValueLayout(
            query: HeadOffsets(offset: 0, stride: 3 * headSize),
            key: HeadOffsets(offset: headSize, stride: 3 * headSize),
            value: HeadOffsets(offset: 2 * headSize, stride: 3 * headSize))
    }

    /// For each key/value head its queries, then key, then value: [G, H/G + 2, D] (Falcon's new decoder).
    package static func grouped(heads: Int, keyValueHeads: Int, headSize: Int) -> QueryKeyValueLayout {
        let perGroup = heads / keyValueHeads
        let stride = (perGroup + 2) * headSize
        return QueryKeyValueLayout(
            query: HeadOffsets(offset: 0, stride: stride, groupSize: perGroup),
            key: HeadOffsets(offset: perGroup * headSize, stride: stride),
            value: HeadOffsets(offset: (perGroup + 1) * headSize, stride: stride))
    }
}

/// Cosines and sines for every position of a session.
package struct RotaryTable: Sendable {
    /// float32 [P, rotated / 2]
    package let cosines: Tensor
    /// float32 [P, rotated / 2]
    package let sines: Tensor
    /// How many of a head's first elements are rotated; even.
    package let rotated: Int
    /// Pairs are (2i, 2i+1) (GPT-J) instead of (i, i + rotated/2) (GPT-NeoX, Llama).
    package let isInterleaved: Bool

    package init(cosines: Tensor, sines: Tensor, rotated: Int, isInterleaved: Bool) {
        self.cosines = cosines
        self.sines = sines
        self.rotated = rotated
        self.isInterleaved = isInterleaved
    }
}

/// Normalization of queries and keys.
package struct QueryKeyNorm: Sendable {
    package enum Scope: Sendable, Hashable {
        /// Each head on its own; weight [D], or [H, D] / [G, D] flattened.
        case head
        /// As ``head``, but after rotation instead of before it (HunYuan).
        case rotatedHead
        /// All heads of a token together (OLMo 2); weight [H·D] and [G·D].
        case token
    }

    package var scope: Scope
    package var query: Norm
    package var key: Norm

    package init(scope: Scope, query: Norm, key: Norm) {
        self.scope = scope
        self.query = query
        self.key = key
    }
}

/// A factor on queries that grows with their position p: 1 + β · log(1 + ⌊p / length⌋), which is 1 below `length` (Ministral 3).
package struct QueryTemperature: Sendable, Hashable {
    /// β
    package var beta: Float
    /// The number of positions over which the factor stays the same; at least 1.
    package var length: Int

    package init(beta: Float, length: Int) {
        self.beta = beta
        self.length = length
    }
}

/// Normalizes and rotates queries and keys in place and stores keys and values in the cache.
package struct RotateAndStoreCall: Sendable {
    /// [T, width]: the projections' output. Queries stay in it.
    package var projections: Tensor
    package var layout: QueryKeyValueLayout
    /// H; 0 when there are no queries in `projections` (cross-attention's keys and values).
    package var heads: Int
    package var norm: QueryKeyNorm?
    package var rotary: RotaryTable?
    package var cache: KeyValueCache
    /// Projections are clamped to ±clip (MPT, OLMo): after a norm that precedes rotation (OLMoE), before rotation.
    package var clip: Float?
    /// Scales rotated queries by their position.
    package var temperature: QueryTemperature?
    /// ε of an RMS norm without weights that each head's values pass before they are stored; `nil`: there is none (Gemma 4 has).
    package var valueEpsilon: Float?
    /// Whether `projections` hold keys and values. Otherwise they hold queries alone, and nothing is stored: the cache is another
    /// layer's.
    package var hasKeysAndValues: Bool

    package init(
        projections: Tensor, layout: QueryKeyValueLayout, heads: Int, norm: QueryKeyNorm? = nil, rotary: RotaryTable? = nil,
        cache: KeyValueCache, clip: Float? = nil, temperature: QueryTemperature? = nil, valueEpsilon: Float? = nil,
        hasKeysAndValues: Bool = true
    ) {
        self.projections = projections
        self.layout = layout
        self.heads = heads
        self.norm = norm
        self.rotary = rotary
        self.cache = cache
        self.clip = clip
        self.temperature = temperature
        self.valueEpsilon = valueEpsilon
        self.hasKeysAndValues = hasKeysAndValues
    }

    /// G, or 0 where there are no keys and values.
    package var keyValueHeads: Int { hasKeysAndValues ? cache.geometry.heads : 0 }
}

/// What is added to the scaled scores before the softmax.
package enum PositionBias: Sendable {
    case none
    /// slopes[h] × (key − query); float32 [H]
    case alibi(slopes: Tensor)
    /// table[bucket(key − query)][h]; float32 [buckets, H] (T5, arXiv 1910.10683)
    case relative(table: Tensor, isBidirectional: Bool, maximumDistance: Int)
}

/// softmax(cap(QKᵀ × scale) + bias + mask) · V over the cache, for ragged rows. With sinks, the softmax has one more score a
/// head, which has no value.
package struct AttentionCall: Sendable {
    /// [T, width] with queries placed by `layout.query`.
    package var queries: Tensor
    package var layout: QueryKeyValueLayout.HeadOffsets
    /// H, a multiple of the cache's heads; query head h reads key/value head h / (H/G).
    package var heads: Int
    package var cache: KeyValueCache
    package var scale: Float
    /// scores ← c · tanh(scores / c)
    package var softCap: Float?
    /// Key visible if query − key < window.
    package var window: Int?
    /// Causal: keys up to the query's position. Otherwise: all keys of the row.
    package var isCausal: Bool
    package var bias: PositionBias
    /// float32 [H]: a score of each head that joins the softmax's denominator, whatever the query sees (gpt-oss).
    package var sinks: Tensor?

    package init(
        queries: Tensor, layout: QueryKeyValueLayout.HeadOffsets, heads: Int, cache: KeyValueCache, scale: Float,
        softCap: Float? = nil, window: Int? = nil, isCausal: Bool = true, bias: PositionBias = .none, sinks: Tensor? = nil
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
        self.sinks = sinks
    }
}
