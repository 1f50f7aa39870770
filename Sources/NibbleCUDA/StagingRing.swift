internal import CNibbleCUDA
internal import Dispatch
internal import NibbleCore

/// Copies host memory to the GPU through page-locked slots, so that the host copies into one while the GPU reads another
/// and the caller may reuse its memory at once.
final class StagingRing: @unchecked Sendable {
    static let slotSize = 16 << 20
    static let slotCount = 3

    private struct Slot {
        let memory: PinnedMemory
        /// Recorded when the slot was left.
        let event: CUDAEvent
        var isPending = false
    }

    private let stream: CUDAStream
    private var slots: [Slot] = []
    private var current = 0
    /// Where the next copy begins in the current slot.
    private var cursor = 0

    init(_ stream: CUDAStream) { self.stream = stream }

    /// Enqueues the copy; `source` may change when this returns.
    func copy(_ source: UnsafeRawBufferPointer, to address: UInt) throws {
        if slots.isEmpty { slots = try [makeSlot()] }
        var done = 0
        while done < source.count {
            if cursor >= StagingRing.slotSize { try advance() }
            let count = min(source.count - done, StagingRing.slotSize - cursor)
            let part = UnsafeRawBufferPointer(rebasing: source[done..<done + count])
            let target = UnsafeMutableRawBufferPointer(rebasing: slots[current].memory.bytes[cursor..<cursor + count])
            StagingRing.copy(part, to: target)
            try check(
                nibble_cuMemcpyHtoDAsync(UInt64(address) + UInt64(done), target.baseAddress, count, stream.handle),
                "cuMemcpyHtoDAsync", on: stream.context.device)
            done += count
            cursor += (count + 255) & ~255
        }
    }

    private func makeSlot() throws -> Slot {
        Slot(
            memory: try PinnedMemory(stream.context, byteCount: StagingRing.slotSize), event: try CUDAEvent(stream.context))
    }

    /// Goes to the next slot, once the GPU has read it; slots are made as they are needed.
    private func advance() throws {
        try slots[current].event.record(on: stream)
        slots[current].isPending = true
        if slots.count < StagingRing.slotCount {
            slots.append(try makeSlot())
            current = slots.count - 1
        } else {
            current = (current + 1) % slots.count
            if slots[current].isPending { try slots[current].event.synchronize() }
        }
        slots[current].isPending = false
        cursor = 0
    }

    /// Large copies come from mapped files, where page faults cost more than the copy: several threads share them.
    private static func copy(_ source: UnsafeRawBufferPointer, to target: UnsafeMutableRawBufferPointer) {
        let piece = 2 << 20
        guard source.count >= 2 * piece else { return target.copyMemory(from: source) }
        let pieces = (source.count + piece - 1) / piece
        nonisolated(unsafe) let source = source
        nonisolated(unsafe) let target = target
        DispatchQueue.concurrentPerform(iterations: pieces) { index in
            let range = index * piece..<min((index + 1) * piece, source.count)
            UnsafeMutableRawBufferPointer(rebasing: target[range]).copyMemory(
                from: UnsafeRawBufferPointer(rebasing: source[range]))
        }
    }
}
