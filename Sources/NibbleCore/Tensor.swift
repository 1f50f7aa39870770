/// A dense, row-major view of a device's memory: what kernels are handed and checkpoints are read into.
///
/// A tensor is a value; the memory behind it is shared. Copying one costs a retain. There are no strides: a layout that is
/// not row-major belongs to the operation that needs it (`QueryKeyValueLayout`, `PreparedWeight`).
public struct Tensor: Sendable {
    package let storage: Storage
    /// Where the first element lies, in bytes from the storage's start.
    package let byteOffset: Int
    /// The type of the elements.
    public let dtype: DType
    /// The extents, outermost first.
    public let shape: Shape

    /// - Precondition: the view lies inside the storage.
    package init(storage: Storage, byteOffset: Int = 0, dtype: DType, shape: Shape) {
        precondition(
            byteOffset >= 0 && byteOffset + shape.count * dtype.byteCount <= storage.byteCount,
            "a \(dtype) tensor of shape \(shape) at byte \(byteOffset) exceeds its storage of \(storage.byteCount) bytes")
        self.storage = storage
        self.byteOffset = byteOffset
        self.dtype = dtype
        self.shape = shape
    }

    /// The device whose memory holds the elements.
    public var device: Device { storage.device }
    /// The number of elements.
    public var count: Int { shape.count }
    package var byteCount: Int { shape.count * dtype.byteCount }
    /// Host pointer or device pointer of the first element.
    package var address: UInt { storage.address + UInt(byteOffset) }

    /// The same bytes under another shape.
    /// - Precondition: the new shape needs no more elements than this tensor has.
    package func viewed(as shape: Shape) -> Tensor {
        precondition(shape.count <= count, "cannot view \(self.shape) as \(shape)")
        return Tensor(storage: storage, byteOffset: byteOffset, dtype: dtype, shape: shape)
    }

    /// Rows `range` of the outermost axis.
    package func rows(_ range: Range<Int>) -> Tensor {
        precondition(shape.rank >= 1 && range.lowerBound >= 0 && range.upperBound <= shape[0], "rows \(range) of \(shape)")
        let stride = shape.count / max(shape[0], 1) * dtype.byteCount
        return Tensor(
            storage: storage, byteOffset: byteOffset + range.lowerBound * stride, dtype: dtype,
            shape: shape.replacingFirst(range.count))
    }
}

extension Tensor: CustomStringConvertible {
    /// Type, shape and device.
    public var description: String { "\(dtype)\(shape) on \(device)" }
}
