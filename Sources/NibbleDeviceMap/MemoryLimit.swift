/// A budget in bytes, as `max_memory` takes it: a number with or without a unit.
///
/// `GiB`, `MiB`, `KiB` are powers of two, `GB`, `MB`, `KB` powers of ten, in upper or lower case. A unit that ends in a
/// lower-case `b` after a decimal prefix (`Gb`, `gb`) counts bits. A whole number without a unit counts bytes.
public struct MemoryLimit: Sendable, Hashable, ExpressibleByStringLiteral, ExpressibleByIntegerLiteral {
    private let notation: Notation

    private enum Notation: Sendable, Hashable {
        case bytes(Int)
        case text(String)
    }

    /// A budget in bytes.
    public init(bytes: Int) { notation = .bytes(bytes) }
    /// The text is parsed when the limit is used, so that a mistake is an error and not a trap.
    public init(_ text: String) { notation = .text(text) }
    /// As ``init(_:)``.
    public init(stringLiteral value: String) { self.init(value) }
    /// A budget in bytes.
    public init(integerLiteral value: Int) { self.init(bytes: value) }

    /// - Throws: ``MemoryLimitError``
    public func bytes() throws -> Int {
        switch notation {
        case .bytes(let bytes):
            guard bytes >= 0 else { throw MemoryLimitError(text: String(bytes)) }
            return bytes
        case .text(let text):
            guard let bytes = MemoryLimit.parse(text) else { throw MemoryLimitError(text: text) }
            return bytes
        }
    }

    private static func parse(_ text: String) -> Int? {
        let text = text[...].trimmed()
        if text.allSatisfy(\.isWholeNumber), let bytes = Int(text) { return bytes }
        let upper = text.uppercased()
        let units: [(suffix: String, factor: Double)] = [
            ("GIB", 0x1p30), ("MIB", 0x1p20), ("KIB", 0x1p10), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3),
        ]
        guard let unit = units.first(where: { upper.hasSuffix($0.suffix) }),
            let number = Double(text.dropLast(unit.suffix.count).trimmed()), number >= 0, number.isFinite
        else { return nil }
        let product = (number * unit.factor).rounded(.towardZero)
        guard let bytes = Int(exactly: product) else { return nil }
        let countsBits = unit.suffix.count == 2 && text.hasSuffix("b")
        return countsBits ? bytes / 8 : bytes
    }
}

extension Substring {
    /// Without white space at both ends.
    func trimmed() -> Substring {
        var slice = drop(while: \.isWhitespace)
        while slice.last?.isWhitespace == true { slice.removeLast() }
        return slice
    }
}

/// A text that is no size of memory.
public struct MemoryLimitError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The text as it was given.
    public let text: String

    /// The error as a sentence for the user.
    public var description: String {
        "\"\(text)\" is no size of memory: write a number of bytes, or a number and one of GB, MB, KB, GiB, MiB, KiB, such as 600MB or 2.5GiB"
    }
}
