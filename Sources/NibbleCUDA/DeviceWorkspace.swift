internal import NibbleCore

/// Scratch memory on the device: valid during one operation, then reused by the next.
///
/// It is one block, sized by ``reserve(_:)``. A call that needs more gets an extra allocation, and the block grows before the next
/// call. A graph retains the memory that was handed out while it was recorded.
final class DeviceWorkspace {
    private let memory: DeviceMemory
    private var block: Storage?
    private var offset = 0
    /// The most bytes that a call has asked for.
    private var wanted = 0
    private var extras: [Storage] = []
    /// Memory used by the graph that is being recorded; `nil` if none is.
    private var recorded: [Storage]?

    init(_ memory: DeviceMemory) { self.memory = memory }

    struct Mark {
        fileprivate let offset: Int
    }

    /// Everything taken after this is given back by ``release(_:)``.
    func mark() -> Mark { Mark(offset: offset) }

    func release(_ mark: Mark) {
        offset = mark.offset
        if offset == 0, !extras.isEmpty { extras.removeAll(keepingCapacity: true) }
    }

    func take(_ byteCount: Int) throws -> UInt {
        if offset == 0, recorded == nil, wanted > (block?.byteCount ?? 0) { try reserve(wanted) }
        let start = offset
        offset += PoolAllocator.rounded(byteCount)
        wanted = max(wanted, offset)
        if let block, offset <= block.byteCount { return block.address + UInt(start) }
        let extra = try memory.allocate(byteCount: byteCount)
        extras.append(extra)
        recorded?.append(extra)
        return extra.address
    }

    /// Makes the block at least this large. Not while something is taken, nor while a graph is recorded.
    func reserve(_ byteCount: Int) throws {
        guard byteCount > (block?.byteCount ?? 0) else { return }
        block = nil
        block = try memory.allocate(byteCount: byteCount)
        wanted = max(wanted, byteCount)
    }

    func beginRecording() { recorded = block.map { [$0] } ?? [] }

    /// The memory that the graph must retain.
    func endRecording() -> [Storage] {
        defer { recorded = nil }
        return recorded ?? []
    }
}
