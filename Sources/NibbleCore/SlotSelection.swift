/// How the tokens of one slot are chosen. It is written to the device when a sequence begins; no launch depends on it.
package struct SlotSelection: Sendable, Hashable {
    /// 0 means greedy: the largest logit, the lowest id among equals.
    package var temperature: Float = 0
    /// 0 means off.
    package var topK = 0
    package var topP: Float = 1
    package var minP: Float = 0
    /// Divides positive logits of the tokens that the sequence holds, prompt included, and multiplies negative ones. 1 means
    /// off.
    package var repetitionPenalty: Float = 1
    /// Subtracted from the logits of tokens that were generated.
    package var presencePenalty: Float = 0
    /// Subtracted for each time that a token was generated.
    package var frequencyPenalty: Float = 0
    /// See ``RandomStream``; the counter is the number of tokens generated before.
    package var seed: UInt64 = 0
    package var stream: UInt64 = 0
    /// Added to single logits; −∞ forbids a token.
    package var bias: [TokenBias] = []
    /// ``endTokens`` cannot be chosen before so many tokens were generated.
    package var minimumTokens = 0
    package var endTokens: [Int32] = []
    /// Whether only tokens of the slot's mask can be chosen.
    package var usesMask = false

    package init() {}
}

/// What is added to the logit of one token.
package struct TokenBias: Sendable, Hashable {
    package var token: Int32
    package var value: Float

    package init(token: Int32, value: Float) {
        self.token = token
        self.value = value
    }
}
