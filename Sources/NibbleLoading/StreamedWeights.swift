import Foundation
package import NibbleCore
import NibbleModels

/// Two buffers on a device that blocks from the disk pass through: while one block runs, the next is uploaded.
///
/// Weights are views of these buffers at addresses that never change. Sessions on several threads take turns, block by block.
package final class StreamBuffers: @unchecked Sendable {
    private let device: any Uploads
    private let blocks: [BlockUpload]
    private let locks = [NSLock(), NSLock()]
    /// The block whose weights a buffer holds. Guarded by the buffer's lock.
    private var holders: [Int?] = [nil, nil]

    /// One block's weights on their way to the device.
    package struct BlockUpload {
        var files: MappedWeights
        var copies: [(source: Tensor, destination: Tensor)]
        /// The block that runs after this one; after the last of a stack, its first.
        var next: Int

        package init(files: MappedWeights, copies: [(source: Tensor, destination: Tensor)], next: Int) {
            self.files = files
            self.copies = copies
            self.next = next
        }
    }

    package static let count = 2

    /// - Parameter blocks: block i's destinations lie in buffer i mod 2.
    package init(_ blocks: [BlockUpload], device: any Uploads) {
        self.blocks = blocks
        self.device = device
    }

    package func prefetch(_ index: Int) { blocks[index].files.prefetch() }

    /// Waits until the block's weights are on the device, and keeps them there until ``release(_:)``.
    /// - Throws: `BackendError`; then nothing is kept.
    package func acquire(_ index: Int) throws {
        let slot = index % StreamBuffers.count
        locks[slot].lock()
        do {
            try fill(index)
            try device.acquire(slot)
        } catch {
            locks[slot].unlock()
            throw error
        }
    }

    package func release(_ index: Int) {
        let slot = index % StreamBuffers.count
        // If the device cannot mark the end of the block's work, the buffer counts as empty and is filled again.
        if (try? device.release(slot)) == nil { holders[slot] = nil }
        locks[slot].unlock()
        fillAhead(blocks[index].next)
    }

    /// Uploads the block that is needed next, unless another session uses its buffer. A failure is ignored here: it comes
    /// again where the block is needed.
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
        try device.fill(slot, block.copies)
        holders[slot] = index
        block.files.release()
    }
}

/// The weights of one block that passes through ``StreamBuffers``.
struct StreamedWeights: WeightStream {
    let buffers: StreamBuffers
    let index: Int

    func prefetch() { buffers.prefetch(index) }
    func acquire() throws { try buffers.acquire(index) }
    func release() { buffers.release(index) }
}

/// Offsets of tensors that lie one after the other in a buffer on a device.
package struct StreamLayout {
    package private(set) var byteCount = 0
    package private(set) var offsets: [Int] = []

    /// Kernels load whole vectors.
    package static let alignment = 256

    package init() {}

    package mutating func add(_ tensor: Tensor) {
        offsets.append(byteCount)
        byteCount += (tensor.byteCount + StreamLayout.alignment - 1) / StreamLayout.alignment * StreamLayout.alignment
    }
}
