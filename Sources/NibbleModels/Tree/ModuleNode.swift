package import NibbleCore

/// One module of a model, as the reference library names and orders it.
///
/// The tree is the checkpoint's: a parameter's path in the tree is its key in the file. Planning walks it for sizes,
/// quantization for skip rules, loading for shapes; a ``Role`` tells the decoder block which module does what.
package struct ModuleNode: Sendable {
    package let name: String
    /// The class name in the reference library; no-split rules and reports go by it.
    package let className: String
    package let kind: Kind
    package let role: Role?
    package let parameters: [Parameter]
    package let buffers: [Buffer]
    package let children: [ModuleNode]

    package enum Kind: Sendable {
        case container
        /// Replaced by a quantized layer unless skipped.
        case linear
        /// A linear layer whose weight is stored transposed, [K, N] (GPT-2).
        case transposedLinear
        /// A subclass of the linear layer, which the reference leaves alone (Falcon).
        case linearSubclass
        /// Weights of many experts in 3-D tensors, which the reference leaves alone.
        case experts
        /// A mixture's router: multiplied like a linear layer, never quantized.
        case router
        case embedding
        case norm(NormDescription)
    }

    package struct Parameter: Sendable {
        package let name: String
        package let shape: Shape
        /// Has known values that a checkpoint need not hold.
        package let isComputed: Bool

        package init(_ name: String, _ shape: Shape, isComputed: Bool = false) {
            self.name = name
            self.shape = shape
            self.isComputed = isComputed
        }
    }

    /// A tensor that is no parameter but counted where the reference counts it. Persistent ones are in checkpoints; the
    /// others are computed.
    package struct Buffer: Sendable {
        package let name: String
        package let count: Int
        package let dtype: DType
        package let isPersistent: Bool
        /// Whether a model loaded in another dtype than float32 holds it in that dtype.
        package let followsLoadDType: Bool

        package init(
            _ name: String, count: Int, dtype: DType = .float32, isPersistent: Bool = false, followsLoadDType: Bool = false
        ) {
            self.name = name
            self.count = count
            self.dtype = dtype
            self.isPersistent = isPersistent
            self.followsLoadDType = followsLoadDType
        }

        package func byteCount(loadDType: DType) -> Int {
            count * (followsLoadDType ? loadDType : dtype).byteCount
        }
    }

    package init(
        _ name: String, _ className: String, kind: Kind = .container, role: Role? = nil, parameters: [Parameter] = [],
        buffers: [Buffer] = [], children: [ModuleNode] = []
    ) {
        self.name = name
        self.className = className
        self.kind = kind
        self.role = role
        self.parameters = parameters
        self.buffers = buffers
        self.children = children
    }
}

/// Which norm a module is.
package struct NormDescription: Sendable, Hashable {
    package var kind: Norm.Kind
    package var epsilon: Float
    /// Added to the stored weight (Gemma stores w − 1).
    package var weightOffset: Float

    package init(kind: Norm.Kind, epsilon: Float, weightOffset: Float = 0) {
        self.kind = kind
        self.epsilon = epsilon
        self.weightOffset = weightOffset
    }
}

/// What a module does in the decoder that Nibble runs.
package enum Role: Sendable, Hashable {
    // The stack
    case tokenEmbedding, positionEmbedding, embeddingNorm, projectIn, projectOut, finalNorm, head
    case block

    // Inside a block
    case selfAttention, crossAttention, feedForward
    /// Before a sublayer.
    case attentionNorm, crossAttentionNorm, feedForwardNorm
    /// On a sublayer's output, before the residual sum.
    case attentionOutputNorm, feedForwardOutputNorm
    /// After the residual sum.
    case attentionResidualNorm, crossAttentionResidualNorm, feedForwardResidualNorm

    // Inside an attention
    case query, key, value, queryKeyValue, attentionOutput, queryNorm, keyNorm, relativeBias

    // Inside a feed-forward
    case gate, up, gateUp, down, router, experts, sharedExpert, sharedExpertGate
}
