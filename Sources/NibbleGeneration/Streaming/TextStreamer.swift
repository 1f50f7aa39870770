/// Turns tokens into pieces of text that later tokens cannot change: whole words, lines, or CJK characters.
///
/// The pieces are those of transformers' TextStreamer for one sequence.
package struct TextStreamer: Sendable {
    private let decode: @Sendable ([Int32]) -> String
    private let skipsPrompt: Bool
    private var tokens: [Int32] = []
    /// Unicode scalars of the pending text that were returned.
    private var delivered = 0
    private var isPromptNext = true

    /// - Parameter decode: the text of consecutive tokens.
    package init(skipsPrompt: Bool = false, decode: @escaping @Sendable ([Int32]) -> String) {
        self.skipsPrompt = skipsPrompt
        self.decode = decode
    }

    /// Takes new tokens (the first time the prompt) and returns the text that has become certain.
    /// - Complexity: decodes all tokens since the last line break.
    package mutating func put(_ new: [Int32]) -> String {
        if skipsPrompt, isPromptNext {
            isPromptNext = false
            return ""
        }
        isPromptNext = false
        tokens += new
        let text = decode(tokens).unicodeScalars
        if text.last == "\n" {
            defer { forget() }
            return String(text.dropFirst(delivered))
        }
        let isWhole = text.last.map(Self.isCJK) ?? false
        let certain = isWhole ? text.count : text.lastIndex(of: " ").map { text.distance(from: text.startIndex, to: $0) + 1 } ?? 0
        guard certain > delivered else { return "" }
        defer { delivered = certain }
        return String(text.prefix(certain).dropFirst(delivered))
    }

    /// The rest of the text, at the end of a sequence. Another sequence may follow.
    package mutating func finish() -> String {
        isPromptNext = true
        guard !tokens.isEmpty else { return "" }
        defer { forget() }
        return String(decode(tokens).unicodeScalars.dropFirst(delivered))
    }

    private mutating func forget() {
        tokens = []
        delivered = 0
    }

    private static func isCJK(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x4E00...0x9FFF, 0x3400...0x4DBF, 0x20000...0x2A6DF, 0x2A700...0x2B73F, 0x2B740...0x2B81F, 0x2B820...0x2CEAF,
            0xF900...0xFAFF, 0x2F800...0x2FA1F:
            true
        default: false
        }
    }
}
