import NibbleCore

/// The added tokens of a tokenizer, and the search for them in texts.
struct AddedVocabulary: Sendable {
    /// A piece of a text: an added token, or text for the model.
    struct Segment {
        var range: Range<Int>
        var id: Int32?
    }

    private(set) var tokens: [AddedToken] = []
    private var indexOfID: [Int32: Int] = [:]
    private var indexOfContent: [ByteText: Int] = [:]
    /// Texts of special tokens. A vocabulary may give one text several ids; all of them are special.
    private var specialTexts: Set<[UInt8]> = []
    /// Special tokens in a text are ordinary text.
    private let splitsSpecial: Bool
    /// The text to search for, by token: its content, normalized if the token is.
    private var texts: [[UInt8]] = []
    private var exact = ByteTrie()
    private var normalized = ByteTrie()

    /// - Parameters:
    ///   - normalizer: tokens that are searched in normalized text are normalized with it first.
    ///   - splitsSpecial: special tokens are not found in texts, which then are what a user wrote and nothing more.
    init(_ tokens: [AddedToken], normalizer: Normalizer?, splitsSpecial: Bool = false) {
        self.splitsSpecial = splitsSpecial
        for token in tokens where !token.content.isEmpty { add(token) }
        for token in self.tokens {
            if token.isSpecial { specialTexts.insert(Array(token.content.utf8)) }
            var text = AlignedText(bytes: Array(token.content.utf8), spans: nil, isAtStart: true)
            if token.isNormalized {
                normalizer?.normalize(&text)
                normalized.insert(text.bytes, value: token.id)
            } else {
                exact.insert(text.bytes, value: token.id)
            }
            texts.append(text.bytes)
        }
    }

    private mutating func add(_ token: AddedToken) {
        if let known = indexOfContent[token.content] {
            indexOfID[tokens[known].id] = nil
            tokens[known] = token
            indexOfID[token.id] = known
            return
        }
        indexOfContent[token.content] = tokens.count
        indexOfID[token.id] = tokens.count
        tokens.append(token)
    }

    func token(of id: Int32) -> AddedToken? { indexOfID[id].map { tokens[$0] } }
    func id(of content: String) -> Int32? { indexOfContent[content].map { tokens[$0].id } }
    func isSpecial(_ text: [UInt8]) -> Bool { specialTexts.contains(text) }
    /// The text that the token stands for.
    func text(of id: Int32) -> [UInt8]? { indexOfID[id].map { texts[$0] } }

    /// Splits text as given at the tokens that are searched there.
    func splitExact(_ text: UnsafeBufferPointer<UInt8>) -> [Segment] { split(text, exact) }

    /// Splits normalized text.
    func splitNormalized(_ text: UnsafeBufferPointer<UInt8>) -> [Segment] { split(text, normalized) }

    private func split(_ text: UnsafeBufferPointer<UInt8>, _ trie: ByteTrie) -> [Segment] {
        guard !trie.isEmpty else { return text.isEmpty ? [] : [Segment(range: 0..<text.count, id: nil)] }
        var parts: [Segment] = []
        var done = 0
        var index = 0
        while index < text.count {
            guard let match = trie.longestPrefix(of: text, from: index) else {
                index += 1
                continue
            }
            if splitsSpecial, token(of: match.value)?.isSpecial ?? false {
                index = match.end
                continue
            }
            if let range = accepted(index..<match.end, match.value, text, after: done) {
                if done < range.lowerBound { parts.append(Segment(range: done..<range.lowerBound, id: nil)) }
                parts.append(Segment(range: range, id: match.value))
                done = range.upperBound
            }
            index = match.end
        }
        if done < text.count { parts.append(Segment(range: done..<text.count, id: nil)) }
        return parts
    }

    /// The range of the token with its white space, or `nil` if it may not match here.
    private func accepted(
        _ match: Range<Int>, _ id: Int32, _ text: UnsafeBufferPointer<UInt8>, after done: Int
    ) -> Range<Int>? {
        guard let token = token(of: id) else { return nil }
        var (start, end) = (match.lowerBound, match.upperBound)
        if token.isSingleWord {
            if start > 0, UnicodeClasses.isWordOrJoiner(scalar(before: start, text).value) { return nil }
            if end < text.count, UnicodeClasses.isWordOrJoiner(UTF8Text.scalar(in: text, at: end).value) { return nil }
        }
        while token.stripsLeft, start > done {
            let (value, length) = scalar(before: start, text)
            guard UnicodeClasses.isWhitespace(value) else { break }
            start -= length
        }
        if token.stripsLeft { start = max(start, done) }
        while token.stripsRight, end < text.count {
            let (value, length) = UTF8Text.scalar(in: text, at: end)
            guard UnicodeClasses.isWhitespace(value) else { break }
            end += length
        }
        return start < end ? start..<end : nil
    }

    private func scalar(before index: Int, _ text: UnsafeBufferPointer<UInt8>) -> (value: UInt32, length: Int) {
        var start = index - 1
        while start > 0, text[start] & 0xC0 == 0x80 { start -= 1 }
        return UTF8Text.scalar(in: text, at: start)
    }
}
