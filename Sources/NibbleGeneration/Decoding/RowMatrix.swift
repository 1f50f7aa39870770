/// Rows of equal capacity in one allocation: the tokens, beam indices and scores of sequences that grow.
final class RowMatrix<Element: BitwiseCopyable> {
    let rows: Int
    private(set) var capacity: Int
    private var base: UnsafeMutablePointer<Element>

    init(rows: Int, capacity: Int) {
        self.rows = rows
        self.capacity = max(capacity, 1)
        base = .allocate(capacity: rows * self.capacity)
    }

    deinit { base.deallocate() }

    /// Makes room for `length` elements a row and keeps the first `used`. Invalidates the buffers that ``row(_:count:)`` returned.
    func reserve(_ length: Int, used: Int) {
        guard length > capacity else { return }
        let wider = max(length, capacity * 2)
        let memory = UnsafeMutablePointer<Element>.allocate(capacity: rows * wider)
        for row in 0..<rows { (memory + row * wider).update(from: base + row * capacity, count: used) }
        base.deallocate()
        base = memory
        capacity = wider
    }

    subscript(row: Int, column: Int) -> Element {
        get {
            precondition(row < rows && column < capacity)
            return base[row * capacity + column]
        }
        set {
            precondition(row < rows && column < capacity)
            base[row * capacity + column] = newValue
        }
    }

    /// The first `count` elements of `row`; valid until the matrix grows or is released.
    func row(_ row: Int, count: Int) -> UnsafeBufferPointer<Element> {
        precondition(row < rows && count <= capacity)
        return UnsafeBufferPointer(start: base + row * capacity, count: count)
    }

    func setRow(_ row: Int, to elements: some Collection<Element>) {
        for (column, element) in elements.enumerated() { self[row, column] = element }
    }

    /// Copies the first `count` elements of `source` in `other` over those of `row`.
    func copyRow(_ row: Int, from other: RowMatrix, _ source: Int, count: Int) {
        precondition(row < rows && source < other.rows && count <= capacity && count <= other.capacity)
        (base + row * capacity).update(from: other.base + source * other.capacity, count: count)
    }
}
