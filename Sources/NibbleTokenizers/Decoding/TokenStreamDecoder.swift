/// Decodes tokens one at a time. It never returns a part of a character, and the cost of a token does not grow with the text.
///
/// The pieces joined are what `Tokenizer.decode` gives for all tokens at once, with two exceptions that need the whole text: clean-up
/// of spaces is not applied, and where byte tokens (`<0xE2>`…) turn out to be no text, the characters before the bad byte stay.
public struct TokenStreamDecoder: Sendable {
    private let tokenizer: Tokenizer
    private let skipSpecialTokens: Bool
    private var stages: [DecoderStage]

    /// A decoder at the beginning of a text.
    public init(_ tokenizer: Tokenizer, skipSpecialTokens: Bool) {
        self.tokenizer = tokenizer
        self.skipSpecialTokens = skipSpecialTokens
        stages = DecoderStage.stages(of: tokenizer.decoder)
    }

    /// The text that is complete after `id`; empty while a character is incomplete.
    public mutating func push(_ id: Int32) -> String {
        guard let token = tokenizer.vocabularyText(of: id, skipSpecialTokens: skipSpecialTokens) else { return "" }
        return Self.text(run([token], from: 0))
    }

    /// The rest of the text; an incomplete character becomes U+FFFD. The decoder then starts over.
    public mutating func finish() -> String {
        var rest: [[UInt8]] = []
        for index in stages.indices {
            let text = stages[index].finish()
            rest += run(text, from: index + 1)
        }
        stages = DecoderStage.stages(of: tokenizer.decoder)
        return Self.text(rest)
    }

    private mutating func run(_ tokens: [[UInt8]], from first: Int) -> [[UInt8]] {
        var tokens = tokens
        for index in stages.indices.dropFirst(first) {
            var next: [[UInt8]] = []
            for token in tokens { next += stages[index].push(token) }
            tokens = next
        }
        return tokens
    }

    private static func text(_ parts: [[UInt8]]) -> String { String(decoding: Array(parts.joined()), as: UTF8.self) }
}
