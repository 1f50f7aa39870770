import NibbleCore

/// The input of linear layers: activations, or the residual stream with a norm that is still to be applied.
struct LinearInput {
    let tensor: Tensor
    fileprivate let preparation: (norm: Norm?, scratch: Tensor)?

    init(_ tensor: Tensor) {
        self.tensor = tensor
        preparation = nil
    }

    /// - Parameter scratch: the buffer for the activations, where they have to be stored.
    init(_ stream: Tensor, after norm: Norm?, scratch: Tensor) {
        tensor = stream
        preparation = norm == nil && stream.dtype == scratch.dtype ? nil : (norm, scratch)
    }

    /// T
    var tokens: Int { tensor.shape[0] }

    /// The activations in memory, for inputs of more than one product.
    func materialized(_ backend: any Backend) throws -> Tensor {
        guard let preparation else { return tensor }
        try backend.activations(tensor, after: preparation.norm, into: preparation.scratch)
        return preparation.scratch
    }
}

extension Backend {
    /// Chooses experts by a router's logits. Returns the activations in memory.
    func route(
        _ input: LinearInput, through router: LinearGroup, adapters: AdapterRows?, _ call: RouteCall, ids: Tensor, weights: Tensor
    ) throws -> Tensor {
        guard let preparation = input.preparation else {
            try linear(input.tensor, router, epilogue: .init(adapters: adapters), into: call.logits)
            try route(call, ids: ids, weights: weights)
            return input.tensor
        }
        try route(
            input.tensor, after: preparation.norm, scratch: preparation.scratch, through: router, adapters: adapters, call,
            ids: ids, weights: weights)
        return preparation.scratch
    }

    func linear(_ input: LinearInput, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor) throws {
        if let preparation = input.preparation {
            try linear(
                input.tensor, after: preparation.norm, scratch: preparation.scratch, group, epilogue: epilogue, into: output)
        } else {
            try linear(input.tensor, group, epilogue: epilogue, into: output)
        }
    }
}
