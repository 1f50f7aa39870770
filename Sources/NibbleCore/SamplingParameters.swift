/// Token selection that every backend can do where the logits are.
public struct SamplingParameters: Sendable, Hashable {
    /// 0 means greedy: the largest logit, the lowest id among equals.
    public var temperature: Float = 0
    /// 0 means off.
    public var topK: Int = 0
    public var topP: Float = 1
    public var minP: Float = 0
    public var seed: UInt64 = 0
    /// Added to a row's number to form its random stream, so that a row draws the same numbers whatever batch it is in.
    public var firstStream: UInt64 = 0
    /// The counter of the draw: the number of tokens a row has been given before.
    public var step: UInt64 = 0

    public static let greedy = SamplingParameters()

    public init() {}
}
