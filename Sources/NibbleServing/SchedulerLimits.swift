/// What a scheduler may use.
package struct SchedulerLimits: Sendable {
    /// Sequences that run at once.
    package var slots: Int
    /// Tokens a sequence may hold, prompt included.
    package var context: Int
    /// Tokens of one step.
    package var chunkTokens: Int
    /// Tokens of a step in which rows decode. Fewer than ``chunkTokens`` keep the time between two of their tokens short.
    package var mixedChunkTokens: Int
    /// Requests that may wait, and the tokens of their prompts together.
    package var queuedRequests = 512
    package var queuedTokens = Int.max
    /// How long a step should take while rows decode: prompts fill what decoding leaves.
    package var targetStep: Duration = .milliseconds(30)
    /// How often a waiting prompt may be overtaken by shorter ones.
    package var overtakings = 8

    package init(slots: Int, context: Int, chunkTokens: Int) {
        self.slots = slots
        self.context = context
        self.chunkTokens = chunkTokens
        mixedChunkTokens = chunkTokens
    }

    /// Whether a request can be taken.
    /// - Parameters:
    ///   - capacity: tokens that a sequence may hold.
    ///   - waiting: requests that wait, and the tokens of their prompts.
    /// - Throws: ``EngineError``
    package func check(_ request: ServingRequest, capacity: Int, waiting: Int, waitingTokens: Int) throws {
        guard !request.prompt.isEmpty else { throw EngineError.emptyPrompt }
        guard request.maxNewTokens > 0 else {
            throw EngineError.invalidCount(field: "maxNewTokens", found: request.maxNewTokens)
        }
        guard request.choices > 0 else { throw EngineError.invalidCount(field: "choices", found: request.choices) }
        guard request.prompt.count < capacity else {
            throw EngineError.promptTooLong(tokens: request.prompt.count, context: capacity)
        }
        guard request.choices <= slots else { throw EngineError.tooManyChoices(asked: request.choices, slots: slots) }
        guard waiting < queuedRequests else { throw EngineError.queueIsFull(requests: waiting) }
        let tokens = waitingTokens + request.prompt.count
        guard tokens <= queuedTokens else { throw EngineError.queueHoldsTooManyTokens(tokens: tokens, limit: queuedTokens) }
    }
}
