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
