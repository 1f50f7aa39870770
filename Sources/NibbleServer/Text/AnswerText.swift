import NibbleModels
import NibbleTokenizers

/// A token of an answer with the range of the answer's bytes that it adds.
struct AnswerToken: Sendable {
    var id: Int32
    var scores: TokenScores?
    /// Where its text begins in the whole answer, in bytes of UTF-8.
    var start: Int
    /// The same in Unicode scalars.
    var offset: Int
}

/// Makes text of the tokens of one choice: whole characters only, and nothing from a stop string on.
struct AnswerText: Sendable {
    private let tokenizer: Tokenizer
    private let endTokens: Set<Int32>
    /// Special tokens whose text is wanted, as the marks of tool calls are.
    private let keptSpecials: Set<Int32>
    private let includesStop: Bool
    private var decoder: TokenStreamDecoder
    private var filter: StopFilter
    private var length = 0
    private var scalars = 0
    private var heldTokens: [AnswerToken] = []
    /// The text has come to its end.
    private(set) var isComplete = false

    struct Piece: Sendable {
        var text = ""
        var tokens: [AnswerToken] = []
    }

    init(
        _ tokenizer: Tokenizer, endTokens: [Int32], stop: [String], skipsSpecialTokens: Bool = true, includesStop: Bool = false,
        keptSpecials: Set<Int32> = []
    ) {
        self.tokenizer = tokenizer
        self.endTokens = Set(endTokens)
        self.includesStop = includesStop
        self.keptSpecials = keptSpecials
        decoder = TokenStreamDecoder(tokenizer, skipSpecialTokens: skipsSpecialTokens)
        filter = StopFilter(stop)
    }

    /// The stop string that ended the text.
    var match: String? { filter.match }

    mutating func push(_ id: Int32, _ scores: TokenScores?) -> Piece {
        guard !isComplete else { return Piece() }
        if endTokens.contains(id) {
            isComplete = true
            return finished()
        }
        heldTokens.append(AnswerToken(id: id, scores: scores, start: length, offset: scalars))
        let text = keptSpecials.contains(id) ? decoder.finish() + (tokenizer.token(for: id) ?? "") : decoder.push(id)
        length += text.utf8.count
        scalars += text.unicodeScalars.count
        var released = filter.push(text)
        if let match = filter.match {
            isComplete = true
            let cut = filter.released
            if includesStop { released += match }
            let tokens = heldTokens.filter { $0.start < cut || includesStop }
            heldTokens = []
            return Piece(text: released, tokens: tokens)
        }
        let count = heldTokens.prefix { $0.start < filter.released || filter.released == length }.count
        defer { heldTokens.removeFirst(count) }
        return Piece(text: released, tokens: Array(heldTokens.prefix(count)))
    }

    /// What is still held, if the answer ends here.
    mutating func finish() -> Piece {
        guard !isComplete else { return Piece() }
        isComplete = true
        return finished()
    }

    private mutating func finished() -> Piece {
        let text = filter.push(decoder.finish())
        let rest = filter.finish()
        defer { heldTokens = [] }
        return Piece(text: text + rest, tokens: heldTokens)
    }
}
