/// A linear layer: y = x · Wᵀ + b.
package struct Linear: Sendable {
    /// The module's full name in the checkpoint, for errors and reports.
    package let name: String
    package let weight: LinearWeight
    /// float32 [N]
    package let bias: Tensor?
    package let arithmetic: LinearArithmetic
    /// Where adapters put their sums.
    package let lowRankPlace: LowRankPlace

    package init(
        name: String, weight: LinearWeight, bias: Tensor? = nil, arithmetic: LinearArithmetic = .init(),
        lowRankPlace: LowRankPlace = LowRankPlace()
    ) {
        self.name = name
        self.weight = weight
        self.bias = bias
        self.arithmetic = arithmetic
        self.lowRankPlace = lowRankPlace
    }

    /// The sums of the adapters that are loaded now.
    package var lowRank: LowRank? { lowRankPlace.lowRank }

    package var outFeatures: Int { weight.outFeatures }
    package var inFeatures: Int { weight.inFeatures }
}

/// How a quantized product is computed, apart from how its weight is stored.
package struct LinearArithmetic: Sendable, Hashable {
    /// 4-bit layers: the dtype that activations and dequantized weights are rounded to before they are multiplied. Sums are
    /// always float32. `nil`: the activations' dtype.
    package var computeDType: DType?
    /// 4-bit layers on float32 activations without a compute dtype: whether products may have float16's precision (with
    /// float32's range), because the weights were stored in 16 bits.
    package var allowsHalfPrecision: Bool
    /// int8 layers: columns of the input with |x| ≥ threshold are multiplied in floating point. 0 turns it off.
    package var outlierThreshold: Float
    /// int8 layers: whether outlier columns are found for each token, or over the whole call as bitsandbytes does.
    package var outlierScope: OutlierScope
    /// int8 layers: whether activations are rounded to float16 before their absmax is taken, as bitsandbytes does.
    package var roundsActivationsToHalf: Bool
    /// 4-bit layers: whether activations may be quantized to int8. Changes results beyond rounding.
    package var allowsInt8Activations: Bool

    package enum OutlierScope: Sendable, Hashable {
        case token, call
    }

    package init(
        computeDType: DType? = nil, allowsHalfPrecision: Bool = false, outlierThreshold: Float = 6,
        outlierScope: OutlierScope = .token,
        roundsActivationsToHalf: Bool = false, allowsInt8Activations: Bool = false
    ) {
        self.computeDType = computeDType
        self.allowsHalfPrecision = allowsHalfPrecision
        self.outlierThreshold = outlierThreshold
        self.outlierScope = outlierScope
        self.roundsActivationsToHalf = roundsActivationsToHalf
        self.allowsInt8Activations = allowsInt8Activations
    }
}

/// Linear layers that read the same input. Their outputs stand side by side: [T, N₀ + N₁ + …].
///
/// Query, key and value, or gate and up, go through the backend in one call, so that the input is read and quantized once.
package struct LinearGroup: Sendable {
    package let layers: [Linear]
    /// ΣN
    package let outFeatures: Int
    /// K
    package let inFeatures: Int

    /// - Precondition: at least one layer, all with the same K.
    package init(_ layers: [Linear]) {
        precondition(!layers.isEmpty, "a linear group needs a layer")
        precondition(layers.allSatisfy { $0.inFeatures == layers[0].inFeatures }, "grouped layers read the same input")
        self.layers = layers
        outFeatures = layers.reduce(0) { $0 + $1.outFeatures }
        inFeatures = layers[0].inFeatures
    }
}

/// What is applied to a product before it is stored: `activation(xWᵀ + b + low-rank sums) × scale × rowScale[t] + residual`.
package struct LinearEpilogue: Sendable {
    package var activation: Activation
    package var scale: Float
    /// float32 [T]
    package var rowScale: Tensor?
    /// [T, ΣN]; may be the output itself.
    package var residual: Tensor?
    /// What each token takes of the layers' ``LowRank``; `nil`: nothing.
    package var adapters: AdapterRows?

    package init(
        activation: Activation = .identity, scale: Float = 1, rowScale: Tensor? = nil, residual: Tensor? = nil,
        adapters: AdapterRows? = nil
    ) {
        self.activation = activation
        self.scale = scale
        self.rowScale = rowScale
        self.residual = residual
        self.adapters = adapters
    }
}

/// Pointwise functions.
package enum Activation: Sendable, Hashable {
    case identity
    case relu
    /// max(x, 0)²
    case reluSquared
    /// x · Φ(x), with the error function.
    case gelu
    /// The tanh approximation: ½x(1 + tanh(√(2/π)(x + 0.044715x³))). `gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`, BLOOM's.
    case geluTanh
    /// x · σ(1.702x)
    case quickGelu
    /// x · σ(x), also called swish.
    case silu
    case sigmoid
    case tanh
    /// c · tanh(x / c)
    case softCap(Float)
}
