import NibbleCore

/// `wordwrap`: Python's `textwrap.wrap` for each line of a text.
extension JinjaFilters {
    static let wrapped: Filter = { interpreter, value, arguments in
        let given = try arguments.bound(to: "wordwrap", ["width", "break_long_words", "wrapstring", "break_on_hyphens"])
        guard case .string(let text) = value else {
            if case .undefined(let undefined) = value { throw undefined.error }
            throw JinjaError(.type(expected: "a string to wrap", found: value.typeName))
        }
        guard let width = given[0].map(\.integer) ?? 79, width > 0 || text.isEmpty else {
            throw JinjaError(.arguments(function: "wordwrap", problem: "the width must be a positive integer"))
        }
        var separator = "\n"
        if let custom = given[2], !custom.isNull { separator = try interpreter.text(of: custom) }
        try interpreter.charge(64 * text.utf8.count)
        try interpreter.charge(text: text.utf8.count * (1 + separator.utf8.count))
        let wrapper = TextWrapper(
            width: width, breaksLongWords: given[1]?.isTruthy ?? true, breaksOnHyphens: given[3]?.isTruthy ?? true)
        let lines = PythonText.lines(text).map { wrapper.lines(of: $0).joined(separator: separator) }
        return try interpreter.string(lines.joined(separator: separator))
    }
}

/// Python's `textwrap.TextWrapper` with `expand_tabs` and `replace_whitespace` off.
private struct TextWrapper {
    let width: Int
    let breaksLongWords: Bool
    let breaksOnHyphens: Bool

    private typealias Chunk = ArraySlice<Unicode.Scalar>

    func lines(of text: String) -> [String] {
        var chunks = Array(chunks(of: Array(text.unicodeScalars)).reversed())
        var lines: [String] = []
        while let next = chunks.last {
            if !lines.isEmpty, Self.isBlank(next) { chunks.removeLast() }
            var line: [Chunk] = []
            var length = 0
            while let chunk = chunks.last, length + chunk.count <= width {
                line.append(chunk)
                length += chunk.count
                chunks.removeLast()
            }
            if let long = chunks.last, long.count > width { split(long, &chunks, &line, room: width - length) }
            if let last = line.last, Self.isBlank(last) { line.removeLast() }
            if !line.isEmpty { lines.append(PythonText.text(line.joined())) }
        }
        return lines
    }

    /// Puts the start of a chunk that fits no line into `room`, or all of it into an empty line.
    private func split(_ chunk: Chunk, _ chunks: inout [Chunk], _ line: inout [Chunk], room: Int) {
        guard breaksLongWords else {
            if line.isEmpty { line.append(chunks.removeLast()) }
            return
        }
        var end = chunk.startIndex + max(room, 0)
        if breaksOnHyphens, let hyphen = chunk[..<end].lastIndex(of: "-"), chunk[..<hyphen].contains(where: { $0 != "-" }) {
            end = hyphen + 1
        }
        line.append(chunk[..<end])
        chunks[chunks.count - 1] = chunk[end...]
    }

    // MARK: Chunks

    /// Words, runs of white space, dashes, and the parts of hyphenated words. They join to the text.
    private func chunks(of text: [Unicode.Scalar]) -> [Chunk] {
        var chunks: [Chunk] = []
        var start = 0
        while start < text.count {
            let isSpace = Self.isSpace(text[start])
            var end = start + 1
            if isSpace {
                while end < text.count, Self.isSpace(text[end]) { end += 1 }
            } else if breaksOnHyphens, let after = dashEnd(text, start) {
                end = after
            } else {
                while !isEnd(text, &end) { end += 1 }
            }
            chunks.append(text[start..<end])
            start = end
        }
        return chunks
    }

    /// Whether a word ends at `index`; a hyphen belongs to the part before it.
    private func isEnd(_ text: [Unicode.Scalar], _ index: inout Int) -> Bool {
        guard index < text.count, !Self.isSpace(text[index]) else { return true }
        guard breaksOnHyphens, text[index] == "-" else { return false }
        if isHyphen(text, index) {
            index += 1
            return true
        }
        return dashEnd(text, index) != nil
    }

    /// Whether the `-` at `index` stands between letters of a hyphenated word.
    private func isHyphen(_ text: [Unicode.Scalar], _ index: Int) -> Bool {
        func isLetter(_ place: Int) -> Bool { text.indices.contains(place) && Self.isLetter(text[place]) }
        func isDash(_ place: Int) -> Bool { text.indices.contains(place) && text[place] == "-" }
        let before = isLetter(index - 1) && (isLetter(index - 2) || (isDash(index - 2) && isLetter(index - 3)))
        let after = isLetter(index + 1) && (isLetter(index + 2) || (isDash(index + 2) && isLetter(index + 3)))
        return before && after
    }

    /// The end of two or more dashes at `index` that stand between words.
    private func dashEnd(_ text: [Unicode.Scalar], _ index: Int) -> Int? {
        guard index > 0, Self.isWord(text[index - 1]) || "!\"'&.,?".unicodeScalars.contains(text[index - 1]) else { return nil }
        var end = index
        while end < text.count, text[end] == "-" { end += 1 }
        return end - index >= 2 && end < text.count && Self.isWord(text[end]) ? end : nil
    }

    private static func isSpace(_ scalar: Unicode.Scalar) -> Bool { (9...13).contains(scalar.value) || scalar == " " }

    private static func isBlank(_ chunk: Chunk) -> Bool { chunk.allSatisfy(PythonText.isSpace) }

    private static func isWord(_ scalar: Unicode.Scalar) -> Bool {
        scalar == "_" || scalar.properties.isAlphabetic || scalar.properties.numericType != nil
    }

    private static func isLetter(_ scalar: Unicode.Scalar) -> Bool {
        isWord(scalar) && scalar.properties.numericType != .decimal
    }
}
