extension Tokenizer {
    /// The words that the model is given for `text`, added tokens included, byte-level characters written out.
    package func words(in text: String) -> [String] {
        let source = Array(text.utf8)
        var found: [String] = []
        for part in source.withUnsafeBufferPointer({ added.splitExact($0) }) {
            var text = AlignedText(source: source[part.range], tracksOffsets: false)
            if part.id != nil {
                found.append(String(decoding: text.bytes, as: UTF8.self))
                continue
            }
            normalizer?.normalize(&text)
            for piece in text.bytes.withUnsafeBufferPointer({ added.splitNormalized($0) }) {
                var words = PreTokenizedText(text[piece.range])
                if piece.id == nil { preTokenizer?.apply(to: &words, mayKeepBytes: false) }
                found += words.words.map { String(decoding: words.text.bytes[$0], as: UTF8.self) }
            }
        }
        return found
    }
}

/// Regular expressions for tests.
package enum PatternTesting {
    /// The texts of all matches.
    ///
    /// - Throws: an error whose description names the syntax that is not supported.
    package static func matches(of pattern: String, in text: String) throws -> [String] {
        let compiled = try Pattern(pattern)
        let bytes = Array(text.utf8)
        return TextPattern.regex(compiled).matches(in: bytes).map { String(decoding: bytes[$0], as: UTF8.self) }
    }
}
