import Glibc
package import NibbleCore

extension Tensor {
    /// Uninitialised host memory for a tensor that is decoded, used once and thrown away.
    ///
    /// The system gets it back at once. Freed blocks of many sizes would stay with the allocator instead, up to the size of the model.
    package static func decoded(_ dtype: DType, _ shape: Shape) -> Tensor {
        let byteCount = shape.count * dtype.byteCount
        guard byteCount >= 1 << 20, let memory = pages(byteCount) else { return .host(dtype, shape) }
        let storage = Storage(device: .cpu, byteCount: byteCount, address: UInt(bitPattern: memory)) { address in
            munmap(UnsafeMutableRawPointer(bitPattern: address), byteCount)
        }
        return Tensor(storage: storage, dtype: dtype, shape: shape)
    }

    private static func pages(_ byteCount: Int) -> UnsafeMutableRawPointer? {
        let memory = mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let memory, memory != MAP_FAILED else { return nil }
        // Fewer page faults.
        madvise(memory, byteCount, Int32(MADV_HUGEPAGE))
        return memory
    }
}
