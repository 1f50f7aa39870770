// The arguments of the operations of recurrent mixers. Letters: T tokens of the call, R rows, C channels of a convolution,
// H heads, K key size, V value size, P head size and N state size of Mamba 2, G groups.
//
// A row has tokens at positions start ..< end, where end is its entry of `BatchIndices.lengths`. It begins from the state in the
// block of position start − 1, or from zeros where start is 0, and leaves its state in the block of position end − 1. The two
// may be the same block; `BatchIndices.blockTable` is the table of the states. A row without tokens leaves all states as they are.

/// The states of one layer's recurrent mixer: an entry for each physical block of a table of states.
package struct RecurrentState: Sendable {
    /// float32 [blocks, C, k − 1]: the last inputs of the convolution, the oldest first.
    package let inputs: Tensor
    /// float32 [blocks, H, K, V] of the gated delta rule, [blocks, H, P, N] of Mamba 2; `nil` for a convolution alone.
    package let matrix: Tensor?

    package init(inputs: Tensor, matrix: Tensor? = nil) {
        self.inputs = inputs
        self.matrix = matrix
    }
}

/// Columns of a tensor [T, W]: a float dtype, from column `first` on.
package struct Columns: Sendable {
    package var tensor: Tensor
    package var first: Int

    package init(_ tensor: Tensor, first: Int = 0) {
        self.tensor = tensor
        self.first = first
    }
}

/// A causal depthwise convolution along each row:
/// out[t, c] = activation(bias[c] + Σ_j weight[c, j] · x[t − k + 1 + j, c]) (× output gate), where x is the input (× input
/// gate), and the state's inputs before the row's first token of the call.
package struct ConvolutionCall: Sendable {
    /// Columns of `input` where x begins; C of them.
    package var input: Columns
    /// float32 [C, k] with k of 2 ... 8
    package var weight: Tensor
    /// float32 [C]
    package var bias: Tensor?
    package var activation: Activation
    package var state: RecurrentState
    /// First column of the factors of x in the input's tensor (LFM2).
    package var inputGate: Int?
    /// First column of the factors of the result in the input's tensor (LFM2).
    package var outputGate: Int?

    package init(
        input: Columns, weight: Tensor, bias: Tensor? = nil, activation: Activation, state: RecurrentState,
        inputGate: Int? = nil, outputGate: Int? = nil
    ) {
        self.input = input
        self.weight = weight
        self.bias = bias
        self.activation = activation
        self.state = state
        self.inputGate = inputGate
        self.outputGate = outputGate
    }
}

/// The gated delta rule (arXiv 2412.06464). For every value head, with key head h / (value heads / key heads):
/// S ← e^g S, S ← S + k ⊗ β(v − Sᵀk), out = Sᵀq, where β = σ(b), g = −exp(rate) · softplus(a + timeBias), and q and k are
/// divided by √(Σx² + 1e-6) and q by √K.
package struct GatedDeltaCall: Sendable {
    /// Convolved queries, keys and values: [T, 2·Hk·K + Hv·V].
    package var mixed: Tensor
    /// Hv columns each
    package var a: Columns
    package var b: Columns
    /// float32 [Hv]: the logarithm of the decay's rate (`A_log`).
    package var rate: Tensor
    /// float32 [Hv] (`dt_bias`)
    package var timeBias: Tensor
    package var keyHeads: Int
    /// A multiple of `keyHeads`.
    package var valueHeads: Int
    /// K, at most 256
    package var keySize: Int
    /// V, at most 256
    package var valueSize: Int
    package var state: RecurrentState

    package init(
        mixed: Tensor, a: Columns, b: Columns, rate: Tensor, timeBias: Tensor, keyHeads: Int, valueHeads: Int, keySize: Int,
        valueSize: Int, state: RecurrentState
    ) {
        self.mixed = mixed
        self.a = a
        self.b = b
        self.rate = rate
        self.timeBias = timeBias
        self.keyHeads = keyHeads
        self.valueHeads = valueHeads
        self.keySize = keySize
        self.valueSize = valueSize
        self.state = state
    }
}

/// The state space model of Mamba 2 (arXiv 2405.21060). For every head, with group h / (H / G):
/// S ← exp(−exp(rate) · dt) S + dt · x ⊗ B, out = S·C + skip · x, where dt = softplus(timeScale · dt + timeBias), limited to
/// `timeLimits`.
package struct StateSpaceCall: Sendable {
    /// Convolved x, B and C: [T, H·P + 2·G·N].
    package var mixed: Tensor
    /// H columns
    package var dt: Columns
    /// float32 [H]: the logarithm of the decay's rate (`A_log`).
    package var rate: Tensor
    /// float32 [H] (`dt_bias`)
    package var timeBias: Tensor
    /// float32 [H] (`D`)
    package var skip: Tensor
    /// A multiple of `groups`.
    package var heads: Int
    /// P, at most 256
    package var headSize: Int
    package var groups: Int
    /// N, at most 256
    package var stateSize: Int
    package var timeLimits: ClosedRange<Float>
    package var timeScale: Float
    package var state: RecurrentState

    package init(
        mixed: Tensor, dt: Columns, rate: Tensor, timeBias: Tensor, skip: Tensor, heads: Int, headSize: Int, groups: Int,
        stateSize: Int, timeLimits: ClosedRange<Float> = 0...Float.infinity, timeScale: Float = 1, state: RecurrentState
    ) {
        self.mixed = mixed
        self.dt = dt
        self.rate = rate
        self.timeBias = timeBias
        self.skip = skip
        self.heads = heads
        self.headSize = headSize
        self.groups = groups
        self.stateSize = stateSize
        self.timeLimits = timeLimits
        self.timeScale = timeScale
        self.state = state
    }
}

/// norm(x) · activation(gateScale · gate), or norm(x · activation(gateScale · gate)), over runs of a token's elements: heads, groups, or all of them.
package struct GatedNormCall: Sendable {
    /// [T, W]; the output may be the same tensor.
    package var input: Tensor
    /// [T, any width]
    package var gate: Tensor
    /// Where the gate of each run lies in a row of `gate`; D is `runWidth`.
    package var gateLayout: QueryKeyValueLayout.HeadOffsets
    /// Its weight and bias have `runWidth` elements, for every run, or W. `nil`: only the product.
    package var norm: Norm?
    /// A divisor of W.
    package var runWidth: Int
    /// Whether the gate is applied before the norm (Mamba 2).
    package var gateFirst: Bool
    package var gateActivation: Activation
    package var gateScale: Float

    package init(
        input: Tensor, gate: Tensor, gateLayout: QueryKeyValueLayout.HeadOffsets, norm: Norm?, runWidth: Int,
        gateFirst: Bool = false, gateActivation: Activation, gateScale: Float = 1
    ) {
        self.input = input
        self.gate = gate
        self.gateLayout = gateLayout
        self.norm = norm
        self.runWidth = runWidth
        self.gateFirst = gateFirst
        self.gateActivation = gateActivation
        self.gateScale = gateScale
    }
}
