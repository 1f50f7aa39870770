package import NibbleCore
import Synchronization

/// Names an adapter that is, or was, attached to a model. No two adapters have the same.
package struct AdapterID: Sendable, Hashable, Comparable {
    private let number: Int

    private static let count = Atomic<Int>(0)

    /// One that was never given before.
    package init() { number = AdapterID.count.add(1, ordering: .relaxed).newValue }

    package static func < (first: AdapterID, second: AdapterID) -> Bool { first.number < second.number }
}

/// The adapters that a sequence uses, with the factor of each one's sum: 1 as it was trained. Empty: the base model.
package typealias AdapterWeights = [AdapterID: Float]

/// One adapter's low-rank sum of one linear layer, as its file holds it: y += scale · B · A · x + bias.
package struct LowRankFactors: Sendable {
    /// [r, K] on the host, any float dtype.
    package var a: Tensor
    /// [N, r] on the host, any float dtype.
    package var b: Tensor
    /// α/r or α/√r.
    package var scale: Float
    /// float32 [N]: lora_B.bias × scale.
    package var bias: Tensor?
    /// float32 [N]: DoRA's m/‖W + scale · BA‖. The layer's product, without the layer's bias, and the sum are multiplied by it.
    package var gain: Tensor?

    package init(a: Tensor, b: Tensor, scale: Float, bias: Tensor? = nil, gain: Tensor? = nil) {
        self.a = a
        self.b = b
        self.scale = scale
        self.bias = bias
        self.gain = gain
    }

    /// r
    var rank: Int { a.shape[0] }
}

/// The low-rank sums of one adapter.
package struct LowRankAdapter: Sendable {
    /// For messages.
    package var name: String
    /// By the name of the layer, which is its module path; in a mixture that of a single expert's layer, such as
    /// `model.layers.0.mlp.experts.3.down_proj`.
    package var layers: [String: LowRankFactors]

    package init(name: String, layers: [String: LowRankFactors]) {
        self.name = name
        self.layers = layers
    }
}
