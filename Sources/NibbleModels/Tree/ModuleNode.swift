package import NibbleCore

/// One module of a model, as the reference library names and orders it.
///
/// A parameter's path in the tree is its key in the checkpoint. The planner takes sizes from the tree, quantization its skip
/// rules, and loading its shapes. A ``Role`` tells the decoder what a module does.
package struct ModuleNode: Sendable {
    package let name: String
    /// The class name in the reference library; no-split rules and reports go by it.
    package let className: String
    package let kind: Kind
    package let role: Role?
    package let parameters: [Parameter]
    package let buffers: [Buffer]
    package let children: [ModuleNode]
    /// Of a set of experts: how its parameters are stored.
    package let expertsLayout: ExpertsLayout

    /// How the parameters `gate_up_proj` and `down_proj` of X experts are stored. E model width, F hidden width of an expert.
    package enum ExpertsLayout: Sendable, Hashable {
        /// [X, 2F, E], the gate's rows before those of up; [X, E, F]. Experts without a gate have `up_proj` [X, F, E] instead.
        case rows
        /// [X, E, 2F], the columns of gate and up alternating; [X, F, E]. `gate_up_proj_bias` [X, 2F] alternates likewise, and
        /// there is a `down_proj_bias` [X, E] (gpt-oss).
        case alternatingColumns
    }

    /// What a module is, as far as loading, quantization and planning differ.
    package enum Kind: Sendable {
        case container
        /// Replaced by a quantized layer unless skipped.
        case linear
        /// A linear layer whose weight is stored transposed, [K, N] (GPT-2).
        case transposedLinear
        /// A subclass of the linear layer, which bitsandbytes does not quantize (Falcon).
        case linearSubclass
        /// Weights of many experts in 3-D tensors, which bitsandbytes does not quantize while loading.
        case experts
        /// A mixture's router: multiplied like a linear layer, quantized only where the checkpoint holds it so.
        case router
        case embedding
        case norm(NormDescription)
    }

    /// A parameter's name, and its shape as stored.
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

    /// A tensor that is not a parameter. It counts for sizes where the reference counts it. Persistent buffers are stored in
    /// checkpoints; the others are computed.
    package struct Buffer: Sendable {
        package let name: String
        package let count: Int
        package let dtype: DType
        package let isPersistent: Bool
        /// Whether a model loaded in another dtype than float32 holds it in that dtype.
        package let followsLoadDType: Bool
        /// Whether a checkpoint must hold it.
        package let isRequired: Bool

        package init(
            _ name: String, count: Int, dtype: DType = .float32, isPersistent: Bool = false, followsLoadDType: Bool = false,
            isRequired: Bool = false
        ) {
            self.name = name
            self.count = count
            self.dtype = dtype
            self.isPersistent = isPersistent
            self.followsLoadDType = followsLoadDType
            self.isRequired = isRequired
        }

        package func byteCount(loadDType: DType) -> Int {
            count * (followsLoadDType ? loadDType : dtype).byteCount
        }
    }

    package init(
        _ name: String, _ className: String, kind: Kind = .container, role: Role? = nil, parameters: [Parameter] = [],
        buffers: [Buffer] = [], children: [ModuleNode] = [], expertsLayout: ExpertsLayout = .rows
    ) {
        self.name = name
        self.className = className
        self.kind = kind
        self.role = role
        self.parameters = parameters
        self.buffers = buffers
        self.children = children
        self.expertsLayout = expertsLayout
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
    /// What makes the inputs that each layer has of its own.
    case perLayerEmbedding, perLayerModelProjection, perLayerInputNorm
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
    case query, key, value, queryKeyValue, attentionOutput, queryNorm, keyNorm, valueNorm, relativeBias

    // Recurrent mixers
    case recurrence
    /// Projections of the mixer's input; there may be several.
    case mixerInput
    case convolution, mixerNorm, mixerOutput

    // Inside a feed-forward
    case gate, up, gateUp, down, router, experts, sharedExpert, sharedExpertGate
    /// Where router and experts read norms of their own: those norms, and the norms of what experts and shared expert give.
    case routerNorm, expertsNorm, expertsOutputNorm, sharedExpertOutputNorm
    /// The projections before and behind experts of another width than the model's.
    case latentInput, latentOutput
    /// A module whose parameter `scale` multiplies the router's input, and `per_expert_scale` its weights.
    case routerScales

    // A block's own input
    case perLayerGate, perLayerProjection, perLayerOutputNorm
}
