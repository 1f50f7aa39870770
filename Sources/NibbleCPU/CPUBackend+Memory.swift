internal import CNibbleCPU
public import NibbleCore

extension CPUBackend {
    public func allocate(_ dtype: DType, _ shape: Shape) throws -> Tensor {
        guard let byteCount = CPUBackend.byteCount(dtype, shape) else {
            throw BackendError.outOfMemory(device: .cpu, requested: Int.max, available: budget.limit)
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

    public func copy(_ source: Tensor, to destination: Tensor) throws {
        guard source.device == .cpu, destination.device == .cpu else {
            throw BackendError.unsupported(
                device: .cpu, operation: "copy", reason: "\(source.device) to \(destination.device) is the other device's work")
        }
        precondition(source.byteCount == destination.byteCount, "copy of \(source) to \(destination)")
        destination.mutableHostBytes.copyMemory(from: source.hostBytes)
    }

    public func read(_ source: Tensor, into destination: UnsafeMutableRawBufferPointer) throws {
        precondition(source.byteCount <= destination.count, "read of \(source) into \(destination.count) bytes")
        destination.copyMemory(from: source.hostBytes)
    }

    public func reserve(_ workspace: WorkspaceRequest) throws {
        let threads = pool.threadCount
        let sampling = nibble_select_floats(workspace.vocabulary) * MemoryLayout<Float>.size * threads
        try pool.exclusively { _ = try operationWork.bytes(max(sampling, attentionBytes(workspace))) }
    }
}
