internal import CNibbleCUDA
package import NibbleCore

extension CUDABackend {
    package func makeDeferredRead(byteCount: Int) throws -> any DeferredRead {
        try CUDADeferredRead(self, byteCount: byteCount)
    }
}

/// A read into page-locked memory, and an event behind it.
private final class CUDADeferredRead: DeferredRead {
    private let backend: CUDABackend
    private let memory: PinnedMemory
    private let event: CUDAEvent
    private var count = 0

    init(_ backend: CUDABackend, byteCount: Int) throws {
        self.backend = backend
        memory = try PinnedMemory(backend.context, byteCount: byteCount)
        event = try CUDAEvent(backend.context)
    }

    func begin(_ source: Tensor) throws {
        precondition(source.byteCount <= memory.bytes.count, "\(source) does not fit \(memory.bytes.count) bytes")
        count = source.byteCount
        try backend.perform {
            try backend.requireNoCapture("a read")
            backend.allowsOverlap = false
            try check(
                nibble_cuMemcpyDtoHAsync(memory.bytes.baseAddress, source.pointer, count, backend.stream.handle),
                "cuMemcpyDtoHAsync", on: backend.device)
            try event.record(on: backend.stream)
        }
    }

    func wait() throws -> UnsafeRawBufferPointer {
        try event.synchronize()
        return UnsafeRawBufferPointer(rebasing: memory.bytes[..<count])
    }
}
