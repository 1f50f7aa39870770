import Synchronization

/// The low-rank sums of one linear layer, of every adapter that is loaded (LoRA, arXiv 2106.09685; DoRA, arXiv 2402.09353).
///
/// The adapters' matrices are stacked along the rank: R is the sum of their ranks, each padded with zeros to a multiple of
/// ``rankUnit``, so that kernels find eight ranks of one adapter at aligned addresses. A row that gives adapter i the weight w_i adds
/// Σ_i w_i · c_i ⊙ (B_i · (s_i ⊙ A_i x) + bias_i) to the product, before the layer's activation, scale and residual. c_i is 1, or
/// DoRA's factor, by which the product itself is multiplied too, without the layer's bias. Sums are float32.
package struct LowRank: Sendable {
    /// [R, K], any float dtype.
    package let a: Tensor
    /// [N, R], any float dtype.
    package let b: Tensor
    /// float32 [R]: α/r or α/√r; 0 for ranks that are padding.
    package let scales: Tensor
    /// int32 [R], ascending: the adapter of each rank.
    package let adapters: Tensor
    /// float32 [adapters, N]: what lora_B adds, already multiplied by the adapter's scale.
    package let biases: Tensor?
    /// float32 [adapters, N]: DoRA's m/‖W + sBA‖; 1 for other adapters.
    package let gains: Tensor?

    package init(a: Tensor, b: Tensor, scales: Tensor, adapters: Tensor, biases: Tensor? = nil, gains: Tensor? = nil) {
        let ranks = a.shape[0]
        precondition(ranks % LowRank.rankUnit == 0 && ranks == b.shape[1] && ranks == scales.count && ranks == adapters.count)
        self.a = a
        self.b = b
        self.scales = scales
        self.adapters = adapters
        self.biases = biases
        self.gains = gains
    }

    /// Ranks that belong to one adapter together.
    package static let rankUnit = 8

    /// R
    package var ranks: Int { a.shape[0] }
}

/// Where a layer's low-rank sums stand. Copies of a ``Linear`` share it, so that adapters can come and go while the model is
/// loaded. Captured graphs hold the addresses of what was there: whoever changes it drops them.
package final class LowRankPlace: Sendable {
    private let content: Mutex<LowRank?>

    package init(_ lowRank: LowRank? = nil) { content = Mutex(lowRank) }

    /// `nil`: no adapter that is loaded changes the layer.
    package var lowRank: LowRank? {
        get { content.withLock { $0 } }
        set { content.withLock { $0 = newValue } }
    }
}

/// What the tokens of a call take of the adapters that are loaded. Both are device buffers, so one captured graph serves rows of
/// any adapters.
package struct AdapterRows: Sendable {
    /// float32 [slots, adapters]; 0: the slot's rows do not use the adapter.
    package let weights: Tensor
    /// int32, at least T: the slot of each token; negative: no adapters. `nil`: slot 0 for all.
    package let slots: Tensor?

    package init(weights: Tensor, slots: Tensor? = nil) {
        self.weights = weights
        self.slots = slots
    }
}

extension LinearGroup {
    /// Whether an adapter changes one of the layers.
    package var hasLowRank: Bool { layers.contains { $0.lowRank != nil } }
}
