import NibbleCore

/// What linear layers read: a tensor, or its norm.
struct LinearInput {
    let tensor: Tensor
    fileprivate let norm: (norm: Norm, scratch: Tensor)?

    init(_ tensor: Tensor) {
        self.tensor = tensor
        norm = nil
    }

    /// - Parameter scratch: takes the norm's result where it has to be stored.
    init(_ tensor: Tensor, after norm: Norm, scratch: Tensor) {
        self.tensor = tensor
        self.norm = (norm, scratch)
    }

    /// T
    var tokens: Int { tensor.shape[0] }

    /// For what is more than one product.
    func materialized(_ backend: any Backend) throws -> Tensor {
        guard let norm else { return tensor }
        try backend.normalize(tensor, norm.norm, residual: nil, into: norm.scratch)
        return norm.scratch
    }
}

extension Backend {
    func linear(_ input: LinearInput, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor) throws {
        if let norm = input.norm {
            try linear(input.tensor, after: norm.norm, scratch: norm.scratch, group, epilogue: epilogue, into: output)
        } else {
            try linear(input.tensor, group, epilogue: epilogue, into: output)
        }
    }
}
