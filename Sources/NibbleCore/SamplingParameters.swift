/// Token selection that every backend can do on its device.
package struct SamplingParameters: Sendable, Hashable {
    /// 0 means greedy: the largest logit, the lowest id among equals.
    package var temperature: Float = 0
    /// 0 means off.
    package var topK: Int = 0
    package var topP: Float = 1
    package var minP: Float = 0
    /// Applied first: the logit of every token that the row holds is divided by this if it is positive, else multiplied by it. 1
    /// means off.
    package var repetitionPenalty: Float = 1
    /// Tokens that are never chosen.
    package var forbiddenTokens: [Int32] = []
    package var seed: UInt64 = 0
    /// Added to a row's number to form its random stream, so that a row draws the same numbers whatever batch it is in.
    package var firstStream: UInt64 = 0
    /// The counter of the draw: the number of tokens a row has been given before.
    package var step: UInt64 = 0

    package static let greedy = SamplingParameters()

    package init() {}
}

/// Sets of tokens that selection needs in addition to the logits. A set is a row of ⌈V/32⌉ int32 words: token v is bit v mod 32 of
/// word v / 32.
package struct SelectionMasks: Sendable {
    /// int32 [R, words]: the tokens each row holds. Needed with ``SamplingParameters/repetitionPenalty``.
    package var seen: Tensor?
    /// int32 [R]: one token a row that is added to ``seen`` first, so that a captured step keeps the set up to date.
    package var latest: Tensor?
    /// int32 [words]: ``SamplingParameters/forbiddenTokens``.
    package var forbidden: Tensor?

    package static let none = SelectionMasks()

    package init(seen: Tensor? = nil, latest: Tensor? = nil, forbidden: Tensor? = nil) {
        self.seen = seen
        self.latest = latest
        self.forbidden = forbidden
    }

    /// Words of a set of a vocabulary's tokens.
    package static func words(_ vocabulary: Int) -> Int { (vocabulary + 31) / 32 }

    /// The set of those of `tokens` that are in the vocabulary.
    package static func set(_ tokens: some Sequence<Int32>, vocabulary: Int) -> [Int32] {
        var words = [Int32](repeating: 0, count: words(vocabulary))
        for token in tokens where token >= 0 && Int(token) < vocabulary { words[Int(token) / 32] |= 1 << (token % 32) }
        return words
    }
}
