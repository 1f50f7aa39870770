/// The extents of a tensor, outermost first: at most four, held without a heap allocation.
public struct Shape: Sendable, Hashable {
    package static let maximumRank = 4

    private var extents: (Int, Int, Int, Int) = (1, 1, 1, 1)
    /// The number of extents, 0 for a scalar.
    public private(set) var rank: Int = 0

    /// A vector's shape. Unlike a literal, this and the next initializer make no array: decode steps use them.
    package init(_ count: Int) {
        extents.0 = count
        rank = 1
    }

    /// A matrix's shape.
    package init(_ rows: Int, _ columns: Int) {
        extents = (rows, columns, 1, 1)
        rank = 2
    }

    /// The shape with these extents, outermost first.
    /// - Precondition: at most four extents.
    public init(_ dimensions: some Collection<Int>) {
        precondition(dimensions.count <= Shape.maximumRank, "Shape holds at most \(Shape.maximumRank) extents")
        for extent in dimensions { append(extent) }
    }

    /// `nil` when there are more than ``maximumRank`` extents, one is negative, or the element count overflows.
    package init?(validating dimensions: some Collection<Int>) {
        guard dimensions.count <= Shape.maximumRank else { return nil }
        var count = 1
        for extent in dimensions {
            let (product, overflow) = count.multipliedReportingOverflow(by: extent)
            guard extent >= 0, !overflow else { return nil }
            count = product
        }
        self.init(dimensions)
    }

    /// The same shape with another outermost extent.
    /// - Precondition: it has one.
    package func replacingFirst(_ extent: Int) -> Shape {
        precondition(rank > 0, "a scalar has no outermost extent")
        var shape = self
        shape.extents.0 = extent
        return shape
    }

    private mutating func append(_ extent: Int) {
        switch rank {
        case 0: extents.0 = extent
        case 1: extents.1 = extent
        case 2: extents.2 = extent
        default: extents.3 = extent
        }
        rank += 1
    }

    /// The extent along `axis`, 0 being the outermost.
    public subscript(axis: Int) -> Int {
        precondition(axis >= 0 && axis < rank, "axis \(axis) is outside a shape of rank \(rank)")
        return switch axis {
        case 0: extents.0
        case 1: extents.1
        case 2: extents.2
        default: extents.3
        }
    }

    /// Elements in all. A scalar (rank 0) has one.
    public var count: Int { extents.0 * extents.1 * extents.2 * extents.3 }

    /// All extents, outermost first.
    public var dimensions: [Int] { (0..<rank).map { self[$0] } }

    /// The last extent, 1 for a scalar.
    package var last: Int { rank == 0 ? 1 : self[rank - 1] }

    /// Whether rank and extents agree.
    public static func == (a: Shape, b: Shape) -> Bool { a.rank == b.rank && a.extents == b.extents }

    /// Hashes the extents.
    public func hash(into hasher: inout Hasher) {
        for axis in 0..<rank { hasher.combine(self[axis]) }
    }
}

extension Shape: ExpressibleByArrayLiteral {
    /// The shape with these extents, outermost first; at most four.
    public init(arrayLiteral elements: Int...) { self.init(elements) }
}

extension Shape: CustomStringConvertible {
    /// The extents in brackets.
    public var description: String { "[" + dimensions.map(String.init).joined(separator: ", ") + "]" }
}
