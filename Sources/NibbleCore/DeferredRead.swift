/// Reads from a device without waiting for what is enqueued afterwards. One read at a time.
package protocol DeferredRead: AnyObject {
    /// Enqueues the read.
    func begin(_ source: Tensor) throws
    /// Waits for the read that was begun last. The bytes are valid until the next one begins.
    func wait() throws -> UnsafeRawBufferPointer
}

/// For a device whose operations have run when they return.
private final class ImmediateRead: DeferredRead {
    private let backend: any Backend
    private let target: Tensor
    private var count = 0

    init(_ backend: any Backend, byteCount: Int) {
        self.backend = backend
        target = .host(.uint8, [byteCount])
    }

    func begin(_ source: Tensor) throws {
        count = source.byteCount
        try backend.read(source, into: target.mutableHostBytes)
    }

    func wait() -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: target.hostBytes[..<count]) }
}

extension Backend {
    package func makeDeferredRead(byteCount: Int) throws -> any DeferredRead {
        ImmediateRead(self, byteCount: byteCount)
    }
}
