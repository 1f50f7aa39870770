/// SentencePiece's compiled replacement table: a double-array trie over UTF-8 followed by the replacement strings.
///
/// Layout: u32 size of the trie in bytes, the trie's u32 units (little endian), a blob of 0-terminated strings.
struct PrecompiledCharsMap: Sendable {
    /// Which match of the trie is used.
    enum Rule: Sendable {
        /// The tokenizers library's: a grapheme cluster of fewer than six bytes with any hit is replaced by its shortest one.
        case clusters
        /// SentencePiece's own: the longest hit, from the left.
        case longest
    }

    private let units: [UInt32]
    private let blob: [UInt8]
    private let rule: Rule
    /// Whether no entry starts with the byte; false from 0x80 on.
    private var isInert = [Bool](repeating: false, count: 256)

    /// - Throws: a sentence that says what is wrong with the table.
    init(_ data: [UInt8], rule: Rule) throws(MalformedTable) {
        self.rule = rule
        guard data.count >= 4 else { throw MalformedTable(reason: "charsmap of \(data.count) bytes") }
        let size = Int(Self.word(data, 0))
        guard size % 4 == 0, size <= data.count - 4 else {
            throw MalformedTable(reason: "charsmap trie of \(size) bytes in \(data.count) bytes")
        }
        units = (0..<(size / 4)).map { Self.word(data, 4 + 4 * $0) }
        blob = Array(data[(4 + size)...])
        guard (try? UTF8Span(validating: blob.span)) != nil else {
            throw MalformedTable(reason: "charsmap strings are not UTF-8")
        }
        for byte in UInt8(1)..<0x80 { isInert[Int(byte)] = !hasChild(byte) }
    }

    private static func word(_ data: [UInt8], _ at: Int) -> UInt32 {
        UInt32(data[at]) | UInt32(data[at + 1]) << 8 | UInt32(data[at + 2]) << 16 | UInt32(data[at + 3]) << 24
    }

    struct MalformedTable: Error { var reason: String }

    private static func offset(_ unit: UInt32) -> Int { Int(unit >> 10) << Int((unit & 512) >> 6) }

    private func hasChild(_ byte: UInt8) -> Bool {
        guard let root = units.first else { return false }
        let position = Self.offset(root) ^ Int(byte)
        return position < units.count && units[position] & 0x8000_00FF == UInt32(byte)
    }

    /// The replacement for a prefix of `key`, the shortest or the longest, and the length of that prefix.
    private func look(_ key: some Collection<UInt8>, longest: Bool) -> (value: Range<Int>, length: Int)? {
        guard let root = units.first else { return nil }
        var position = Self.offset(root)
        var hit: (Range<Int>, Int)?
        for (index, byte) in key.enumerated() {
            if byte == 0 { break }
            position ^= Int(byte)
            guard position < units.count, units[position] & 0x8000_00FF == UInt32(byte) else { break }
            let unit = units[position]
            position ^= Self.offset(unit)
            guard unit >> 8 & 1 == 1 else { continue }
            guard position < units.count else { break }
            hit = (string(at: Int(units[position] & 0x7FFF_FFFF)), index + 1)
            if !longest { break }
        }
        return hit
    }

    private func string(at start: Int) -> Range<Int> {
        guard start < blob.count else { return 0..<0 }
        return start..<(blob[start...].firstIndex(of: 0) ?? blob.count)
    }
}

extension PrecompiledCharsMap {
    /// The rewritten text with its alignment, or `nil` if nothing changes.
    func changes(_ text: [UInt8]) -> [AlignedText.Change]? {
        if text.allSatisfy({ isInert[Int($0)] }) { return nil }
        return switch rule {
        case .clusters: clusterChanges(text)
        case .longest: longestChanges(text)
        }
    }

    private func clusterChanges(_ text: [UInt8]) -> [AlignedText.Change]? {
        var changes: [AlignedText.Change] = []
        changes.reserveCapacity(text.count)
        var isChanged = false
        for character in String(decoding: text, as: UTF8.self) {
            let bytes = character.utf8
            if bytes.count < 6, let hit = look(bytes, longest: false) {
                isChanged = true
                append(hit.value, replacing: character.unicodeScalars.count, to: &changes)
                continue
            }
            for scalar in character.unicodeScalars {
                if let hit = look(UTF8.encode(scalar)!, longest: false) {
                    isChanged = true
                    append(hit.value, replacing: 1, to: &changes)
                } else {
                    changes.append(.init(scalar: scalar.value, change: 0))
                }
            }
        }
        return isChanged ? changes : nil
    }

    private func longestChanges(_ text: [UInt8]) -> [AlignedText.Change]? {
        var changes: [AlignedText.Change] = []
        var isChanged = false
        var index = 0
        while index < text.count {
            if let hit = look(text[index...], longest: true) {
                let count = text[index..<(index + hit.length)].reduce(0) { $0 + ($1 & 0xC0 != 0x80 ? 1 : 0) }
                append(hit.value, replacing: count, to: &changes)
                index += hit.length
                isChanged = true
            } else {
                let (scalar, length) = UTF8Text.scalar(in: text, at: index)
                changes.append(.init(scalar: scalar, change: 0))
                index += length
            }
        }
        return isChanged ? changes : nil
    }

    /// The alignment of a replacement of `count` scalars: position by position; what is left over is inserted or removed at the end.
    private func append(_ value: Range<Int>, replacing count: Int, to changes: inout [AlignedText.Change]) {
        let scalars = UTF8Text.scalars(blob[value])
        for (index, scalar) in scalars.enumerated() {
            changes.append(.init(scalar: scalar, change: index < count ? 0 : 1))
        }
        if scalars.count < count, !changes.isEmpty {
            changes[changes.count - 1].change -= count - scalars.count
        }
    }
}
