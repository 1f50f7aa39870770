/// Token selection that every backend can do where the logits are.
public struct SamplingParameters: Sendable, Hashable {
    /// 0 means greedy: the largest logit, the lowest id among equals.
    public var temperature: Float = 0
    /// 0 means off.
    public var topK: Int = 0
    public var topP: Float = 1
    public var minP: Float = 0
    /// Before all others: the logit of a token that the row holds is divided by this where it is positive, else multiplied.
    /// 1 means off.
    public var repetitionPenalty: Float = 1
    /// Tokens that are never chosen.
    public var forbiddenTokens: [Int32] = []
    public var seed: UInt64 = 0
    /// Added to a row's number to form its random stream, so that a row draws the same numbers whatever batch it is in.
    public var firstStream: UInt64 = 0
    /// The counter of the draw: the number of tokens a row has been given before.
    public var step: UInt64 = 0

    public static let greedy = SamplingParameters()

    public init() {}
}

/// Sets of tokens that selection needs beside the logits. A set is a row of ⌈V/32⌉ int32 words: token v is bit v mod 32 of
/// word v / 32.
public struct SelectionMasks: Sendable {
    /// int32 [R, words]: the tokens each row holds. Needed with ``SamplingParameters/repetitionPenalty``.
    public var seen: Tensor?
    /// int32 [R]: tokens that are added to ``seen`` first, one a row, so that a captured step keeps it up to date.
    public var latest: Tensor?
    /// int32 [words]: ``SamplingParameters/forbiddenTokens``.
    public var forbidden: Tensor?

    public static let none = SelectionMasks()

    public init(seen: Tensor? = nil, latest: Tensor? = nil, forbidden: Tensor? = nil) {
        self.seen = seen
        self.latest = latest
        self.forbidden = forbidden
    }

    /// Words of a set of a vocabulary's tokens.
    public static func words(_ vocabulary: Int) -> Int { (vocabulary + 31) / 32 }

    /// The set of those of `tokens` that are in the vocabulary.
    public static func set(_ tokens: some Sequence<Int32>, vocabulary: Int) -> [Int32] {
        var words = [Int32](repeating: 0, count: words(vocabulary))
        for token in tokens where token >= 0 && Int(token) < vocabulary { words[Int(token) / 32] |= 1 << (token % 32) }
        return words
    }
}
