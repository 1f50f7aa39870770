/// What a scheduler may use.
package struct SchedulerLimits: Sendable {
    /// Sequences that run at once.
    package var slots: Int
    /// Tokens a sequence may hold, prompt included.
    package var context: Int
    /// Tokens of one step.
    package var chunkTokens: Int
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
    }
}
