/// A buffer that is allocated once: what it holds, and how much. Whoever allocates and whoever plans read the same list.
package struct BufferShape: Sendable, Hashable {
    package let name: String
    package let dtype: DType
    package let shape: Shape

    package init(_ name: String, _ dtype: DType, _ shape: Shape) {
        self.name = name
        self.dtype = dtype
        self.shape = shape
    }

    package var byteCount: Int { shape.count * dtype.byteCount }
}

extension Sequence<BufferShape> {
    package var byteCount: Int { reduce(0) { $0 + $1.byteCount } }
}
