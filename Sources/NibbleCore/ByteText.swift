/// Text that is data: a token, a tensor name, a file name, a stop string.
///
/// Swift's `String` compares canonically equivalent texts as equal (`"\u{E9}" == "e\u{301}"`) and treats `"\r\n"` as one
/// character. Neither may happen to data: two such tokens have two ids. `ByteText` compares, hashes and orders the UTF-8
/// bytes, which is the order of code points. Use it as the key of every dictionary and the member of every set that holds
/// text from a file or a user.
package struct ByteText: Sendable {
    package let text: String

    package init(_ text: String) { self.text = text }
    package init(_ text: some StringProtocol) { self.text = String(text) }
}

extension ByteText: Hashable, Comparable {
    package static func == (a: ByteText, b: ByteText) -> Bool { a.text.hasSameBytes(as: b.text) }

    package static func < (a: ByteText, b: ByteText) -> Bool { a.text.precedesInBytes(b.text) }

    package func hash(into hasher: inout Hasher) {
        let hashed: Void? = text.utf8.withContiguousStorageIfAvailable { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
        if hashed == nil {
            for byte in text.utf8 { hasher.combine(byte) }
        }
    }
}

extension ByteText: ExpressibleByStringLiteral, CustomStringConvertible {
    package init(stringLiteral value: String) { self.init(value) }
    package var description: String { text }
}

extension Dictionary where Key == ByteText {
    /// The value under a text that equals the key byte for byte.
    package subscript(text: String) -> Value? {
        get { self[ByteText(text)] }
        set { self[ByteText(text)] = newValue }
    }
}

extension Set where Element == ByteText {
    package init(texts: some Sequence<String>) { self.init(texts.lazy.map { ByteText($0) }) }

    package func contains(_ text: String) -> Bool { contains(ByteText(text)) }
}

// MARK: - Comparing and searching bytes

extension StringProtocol {
    /// Whether both texts are the same code points.
    package func hasSameBytes(as other: some StringProtocol) -> Bool {
        utf8.count == other.utf8.count && utf8.elementsEqual(other.utf8)
    }

    /// Order of code points.
    package func precedesInBytes(_ other: some StringProtocol) -> Bool { utf8.lexicographicallyPrecedes(other.utf8) }

    package func hasBytePrefix(_ prefix: some StringProtocol) -> Bool { utf8.starts(with: prefix.utf8) }

    package func hasByteSuffix(_ suffix: some StringProtocol) -> Bool {
        utf8.count >= suffix.utf8.count && utf8.suffix(suffix.utf8.count).elementsEqual(suffix.utf8)
    }

    /// Whether `part` occurs in this text, code point by code point.
    package func containsBytes(_ part: some StringProtocol) -> Bool { firstByteRange(of: part) != nil }

    /// Where `part` first occurs. An empty part is found at the start.
    package func firstByteRange(of part: some StringProtocol) -> Range<Index>? {
        guard let first = part.utf8.first else { return startIndex..<startIndex }
        var rest = utf8[...]
        while let start = rest.firstIndex(of: first) {
            rest = rest[start...]
            if rest.starts(with: part.utf8) { return start..<rest.index(start, offsetBy: part.utf8.count) }
            rest = rest.dropFirst()
        }
        return nil
    }

    /// The pieces between the occurrences of `separator`, empty ones included.
    /// - Parameter maximum: how many cuts are made at most.
    package func splitBytes(at separator: some StringProtocol, maximum: Int = .max) -> [SubSequence] {
        var pieces: [SubSequence] = []
        var start = startIndex
        while pieces.count < maximum, !separator.isEmpty, let found = self[start...].firstByteRange(of: separator) {
            pieces.append(self[start..<found.lowerBound])
            start = found.upperBound
        }
        return pieces + [self[start...]]
    }
}

// MARK: - Lines

extension StringProtocol where UTF8View: BidirectionalCollection {
    /// The lines of a text file, without their ends: `\n` or `\r\n`. Empty lines are kept, so that index + 1 is the line's
    /// number. A file that ends with a line break has no empty last line.
    ///
    /// `split(separator: "\n")` must not be used for this: it compares characters, and `"\r\n"` is another character.
    package var textLines: [SubSequence] {
        var lines: [SubSequence] = []
        var start = startIndex
        while start < endIndex {
            let feed = utf8[start...].firstIndex(of: UInt8(ascii: "\n"))
            var end = feed ?? endIndex
            if feed != nil, end > start, utf8[utf8.index(before: end)] == UInt8(ascii: "\r") { end = utf8.index(before: end) }
            lines.append(self[start..<end])
            start = feed.map { utf8.index(after: $0) } ?? endIndex
        }
        return lines
    }
}
