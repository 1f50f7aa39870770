internal import CNibbleCPU
package import NibbleCore

extension Norm {
    var kernelArguments: nibble_norm {
        nibble_norm(weight: weight?.floats, bias: bias?.floats, epsilon: epsilon, is_layer: kind == .layer ? 1 : 0)
    }

    /// The number of elements normalized together, if a weight or bias gives it.
    var weightCount: Int? { weight?.count ?? bias?.count }
}

extension CPUBackend {
    package func normalize(_ input: Tensor, _ norm: Norm, residual: Tensor?, into output: Tensor) throws {
        let width = norm.weightCount ?? input.shape.last
        precondition(
            input.count == output.count && width > 0 && input.shape.last % width == 0,
            "normalization of \(input) in runs of \(width) into \(output)")
        precondition(residual.map { $0.count == output.count } ?? true, "a residual of another size than \(output)")
        let arguments = nibble_normalize_arguments(
            kernels: pool.kernels, input: input.floats, residual: residual?.floats, out: output.mutableFloats, width: width,
            norm: norm.kernelArguments)
        pool.run(
            count: input.count / width, grain: ThreadPool.grain(elementsPerItem: width), arguments, nibble_normalize_task)
    }
}
