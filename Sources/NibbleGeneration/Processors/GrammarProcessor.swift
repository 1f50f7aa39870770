internal import NibbleGrammar
internal import Synchronization

/// Forbids the tokens that do not continue a text of a grammar. A token that ends the text is allowed where the text is complete.
///
/// A row's place in the grammar follows from its tokens alone. What is remembered of its last place only saves work: rows that were
/// reordered or rolled back go back to what they have in common with it.
struct GrammarProcessor: LogitsProcessor {
    private let grammar: Grammar
    private let vocabulary: GrammarVocabulary
    private let rows = Rows()

    private final class Rows: Sendable {
        let places = Mutex<[Int: Place]>([:])
    }

    /// Used only while the lock of ``Rows`` is held.
    private struct Place: @unchecked Sendable {
        var tokens: [Int32]
        let mask: GrammarMask
    }

    init(_ grammar: Grammar, _ vocabulary: GrammarVocabulary) {
        self.grammar = grammar
        self.vocabulary = vocabulary
    }

    func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) throws {
        guard let mask = try mask(context) else { return scores.update(repeating: -.infinity) }
        for (index, word) in mask.enumerated() where word != .max {
            for token in (index * 32)..<min(index * 32 + 32, scores.count) where word >> UInt32(token & 31) & 1 == 0 {
                scores[token] = -.infinity
            }
        }
        if mask.count * 32 < scores.count { scores[(mask.count * 32)...].update(repeating: -.infinity) }
    }

    /// Whether no more text can follow the row's tokens.
    func isFinished(_ context: RowContext) throws -> Bool {
        try withPlace(context) { try $0?.isFinished ?? false }
    }

    /// `nil` for a row that holds a token that was not allowed: beams without other candidates do, at a score of −∞.
    private func mask(_ context: RowContext) throws -> [UInt32]? {
        try withPlace(context) { try $0?.mask() }
    }

    private func withPlace<Value>(_ context: RowContext, _ body: (GrammarMask?) throws -> Value) throws -> Value {
        let tokens = UnsafeBufferPointer(rebasing: context.ids[context.promptLength...])
        let row = context.row
        return try rows.places.withLock { places in
            var place = places.removeValue(forKey: row) ?? Place(tokens: [], mask: GrammarMask(grammar, vocabulary))
            defer { places[row] = place }
            let common = zip(place.tokens, tokens).prefix { $0 == $1 }.count
            place.mask.rollback(place.tokens.count - common)
            place.tokens.removeSubrange(common...)
            for token in tokens[common...] {
                do {
                    try place.mask.accept(token)
                } catch GrammarError.tokenNotAllowed {
                    return try body(nil)
                }
                place.tokens.append(token)
            }
            return try body(place.mask)
        }
    }
}
