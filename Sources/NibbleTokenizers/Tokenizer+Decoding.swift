extension Tokenizer {
    /// The text of `ids`. Ids without a token give nothing.
    ///
    /// - Parameters:
    ///   - ids: the tokens in order.
    ///   - skipSpecialTokens: leave special tokens out.
    ///   - cleanUpTokenizationSpaces: remove the space before punctuation that some vocabularies put there; the configuration's choice
    ///     if not given. Byte pair tokenizers keep their spaces, so it has no effect on them.
    public func decode(
        _ ids: [Int32], skipSpecialTokens: Bool = false, cleanUpTokenizationSpaces: Bool? = nil
    ) -> String {
        let tokens = ids.compactMap { vocabularyText(of: $0, skipSpecialTokens: skipSpecialTokens) }
        let bytes: [UInt8]
        if let decoder {
            bytes = Array(decoder.decode(tokens).joined())
        } else {
            bytes = Array(tokens.joined(separator: [0x20]))
        }
        let text = String(decoding: bytes, as: UTF8.self)
        let cleansUp = cleanUpTokenizationSpaces ?? configuration.cleansUpTokenizationSpaces ?? false
        return cleansUp && !model.isBytePair ? Self.cleanedUp(text) : text
    }

    /// The texts of several rows of ids.
    public func batchDecode(_ rows: [[Int32]], skipSpecialTokens: Bool = false) -> [String] {
        rows.map { decode($0, skipSpecialTokens: skipSpecialTokens) }
    }

    /// The bytes that a token adds to a text, not trimmed at the beginning; they may be a part of a character. Empty for ids without
    /// a token. Stop strings are compared on these.
    public func tokenBytes(_ id: Int32) -> [UInt8] {
        if let text = added.text(of: id) { return text }
        guard let text = model.table.text(of: id) else { return [] }
        return decoder?.bytes(of: Array(text)) ?? Array(text)
    }

    /// Whether an id is that of a special token, which stands for no text.
    package func isSpecial(_ id: Int32) -> Bool { added.token(of: id)?.isSpecial ?? false }

    /// The vocabulary's text of an id that is to be decoded.
    func vocabularyText(of id: Int32, skipSpecialTokens: Bool) -> [UInt8]? {
        if let token = added.token(of: id) { return skipSpecialTokens && token.isSpecial ? nil : added.text(of: id) }
        guard let text = model.table.text(of: id).map({ Array($0) }) else { return nil }
        return skipSpecialTokens && added.isSpecial(text) ? nil : text
    }

    private static func cleanedUp(_ text: String) -> String {
        let rules: [(String, String)] = [
            (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
            (" 've", "'ve"), (" 're", "'re"),
        ]
        let cleaned = rules.reduce(Array(text.utf8)) { Decoder.replace(Array($1.0.utf8), in: $0, by: Array($1.1.utf8)) }
        return String(decoding: cleaned, as: UTF8.self)
    }
}

extension Decoder {
    /// The bytes of one token in the middle of a text.
    func bytes(of token: [UInt8]) -> [UInt8] {
        switch self {
        case .sequence(let parts):
            for (index, part) in parts.enumerated() {
                if case .byteFallback = part, let byte = ByteToken.byte(token) { return [byte] }
                let next = part.bytes(of: token)
                if next != token { return Decoder.sequence(Array(parts[(index + 1)...])).bytes(of: next) }
            }
            return token
        case .byteLevel: return ByteLevelAlphabet.decode(token) ?? token
        case .metaspace(let replacement, _): return Self.replace(replacement, in: token, by: [0x20])
        case .replace(let pattern, let content): return Self.replace(pattern.matches(in: token), in: token, by: content)
        case .byteFallback: return ByteToken.byte(token).map { [$0] } ?? token
        case .pieces: return Self.replace([0xE2, 0x96, 0x81], in: token, by: [0x20])
        case .fuse, .strip: return token
        }
    }
}
