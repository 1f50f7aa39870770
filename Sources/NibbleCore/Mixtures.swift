// The products of sparse mixtures of experts. Letters: T tokens, X experts, k experts of a token, E model width, F hidden width
// of an expert.

package import Synchronization

/// How the halves g and u of a gated layer's hidden activations become one.
package enum GateActivation: Sendable, Hashable {
    /// activation(g) · u
    case product(Activation)
    /// (u′ + 1) · g′ · σ(alpha · g′) with g′ = min(g, limit) and u′ = u clamped to ±limit (gpt-oss).
    case clampedGLU(limit: Float, alpha: Float)
}

/// What an expert computes between its projections.
package enum ExpertActivation: Sendable, Hashable {
    /// down(gate activation(gate x, up x))
    case gated(GateActivation)
    /// down(activation(up x)), without a gate (Nemotron 3).
    case plain(Activation)
}

/// One expert of a mixture, see ``ExpertActivation``. Its linear layers may have biases.
package struct Expert: Sendable {
    /// gate and up side by side: [2F, E] in one or two layers. Up alone, [F, E], in an expert without a gate.
    package var gateUp: LinearGroup
    package var down: Linear

    package init(gateUp: LinearGroup, down: Linear) {
        self.gateUp = gateUp
        self.down = down
    }
}

/// The experts of a layer, and what a backend keeps with them.
package final class ExpertSet: Sendable {
    package let experts: [Expert]
    /// A backend's table of the weights' addresses, made when the experts first run.
    package let deviceTable = Mutex<(any Sendable)?>(nil)

    package init(_ experts: [Expert]) { self.experts = experts }
}

/// Σ over j of weights[t, j] × expert ids[t, j] (x[t]), added to `residual` where given.
package struct ExpertsCall: Sendable {
    /// int32 [T, k]: different experts in a row, as ``Backend/route(_:ids:weights:)`` writes them.
    package var ids: Tensor
    /// float32 [T, k]
    package var weights: Tensor
    package var expertSet: ExpertSet
    package var activation: ExpertActivation
    /// [T, E]
    package var residual: Tensor?
    /// As in ``LinearEpilogue``, for the linear layers of the experts.
    package var adapters: AdapterRows?

    package var experts: [Expert] { expertSet.experts }
    /// ``adapters``, unless no adapter that is loaded changes an expert.
    package var usedAdapters: AdapterRows? {
        experts.contains { $0.gateUp.hasLowRank || $0.down.lowRank != nil } ? adapters : nil
    }
    /// k
    package var topK: Int { ids.shape.last }

    package init(
        ids: Tensor, weights: Tensor, experts: ExpertSet, activation: ExpertActivation, residual: Tensor?,
        adapters: AdapterRows? = nil
    ) {
        self.ids = ids
        self.weights = weights
        expertSet = experts
        self.activation = activation
        self.residual = residual
        self.adapters = adapters
    }
}
