internal import CNibbleCUDA
package import NibbleCore

extension CUDABackend {
    package func select(
        _ logits: Tensor, _ state: SelectionState, slots: Tensor, counters: Tensor, into tokens: Tensor
    ) throws {
        throw BackendError.unsupported(device: device, operation: "select", reason: "it has no kernels yet")
    }

    package func scores(_ logits: Tensor, chosen: Tensor, count k: Int, values: Tensor, ids: Tensor) throws {
        throw BackendError.unsupported(device: device, operation: "scores", reason: "it has no kernels yet")
    }
}
