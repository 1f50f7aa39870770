internal import CNibbleCUDA
package import NibbleCore
internal import Synchronization

extension CUDABackend {
    package func allocate(_ dtype: DType, _ shape: Shape) throws -> Tensor {
        try perform { try memory.allocate(dtype, shape) }
    }

    package func expect(_ byteCount: Int) throws {
        try perform { try memory.expect(byteCount) }
    }

    package func copy(_ source: Tensor, to destination: Tensor) throws {
        precondition(source.byteCount == destination.byteCount, "a copy of \(source) to \(destination)")
        guard source.byteCount > 0 else { return }
        switch (owner(of: source), owner(of: destination)) {
        case (nil, nil): destination.mutableHostBytes.copyMemory(from: source.hostBytes)
        case (nil, let target?): try target.write(source.hostBytes, to: destination.address)
        case (let origin?, nil): try origin.read(source, into: destination.mutableHostBytes)
        case (let origin?, let target?): try target.copy(source, from: origin, into: destination)
        }
    }

    package func read(_ source: Tensor, into destination: UnsafeMutableRawBufferPointer) throws {
        precondition(source.byteCount <= destination.count, "\(source) does not fit \(destination.count) bytes")
        guard source.device != .cpu else { return destination.copyMemory(from: source.hostBytes) }
        try perform { try download(source.address, source.byteCount, into: destination) }
    }

    package func synchronize() throws {
        try perform { try stream.synchronize() }
    }

    /// Small reads, such as those of tokens, go through page-locked memory.
    func download(_ address: UInt, _ byteCount: Int, into destination: UnsafeMutableRawBufferPointer) throws {
        try requireNoCapture("a read")
        guard byteCount > 0 else { return try stream.synchronize() }
        let mailbox = try mailbox.get()
        let isSmall = byteCount <= mailbox.bytes.count
        let target = isSmall ? mailbox.bytes.baseAddress : destination.baseAddress
        try check(
            nibble_cuMemcpyDtoHAsync(target, UInt64(address), byteCount, stream.handle), "cuMemcpyDtoHAsync", on: device)
        try stream.synchronize()
        if isSmall { destination.copyMemory(from: UnsafeRawBufferPointer(rebasing: mailbox.bytes[..<byteCount])) }
    }

    /// Enqueues a copy from host memory, which may change when this returns.
    func write(_ bytes: UnsafeRawBufferPointer, to address: UInt) throws {
        try perform {
            try requireNoCapture("a copy from the host")
            allowsOverlap = false
            try staging.copy(bytes, to: address)
        }
    }

    func requireNoCapture(_ operation: String) throws {
        guard isCapturing else { return }
        throw BackendError.unsupported(device: device, operation: operation, reason: "it cannot be part of a captured graph")
    }

    /// The backends of this process, used to find the owner of a tensor.
    struct Reference {
        weak var backend: CUDABackend?
    }
    static let live = Mutex<[Reference]>([])

    /// `nil` for host memory.
    private func owner(of tensor: Tensor) -> CUDABackend? {
        guard tensor.device != .cpu, tensor.device != .disk else { return nil }
        if tensor.device == device { return self }
        return CUDABackend.live.withLock { references in
            references.removeAll { $0.backend == nil }
            return references.last { $0.backend?.device == tensor.device }?.backend
        } ?? self
    }
}
