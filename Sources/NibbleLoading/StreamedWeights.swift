import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleModels

/// Two pieces of a device's memory that blocks from the disk pass through: while one block runs, the next is brought in.
///
/// Weights are views of these pieces at places that never change. Sessions on several threads take turns, block by block.
final class StreamBuffers: @unchecked Sendable {
    private let uploads: any Uploads
    private let blocks: [BlockUpload]
    private let locks = [NSLock(), NSLock()]
    /// The block whose weights a piece holds. Guarded by the piece's lock.
    private var holders: [Int?] = [nil, nil]

    struct BlockUpload {
        var files: MappedWeights
        var copies: [(source: Tensor, destination: Tensor)]
        /// The block that runs after this one, the stack's first after its last.
        var next: Int
    }

    static let count = 2

    /// - Parameter blocks: block i's destinations lie in piece i mod 2.
    init(_ blocks: [BlockUpload], uploads: any Uploads) {
        self.blocks = blocks
        self.uploads = uploads
    }

    func prefetch(_ index: Int) { blocks[index].files.prefetch() }

    func acquire(_ index: Int) throws {
        let slot = index % StreamBuffers.count
        locks[slot].lock()
        do {
            try fill(index)
            try uploads.acquire(slot)
        } catch {
            locks[slot].unlock()
            throw error
        }
    }

    func release(_ index: Int) {
        let slot = index % StreamBuffers.count
        // Without the mark nobody may take the block for read: it is brought in again.
        if (try? uploads.release(slot)) == nil { holders[slot] = nil }
        locks[slot].unlock()
        fillAhead(blocks[index].next)
    }

    /// Brings in what will be wanted next, unless another session is at it. What fails here fails again where it is needed.
    private func fillAhead(_ index: Int) {
        let slot = index % StreamBuffers.count
        guard locks[slot].try() else { return }
        defer { locks[slot].unlock() }
        try? fill(index)
    }

    private func fill(_ index: Int) throws {
        let slot = index % StreamBuffers.count
        guard holders[slot] != index else { return }
        holders[slot] = nil
        let block = blocks[index]
        blocks[block.next].files.prefetch()
        try uploads.fill(slot, block.copies)
        holders[slot] = index
        block.files.release()
    }
}

/// One block of those.
struct StreamedWeights: WeightStream {
    let buffers: StreamBuffers
    let index: Int

    func prefetch() { buffers.prefetch(index) }
    func acquire() throws { try buffers.acquire(index) }
    func release() { buffers.release(index) }
}

/// Lays tensors out one after the other in a piece of device memory.
struct StreamLayout {
    private(set) var byteCount = 0
    private(set) var places: [(source: Tensor, byteOffset: Int)] = []

    /// Kernels load whole vectors.
    private static let alignment = 256

    mutating func add(_ tensor: Tensor) {
        places.append((tensor, byteCount))
        byteCount += (tensor.byteCount + StreamLayout.alignment - 1) / StreamLayout.alignment * StreamLayout.alignment
    }
}
