public import NibbleCore

extension CPUBackend {
    public func linear(_ input: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor) throws {
        fatalError("not yet")
    }

    public func experts(_ input: Tensor, _ call: ExpertsCall, into output: Tensor) throws { fatalError("not yet") }
}
