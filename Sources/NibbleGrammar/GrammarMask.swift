/// One row's way through a grammar, token by token: which tokens may follow, what was chosen, and the way back.
///
/// A row has its own, used from one thread at a time; the grammar and the vocabulary behind it are shared by all rows, which find
/// each other's masks.
package final class GrammarMask {
    private let vocabulary: GrammarVocabulary
    private let matcher: GrammarMatcher
    /// Tokens that ended the text, accepted one after the other.
    private var ends = 0

    package convenience init(_ grammar: Grammar, _ vocabulary: GrammarVocabulary) {
        self.init(grammar.matcher(), vocabulary)
    }

    private init(_ matcher: GrammarMatcher, _ vocabulary: GrammarVocabulary) {
        self.matcher = matcher
        self.vocabulary = vocabulary
    }

    /// Whether the text so far is one of the language's.
    package var isComplete: Bool { get throws(GrammarError) { try matcher.isComplete } }
    /// Whether no more text can follow.
    package var isFinished: Bool { get throws(GrammarError) { ends > 0 ? true : try matcher.isFinished } }
    /// Whether no token can follow: the text is finished, and no token ends a text.
    package var isExhausted: Bool {
        get throws(GrammarError) { vocabulary.endTokens.isEmpty ? try matcher.isFinished : false }
    }

    /// Which tokens may follow: bit t mod 32 of word t / 32. Behind the end only tokens that end a text may.
    package func mask() throws(GrammarError) -> [UInt32] {
        guard ends > 0 else { return try matcher.mask(vocabulary) }
        return vocabulary.endMask
    }

    /// Writes ``mask()`` into the words of a row. Words that the vocabulary does not have allow nothing.
    package func mask(into words: UnsafeMutableBufferPointer<Int32>) throws(GrammarError) {
        let mask = try mask()
        for index in words.indices { words[index] = index < mask.count ? Int32(bitPattern: mask[index]) : 0 }
    }

    /// Goes on by a token.
    /// - Throws: ``GrammarError/tokenNotAllowed(_:)`` for one that the mask does not allow; nothing has changed then.
    package func accept(_ token: Int32) throws(GrammarError) {
        if vocabulary.endTokens.contains(token) {
            let isComplete = ends > 0 ? true : try matcher.isComplete
            guard isComplete else { throw .tokenNotAllowed(token) }
            ends += 1
            return
        }
        guard ends == 0, let bytes = vocabulary.bytes(token), try matcher.advance(bytes) else { throw .tokenNotAllowed(token) }
    }

    /// Takes the last tokens back.
    package func rollback(_ tokens: Int) {
        let ended = min(tokens, ends)
        ends -= ended
        matcher.rollBack(tokens - ended)
    }

    /// A second row at the same place.
    package func copy() -> GrammarMask {
        let copy = GrammarMask(matcher.copy(), vocabulary)
        copy.ends = ends
        return copy
    }
}
