import NibbleCore

/// The pattern of `Split` and `Replace`: a literal text or a regular expression.
enum TextPattern: Sendable {
    case literal([UInt8])
    case regex(Pattern)

    /// Matches in `text` (valid UTF-8), ascending and disjoint. An empty literal matches nothing.
    func matches(in text: [UInt8]) -> [Range<Int>] {
        text.withUnsafeBufferPointer { matches(in: $0) }
    }

    func matches(in text: UnsafeBufferPointer<UInt8>) -> [Range<Int>] {
        switch self {
        case .literal(let literal): Self.find(literal, in: text)
        case .regex(let pattern): PatternMatcher.matches(of: pattern, in: text)
        }
    }

    private static func find(_ literal: [UInt8], in text: UnsafeBufferPointer<UInt8>) -> [Range<Int>] {
        guard let first = literal.first, text.count >= literal.count else { return [] }
        var found: [Range<Int>] = []
        let last = text.count - literal.count
        var index = 0
        while index <= last {
            if text[index] == first, (1..<literal.count).allSatisfy({ text[index + $0] == literal[$0] }) {
                found.append(index..<(index + literal.count))
                index += literal.count
            } else {
                index += 1
            }
        }
        return found
    }
}

extension TextPattern {
    /// `{"String": …}`, `{"Regex": …}`, or a bare string.
    init(_ field: JSONField) throws {
        let literal = field.value.string != nil ? field : field.child("String")
        let regex = if let literal { literal } else { try field.required("Regex") }
        let source = try regex.string()
        // An empty text is found everywhere, as the empty regular expression is.
        if literal != nil, !source.isEmpty {
            self = .literal(Array(source.utf8))
            return
        }
        do {
            self = .regex(try Pattern(source))
        } catch {
            throw TokenizerError.unsupportedPattern(file: field.file, field: regex.path, pattern: source, syntax: error.syntax)
        }
    }
}
