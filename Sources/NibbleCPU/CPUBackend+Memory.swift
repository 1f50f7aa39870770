internal import CNibbleCPU
package import NibbleCore

extension CPUBackend {
    package func allocate(_ dtype: DType, _ shape: Shape) throws -> Tensor {
        guard let byteCount = CPUBackend.byteCount(dtype, shape) else {
            throw BackendError.outOfMemory(device: device, requested: Int.max, available: budget.limit)
        }
        return Tensor(storage: try budget.storage(byteCount: byteCount), dtype: dtype, shape: shape)
    }

    /// `nil` when an extent is negative or the product overflows.
    private static func byteCount(_ dtype: DType, _ shape: Shape) -> Int? {
        var bytes = dtype.byteCount
        for axis in 0..<shape.rank {
            let (product, overflow) = bytes.multipliedReportingOverflow(by: shape[axis])
            guard shape[axis] >= 0, !overflow else { return nil }
            bytes = product
        }
        return bytes
    }

    package func copy(_ source: Tensor, to destination: Tensor) throws {
        guard source.storage.isHostMemory, destination.storage.isHostMemory else {
            throw BackendError.unsupported(
                device: device, operation: "copy", reason: "\(source.device) to \(destination.device) is the other device's work")
        }
        precondition(source.byteCount == destination.byteCount, "copy of \(source) to \(destination)")
        guard source.byteCount > 0 else { return }
        destination.mutablePointer.copyMemory(from: source.pointer, byteCount: source.byteCount)
    }

    package func read(_ source: Tensor, into destination: UnsafeMutableRawBufferPointer) throws {
        precondition(source.byteCount <= destination.count, "read of \(source) into \(destination.count) bytes")
        destination.copyMemory(from: UnsafeRawBufferPointer(start: source.pointer, count: source.byteCount))
    }
}
