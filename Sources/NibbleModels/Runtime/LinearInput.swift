import NibbleCore

/// What linear layers read: a tensor, or what a prologue makes of one.
struct LinearInput {
    let tensor: Tensor
    fileprivate let prologue: (what: LinearPrologue, scratch: Tensor)?

    init(_ tensor: Tensor) {
        self.tensor = tensor
        prologue = nil
    }

    /// - Parameter scratch: takes the prologue's result where it has to be stored.
    init(_ tensor: Tensor, _ prologue: LinearPrologue, scratch: Tensor) {
        self.tensor = tensor
        self.prologue = (prologue, scratch)
    }

    /// T
    var tokens: Int { tensor.shape[0] }

    /// For what is more than one product.
    func materialized(_ backend: any Backend) throws -> Tensor {
        guard let prologue else { return tensor }
        try backend.apply(prologue.what, tensor, into: prologue.scratch)
        return prologue.scratch
    }
}

extension Backend {
    func linear(_ input: LinearInput, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor) throws {
        if let prologue = input.prologue {
            try linear(input.tensor, after: prologue.what, scratch: prologue.scratch, group, epilogue: epilogue, into: output)
        } else {
            try linear(input.tensor, group, epilogue: epilogue, into: output)
        }
    }
}
