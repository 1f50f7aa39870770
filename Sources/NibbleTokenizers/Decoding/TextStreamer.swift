/// Gives generated text out in whole words, as `TextStreamer` of transformers does: up to the last space, everything at the end of
/// a line or after an ideograph, which needs no space.
public struct TextStreamer: Sendable {
    private var decoder: TokenStreamDecoder
    private let skipPrompt: Bool
    private var isPrompt = true
    private var pending = ""

    public init(_ tokenizer: Tokenizer, skipPrompt: Bool = false, skipSpecialTokens: Bool = false) {
        decoder = TokenStreamDecoder(tokenizer, skipSpecialTokens: skipSpecialTokens)
        self.skipPrompt = skipPrompt
    }

    /// Takes the next tokens, the prompt's first, and gives the text that is ready to be shown.
    public mutating func put(_ ids: [Int32]) -> String {
        defer { isPrompt = false }
        if isPrompt, skipPrompt { return "" }
        for id in ids { pending += decoder.push(id) }
        if pending.unicodeScalars.last == "\n" {
            // A new line starts anew: its first token is decoded like the first of a text.
            let text = pending + decoder.finish()
            pending = ""
            return text
        }
        if let last = pending.unicodeScalars.last, Self.isIdeograph(last.value) { return take(pending.unicodeScalars.endIndex) }
        guard let space = pending.unicodeScalars.lastIndex(of: " ") else { return "" }
        return take(pending.unicodeScalars.index(after: space))
    }

    /// The rest of the text. The streamer then takes a new prompt.
    public mutating func end() -> String {
        let text = pending + decoder.finish()
        pending = ""
        isPrompt = true
        return text
    }

    private mutating func take(_ end: String.Index) -> String {
        let text = String(pending.unicodeScalars[..<end])
        pending = String(pending.unicodeScalars[end...])
        return text
    }

    private static func isIdeograph(_ scalar: UInt32) -> Bool {
        switch scalar {
        case 0x4E00...0x9FFF, 0x3400...0x4DBF, 0x20000...0x2A6DF, 0x2A700...0x2B73F, 0x2B740...0x2B81F, 0x2B820...0x2CEAF,
            0xF900...0xFAFF, 0x2F800...0x2FA1F:
            true
        default: false
        }
    }
}
