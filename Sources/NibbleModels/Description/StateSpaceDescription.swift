package import NibbleCore

/// Mamba 2 (arXiv 2405.21060): one projection to the gate z, to x, B and C, and to the time step of each head; a convolution over
/// x | B | C; the state space model; a gated norm.
package struct StateSpaceDescription: Sendable {
    /// H
    package var heads: Int
    /// P
    package var headSize: Int
    /// G, a divisor of H: groups of heads with the same B and C.
    package var groups: Int
    /// N
    package var stateSize: Int
    /// k of the convolution
    package var kernel: Int
    /// After the convolution.
    package var activation: Activation
    /// Bounds of time steps.
    package var timeLimits: ClosedRange<Float> = 0...Float.infinity
    /// Whether the heads of each group are normalized together; else the result is only multiplied by silu(z).
    package var hasNorm = true
    /// Whether the gate is applied before the norm.
    package var gatesFirst = true
    package var multipliers = Multipliers()
    /// The output projection's result is multiplied by this.
    package var outputScale: Float = 1

    /// Factors of the parts of the input projection's output (Falcon-H1).
    package struct Multipliers: Sendable, Hashable {
        package var gate: Float = 1
        package var input: Float = 1
        package var b: Float = 1
        package var c: Float = 1
        package var time: Float = 1
    }

    package init(heads: Int, headSize: Int, groups: Int, stateSize: Int, kernel: Int, activation: Activation) {
        self.heads = heads
        self.headSize = headSize
        self.groups = groups
        self.stateSize = stateSize
        self.kernel = kernel
        self.activation = activation
    }

    /// Of x, z and the result.
    var width: Int { heads * headSize }
    /// C: x, B and C.
    var channels: Int { width + 2 * groups * stateSize }
}
