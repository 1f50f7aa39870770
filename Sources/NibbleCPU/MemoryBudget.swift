internal import CNibbleCPU
internal import NibbleCore
internal import Synchronization

/// Counts live allocations against an optional limit.
final class MemoryBudget: Sendable {
    let device: Device
    let limit: Int?
    private let used = Atomic<Int>(0)
    private let peak = Atomic<Int>(0)

    init(limit: Int?, of device: Device = .cpu) {
        self.limit = limit
        self.device = device
    }

    var usedBytes: Int { used.load(ordering: .relaxed) }
    var peakBytes: Int { peak.load(ordering: .relaxed) }

    func storage(byteCount: Int) throws -> Storage {
        try claim(byteCount)
        guard let memory = nibble_allocate(max(byteCount, 1)) else {
            release(byteCount)
            throw BackendError.outOfMemory(device: device, requested: byteCount, available: nil)
        }
        return Storage(
            device: device, byteCount: byteCount, address: UInt(bitPattern: memory), isHostMemory: true
        ) { [self] address in
            nibble_free(UnsafeMutableRawPointer(bitPattern: address))
            release(byteCount)
        }
    }

    private func claim(_ byteCount: Int) throws {
        let (before, after) = used.add(byteCount, ordering: .relaxed)
        if let limit, after > limit {
            release(byteCount)
            throw BackendError.outOfMemory(
                device: device, requested: byteCount, available: max(limit - before, 0), budget: limit)
        }
        peak.max(after, ordering: .relaxed)
    }

    private func release(_ byteCount: Int) { used.subtract(byteCount, ordering: .relaxed) }
}

/// Scratch memory of one kind of operation: grows to the largest size asked for and is kept. To be used inside
/// ``ThreadPool/exclusively(_:)`` only.
final class GrowingBuffer: @unchecked Sendable {
    private let budget: MemoryBudget
    private var storage: Storage?

    init(budget: MemoryBudget) { self.budget = budget }

    /// At least `byteCount` uninitialized bytes, aligned to a cache line. Invalidates what earlier calls returned.
    func bytes(_ byteCount: Int) throws -> UnsafeMutableRawPointer {
        guard let memory = UnsafeMutableRawPointer(bitPattern: try storage(byteCount).address) else {
            throw BackendError.outOfMemory(device: budget.device, requested: byteCount, available: nil)
        }
        return memory
    }

    /// The same, for views as tensors.
    func storage(_ byteCount: Int) throws -> Storage {
        if let storage, storage.byteCount >= byteCount { return storage }
        storage = nil
        let grown = try budget.storage(byteCount: byteCount)
        storage = grown
        return grown
    }
}
