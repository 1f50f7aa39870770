internal import CNibbleCUDA
internal import NibbleCore
internal import Synchronization

/// A backend's memory on its GPU: the pool, and the tensors made from it.
///
/// Freed memory may be handed out again at once: everything runs in one stream, so its next user runs after the last one.
final class DeviceMemory: @unchecked Sendable {
    let context: CUDAContext
    let device: Device
    private let pool: Mutex<PoolAllocator>

    init(_ context: CUDAContext, device: Device, budget: Int) {
        self.context = context
        self.device = device
        pool = Mutex(PoolAllocator(budget: budget))
    }

    var budget: Int { pool.withLock { $0.budget } }
    var used: Int { pool.withLock { $0.used } }
    var peak: Int { pool.withLock { $0.peak } }

    /// - Throws: ``BackendError/outOfMemory(device:requested:available:budget:)``
    func allocate(byteCount: Int) throws -> Storage {
        let address: UInt
        do {
            address = try pool.withLock { pool in
                try pool.allocate(byteCount, take: { try take($0) }, giveBack: giveBack)
            }
        } catch PoolAllocator.Failure.exceedsBudget(let available) {
            throw BackendError.outOfMemory(device: device, requested: byteCount, available: available, budget: budget)
        } catch PoolAllocator.Failure.deviceFull(let available) {
            throw BackendError.outOfMemory(device: device, requested: byteCount, available: available + freeOnDevice())
        }
        return Storage(device: device, byteCount: byteCount, address: address) { [self] address in
            pool.withLock { $0.free(address) }
        }
    }

    /// Reserves a segment of this size in advance, if the device has one.
    func expect(_ byteCount: Int) throws {
        try pool.withLock { pool in try pool.expect(byteCount) { try take($0) } }
    }

    func allocate(_ dtype: DType, _ shape: Shape) throws -> Tensor {
        let (byteCount, overflow) = shape.count.multipliedReportingOverflow(by: dtype.byteCount)
        guard !overflow else { throw BackendError.outOfMemory(device: device, requested: .max, available: nil) }
        return Tensor(storage: try allocate(byteCount: byteCount), dtype: dtype, shape: shape)
    }

    private func take(_ size: Int) throws -> UInt? {
        try context.makeCurrent()
        var address: NibbleDevicePointer = 0
        let status = nibble_cuMemAlloc(&address, size)
        if status == Int32(NIBBLE_CUDA_OUT_OF_MEMORY) { return nil }
        try check(status, "cuMemAlloc", on: device)
        return UInt(address)
    }

    private func giveBack(_ address: UInt) {
        try? context.makeCurrent()
        _ = nibble_cuMemFree(UInt64(address))
    }

    private func freeOnDevice() -> Int {
        var free = 0
        var total = 0
        guard (try? context.makeCurrent()) != nil, nibble_cuMemGetInfo(&free, &total) == 0 else { return 0 }
        return free
    }

    deinit { pool.withLock { $0.releaseAll(giveBack) } }
}
