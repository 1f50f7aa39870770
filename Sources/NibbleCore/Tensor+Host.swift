/// Access to tensors whose memory the host can read.
extension Tensor {
    /// Uninitialised host memory of this shape.
    package static func host(_ dtype: DType, _ shape: Shape) -> Tensor {
        Tensor(storage: .host(byteCount: shape.count * dtype.byteCount), dtype: dtype, shape: shape)
    }

    /// A host tensor holding a copy of `values`.
    /// - Precondition: `values` has exactly the shape's number of elements, and `Element` the dtype's size.
    public static func host<Element: BitwiseCopyable>(_ values: [Element], _ dtype: DType, _ shape: Shape) -> Tensor {
        precondition(values.count == shape.count && MemoryLayout<Element>.stride == dtype.byteCount)
        let tensor = host(dtype, shape)
        values.withUnsafeBytes { UnsafeMutableRawBufferPointer(mutating: tensor.hostBytes).copyMemory(from: $0) }
        return tensor
    }

    /// The elements' bytes. Valid while the tensor's storage is alive.
    /// - Precondition: the tensor lies on the CPU.
    public var hostBytes: UnsafeRawBufferPointer {
        precondition(device == .cpu, "the bytes of a tensor on \(device) are not on the host")
        return UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: address), count: byteCount)
    }

    /// The elements' bytes, for writing.
    /// - Precondition: the tensor lies on the CPU in memory that may be written (not a mapped file).
    package var mutableHostBytes: UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(mutating: hostBytes) }

    /// The elements, in row-major order, as `Element`.
    /// - Precondition: the tensor lies on the CPU, `Element` has the dtype's size, and the address is aligned for it.
    public func hostElements<Element: BitwiseCopyable>(_: Element.Type) -> UnsafeBufferPointer<Element> {
        precondition(MemoryLayout<Element>.stride == dtype.byteCount, "\(Element.self) is not the element type of \(dtype)")
        return hostBytes.assumingMemoryBound(to: Element.self)
    }

    /// As ``hostElements(_:)``, for writing.
    package func mutableHostElements<Element: BitwiseCopyable>(_: Element.Type) -> UnsafeMutableBufferPointer<Element> {
        UnsafeMutableBufferPointer(mutating: hostElements(Element.self))
    }
}
