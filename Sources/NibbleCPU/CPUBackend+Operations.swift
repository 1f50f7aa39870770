public import NibbleCore

extension CPUBackend {
    public func convert(_ source: Tensor, to destination: Tensor) throws { fatalError("not yet") }
    public func embed(_ call: EmbeddingCall, _ batch: BatchIndices, into output: Tensor) throws { fatalError("not yet") }
    public func normalize(_ input: Tensor, _ norm: Norm, residual: Tensor?, into output: Tensor) throws { fatalError("not yet") }
    public func rotateAndStore(_ call: RotateAndStoreCall, _ batch: BatchIndices) throws { fatalError("not yet") }
    public func attend(_ call: AttentionCall, _ batch: BatchIndices, into output: Tensor) throws { fatalError("not yet") }
    public func gate(_ input: Tensor, _ activation: Activation, into output: Tensor) throws { fatalError("not yet") }
    public func add(_ a: Tensor, _ b: Tensor, scale: Float, into output: Tensor) throws { fatalError("not yet") }
    public func gatherRows(_ input: Tensor, _ indices: Tensor, into output: Tensor) throws { fatalError("not yet") }
    public func copyBlocks(_ cache: KeyValueCache, pairs: Tensor) throws { fatalError("not yet") }
    public func select(_ logits: Tensor, _ parameters: SamplingParameters, counters: Tensor, into tokens: Tensor) throws {
        fatalError("not yet")
    }
    public func advance(_ batch: BatchIndices, tokens: Tensor, counters: Tensor) throws { fatalError("not yet") }
}
