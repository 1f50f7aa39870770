/// What a model's steps call on a device, so that only these kernels are made ready ahead of the first one.
package struct KernelRequest: Sendable, Hashable {
    /// Of activations, and of what 4-bit layers multiply.
    package var dtypes: Set<DType>
    /// How the linear layers' weights are stored.
    package var formats: Set<WeightFormat>
    /// D of the attention layers.
    package var headSizes: Set<Int>
    package var hasQuantizedCache = false
    /// Biases by relative position (T5).
    package var hasRelativeBiases = false
    package var hasExperts = false
    package var hasRecurrences = false
    /// K of gated delta nets, N of state space models.
    package var stateSizes: Set<Int> = []

    package init(dtypes: Set<DType>, formats: Set<WeightFormat>, headSizes: Set<Int>) {
        self.dtypes = dtypes
        self.formats = formats
        self.headSizes = headSizes
    }
}
