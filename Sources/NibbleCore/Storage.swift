/// Memory on one device, freed when the last tensor that uses it goes away.
///
/// The CPU's heap, a mapped file and a GPU's pool each pass their own `release`.
package final class Storage: @unchecked Sendable {
    package let device: Device
    package let byteCount: Int
    /// A host pointer on the CPU, a device pointer on a GPU.
    package let address: UInt
    /// Whether the address is a host pointer. It may be one on another device, too: in tests a CPU stands in for a GPU.
    package let isHostMemory: Bool

    private let release: @Sendable (UInt) -> Void

    /// - Parameter release: called once, with `address`, from `deinit`. Whatever keeps the memory alive (a mapping, a
    ///   pool) is captured by it.
    package init(
        device: Device, byteCount: Int, address: UInt, isHostMemory: Bool? = nil, release: @escaping @Sendable (UInt) -> Void
    ) {
        self.device = device
        self.isHostMemory = isHostMemory ?? (device == .cpu)
        self.byteCount = byteCount
        self.address = address
        self.release = release
    }

    deinit { release(address) }
}

extension Storage {
    /// Alignment of host allocations: a cache line, and the widest vector register.
    package static let hostAlignment = 64

    /// Uninitialised host memory, aligned to ``hostAlignment``.
    package static func host(byteCount: Int) -> Storage {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: max(byteCount, 1), alignment: hostAlignment)
        return Storage(device: .cpu, byteCount: byteCount, address: UInt(bitPattern: memory)) {
            UnsafeMutableRawPointer(bitPattern: $0)?.deallocate()
        }
    }
}
