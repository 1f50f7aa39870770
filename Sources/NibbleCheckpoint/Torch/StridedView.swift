import NibbleCore

/// A view of elements in a file with any strides. Strides count elements.
struct StridedView: Sendable {
    let dtype: DType
    let shape: Shape
    let strides: Shape
    /// From the file's start.
    let byteOffset: Int

    var byteCount: Int { shape.count * dtype.byteCount }

    /// From the first element to the end of the last.
    var spannedByteCount: Int {
        guard shape.count > 0 else { return 0 }
        return ((0..<shape.rank).reduce(0) { $0 + (shape[$1] - 1) * strides[$1] } + 1) * dtype.byteCount
    }

    /// Whether the elements lie in row-major order without gaps.
    var isContiguous: Bool {
        guard shape.count > 0 else { return true }
        var expected = 1
        for axis in (0..<shape.rank).reversed() where shape[axis] != 1 {
            if strides[axis] != expected { return false }
            expected *= shape[axis]
        }
        return true
    }

    func contiguousCopy(of bytes: UnsafeRawBufferPointer) -> Tensor {
        let copy = Tensor.host(dtype, shape)
        let source = UnsafeRawBufferPointer(rebasing: bytes[byteOffset..<byteOffset + spannedByteCount])
        switch dtype.byteCount {
        case 1: gather(source, UInt8.self, into: copy)
        case 2: gather(source, UInt16.self, into: copy)
        case 4: gather(source, UInt32.self, into: copy)
        default: gather(source, UInt64.self, into: copy)
        }
        return copy
    }

    private func gather<Element: FixedWidthInteger>(_ source: UnsafeRawBufferPointer, _: Element.Type, into copy: Tensor) {
        let target = copy.mutableHostBytes.assumingMemoryBound(to: Element.self)
        let missing = Shape.maximumRank - shape.rank
        let extent = Array(repeating: 1, count: missing) + shape.dimensions
        let step = (Array(repeating: 0, count: missing) + strides.dimensions).map { $0 * dtype.byteCount }
        var next = 0
        for i in 0..<extent[0] {
            for j in 0..<extent[1] {
                for k in 0..<extent[2] {
                    var place = i * step[0] + j * step[1] + k * step[2]
                    for _ in 0..<extent[3] {
                        target[next] = source.loadUnaligned(fromByteOffset: place, as: Element.self)
                        next += 1
                        place += step[3]
                    }
                }
            }
        }
    }
}
