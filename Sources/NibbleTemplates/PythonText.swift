import NibbleCore

/// Python's string operations on code points. Swift's own operations work on graphemes and merge canonically equivalent texts.
package enum PythonText {
    static func equal(_ a: String, _ b: String) -> Bool { a.hasSameBytes(as: b) }

    /// Order of code points, which is the order of UTF-8 bytes.
    static func precedes(_ a: String, _ b: String) -> Bool { a.precedesInBytes(b) }

    static func length(_ text: String) -> Int { text.unicodeScalars.count }

    static func text(_ scalars: some Sequence<Unicode.Scalar>) -> String {
        var view = String.UnicodeScalarView()
        view.append(contentsOf: scalars)
        return String(view)
    }

    /// `str.isspace()` of one character.
    static func isSpace(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 9...13, 32, 0x1C...0x1F: true
        case 0...127: false
        default: scalar.properties.isWhitespace
        }
    }

    /// `text * count`; far faster than `String(repeating:count:)`.
    static func repeated(_ text: String, _ count: Int) -> String {
        let bytes = Array(text.utf8)
        let all =
            bytes.count == 1 ? [UInt8](repeating: bytes[0], count: count) : Array(repeatElement(bytes, count: count).joined())
        return String(decoding: all, as: UTF8.self)
    }

    // MARK: Stripping

    package enum Side { case leading, trailing, both }

    /// `str.strip`, `lstrip`, `rstrip`; whitespace where `characters` is nil.
    package static func strip(_ text: String, _ characters: String? = nil, _ side: Side = .both) -> String {
        let set = characters.map { Set($0.unicodeScalars) }
        let drops = { (scalar: Unicode.Scalar) in set?.contains(scalar) ?? isSpace(scalar) }
        var view = text.unicodeScalars[...]
        if side != .trailing { view = view.drop(while: drops) }
        if side != .leading {
            while let last = view.last, drops(last) { view.removeLast() }
        }
        return String(view)
    }

    // MARK: Searching

    /// Byte offsets of non-overlapping occurrences, at most `limit`; an empty needle is found nowhere.
    static func occurrences(of needle: [UInt8], in text: [UInt8], limit: Int = .max) -> [Int] {
        var found: [Int] = []
        var start = 0
        while found.count < limit, let place = firstIndex(of: needle, in: text, from: start) {
            found.append(place)
            start = place + needle.count
        }
        return found
    }

    /// The Knuth–Morris–Pratt search: linear in the worst case.
    static func firstIndex(of needle: [UInt8], in text: [UInt8], from start: Int) -> Int? {
        guard !needle.isEmpty, start <= text.count - needle.count else { return nil }
        var borders = [Int](repeating: 0, count: needle.count)
        var matched = 0
        for index in needle.indices.dropFirst() {
            while matched > 0, needle[index] != needle[matched] { matched = borders[matched - 1] }
            if needle[index] == needle[matched] { matched += 1 }
            borders[index] = matched
        }
        matched = 0
        for index in start..<text.count {
            while matched > 0, text[index] != needle[matched] { matched = borders[matched - 1] }
            if text[index] == needle[matched] { matched += 1 }
            if matched == needle.count { return index + 1 - matched }
        }
        return nil
    }

    static func contains(_ text: String, _ part: String) -> Bool {
        part.isEmpty || firstIndex(of: Array(part.utf8), in: Array(text.utf8), from: 0) != nil
    }

    /// `str.find` and `str.rfind`: the code point index, or nil.
    static func find(_ part: String, in text: String, last: Bool) -> Int? {
        let bytes = Array(text.utf8)
        guard !part.isEmpty else { return last ? length(text) : 0 }
        let needle = Array(part.utf8)
        let place =
            last
            ? firstIndex(of: needle.reversed(), in: bytes.reversed(), from: 0).map { bytes.count - needle.count - $0 }
            : firstIndex(of: needle, in: bytes, from: 0)
        // Continuation bytes start no code point.
        return place.map { bytes[..<$0].count { $0 & 0xC0 != 0x80 } }
    }

    static func hasPrefix(_ text: String, _ prefix: String) -> Bool { text.hasBytePrefix(prefix) }

    static func hasSuffix(_ text: String, _ suffix: String) -> Bool { text.hasByteSuffix(suffix) }

    /// `str.isidentifier()`.
    static func isIdentifier(_ text: String) -> Bool {
        guard let first = text.unicodeScalars.first, first == "_" || first.properties.isXIDStart else { return false }
        return text.unicodeScalars.dropFirst().allSatisfy { $0.properties.isXIDContinue }
    }

    /// `str.expandtabs(size)`.
    static func expandTabs(_ text: String, _ size: Int) -> String {
        var result = ""
        var column = 0
        for scalar in text.unicodeScalars {
            if scalar == "\t" {
                let width = size > 0 ? size - column % size : 0
                result += repeated(" ", width)
                column += width
            } else {
                result.unicodeScalars.append(scalar)
                column = scalar == "\n" || scalar == "\r" ? 0 : column + 1
            }
        }
        return result
    }

    // MARK: Splitting and replacing

    private static func pieces(_ bytes: [UInt8], cutAt places: [Int], width: Int) -> [String] {
        var result: [String] = []
        var start = 0
        for place in places {
            result.append(String(decoding: bytes[start..<place], as: UTF8.self))
            start = place + width
        }
        result.append(String(decoding: bytes[start...], as: UTF8.self))
        return result
    }

    /// `str.split(separator, maximum)`; from the right for `rsplit`. `separator` is not empty.
    static func split(_ text: String, at separator: String, maximum: Int, fromRight: Bool) -> [String] {
        let bytes = Array(text.utf8)
        let needle = Array(separator.utf8)
        let limit = maximum < 0 ? Int.max : maximum
        guard fromRight, limit != .max else {
            return pieces(bytes, cutAt: occurrences(of: needle, in: bytes, limit: limit), width: needle.count)
        }
        let backwards = occurrences(of: needle.reversed(), in: bytes.reversed(), limit: limit)
        let places = backwards.map { bytes.count - $0 - needle.count }
        return pieces(bytes, cutAt: places.reversed(), width: needle.count)
    }

    /// `str.split()` at runs of whitespace.
    static func splitAtSpaces(_ text: String, maximum: Int, fromRight: Bool) -> [String] {
        let limit = maximum < 0 ? Int.max : maximum
        let side: Side = fromRight ? .trailing : .leading
        var words: [String] = []
        var rest = strip(text, nil, side)[...].unicodeScalars
        while words.count < limit, !rest.isEmpty {
            if fromRight {
                let start = rest.lastIndex(where: isSpace).map { rest.index(after: $0) } ?? rest.startIndex
                words.append(String(rest[start...]))
                rest = rest[..<start]
                while let last = rest.last, isSpace(last) { rest.removeLast() }
            } else {
                let end = rest.firstIndex(where: isSpace) ?? rest.endIndex
                words.append(String(rest[..<end]))
                rest = rest[end...].drop(while: isSpace)
            }
        }
        if !rest.isEmpty { words.append(String(rest)) }
        return fromRight ? words.reversed() : words
    }

    /// `str.splitlines(keepends)`.
    static func lines(_ text: String, keepEnds: Bool = false) -> [String] {
        let scalars = Array(text.unicodeScalars)
        var result: [String] = []
        var start = 0
        var index = 0
        while index < scalars.count {
            let end = index
            switch scalars[index].value {
            case 13: index += index + 1 < scalars.count && scalars[index + 1] == "\n" ? 2 : 1
            case 10, 11, 12, 0x1C...0x1E, 0x85, 0x2028, 0x2029: index += 1
            default:
                index += 1
                continue
            }
            result.append(PythonText.text(scalars[start..<(keepEnds ? index : end)]))
            start = index
        }
        if start < scalars.count { result.append(PythonText.text(scalars[start...])) }
        return result
    }

    /// `str.replace(old, new, count)`, all occurrences for a negative count.
    /// - Parameter charge: told the size of the result before it is built.
    static func replace(_ text: String, _ old: String, _ new: String, count: Int, charge: (Int) throws -> Void) throws -> String {
        let limit = count < 0 ? Int.max : count
        if old.isEmpty {
            let places = min(length(text) + 1, limit)
            try charge(text.utf8.count + places * new.utf8.count)
            var result = ""
            for (index, scalar) in text.unicodeScalars.enumerated() {
                if index < places { result += new }
                result.unicodeScalars.append(scalar)
            }
            return places > length(text) ? result + new : result
        }
        let bytes = Array(text.utf8)
        let needle = Array(old.utf8)
        let places = occurrences(of: needle, in: bytes, limit: limit)
        guard !places.isEmpty else { return text }
        try charge(bytes.count + places.count * new.utf8.count)
        return pieces(bytes, cutAt: places, width: needle.count).joined(separator: new)
    }
}
