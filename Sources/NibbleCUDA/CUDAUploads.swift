internal import CNibbleCUDA
package import NibbleCore

extension CUDABackend {
    package func makeUploads(slots: Int) throws -> any Uploads { try CUDAUploads(self, slots: slots) }
}

/// Copies from the host on a stream of their own. Events order them with the backend's operations: a slot is filled when its
/// last reader has run, and read when it is filled.
final class CUDAUploads: Uploads, @unchecked Sendable {
    private let backend: CUDABackend
    private let stream: CUDAStream
    private let staging: StagingRing
    private let slots: [Slot]

    private struct Slot {
        let filled: CUDAEvent
        let released: CUDAEvent
    }

    init(_ backend: CUDABackend, slots count: Int) throws {
        self.backend = backend
        stream = try CUDAStream(backend.context)
        staging = StagingRing(stream)
        slots = try (0..<count).map { _ in
            Slot(filled: try CUDAEvent(backend.context), released: try CUDAEvent(backend.context))
        }
    }

    /// The host copies into page-locked memory before this returns; the GPU's part runs beside everything else.
    func fill(_ slot: Int, _ copies: [(source: Tensor, destination: Tensor)]) throws {
        try backend.perform {
            // Waiting for an event that was never recorded returns at once.
            try stream.wait(for: slots[slot].released)
            for copy in copies {
                precondition(copy.source.byteCount == copy.destination.byteCount, "\(copy.source) to \(copy.destination)")
                try staging.copy(copy.source.hostBytes, to: copy.destination.address)
            }
            try slots[slot].filled.record(on: stream)
        }
    }

    func acquire(_ slot: Int) throws {
        try backend.perform {
            try backend.requireNoCapture("an upload of weights")
            backend.allowsOverlap = false
            try backend.stream.wait(for: slots[slot].filled)
        }
    }

    func release(_ slot: Int) throws {
        try backend.perform { try slots[slot].released.record(on: backend.stream) }
    }
}
