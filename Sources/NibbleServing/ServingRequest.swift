package import NibbleModels

/// The number by which a request is known, given by ``Scheduler/submit(_:)``.
package struct RequestID: Sendable, Hashable {
    package let number: UInt64
}

/// What the scheduler has to know of a request. How tokens are chosen is the executor's business.
package struct ServingRequest: Sendable {
    /// At least one token.
    package var prompt: [Int32]
    /// Tokens that may be added, at least one.
    package var maxNewTokens: Int
    /// Answers to the same prompt.
    package var choices = 1
    /// Tokens that end an answer. They are part of it.
    package var stopTokens: Set<Int32> = []
    /// Which prompts may share its cache.
    package var root = PrefixRoot.plain
    /// Requests of one client wait for each other, not for those of others.
    package var client = ""
    /// When it ends whatever it has.
    package var deadline: Duration?

    /// Of the prompt and all answers, at most.
    var tokenCount: Int { prompt.count + max(choices, 1) * maxNewTokens }

    package init(prompt: [Int32], maxNewTokens: Int) {
        self.prompt = prompt
        self.maxNewTokens = maxNewTokens
    }
}

/// Why an answer ended.
package enum ServingFinish: Sendable, Equatable {
    /// With one of the stop tokens.
    case stopToken
    /// With a stop string, which only ``Scheduler/finish(_:choice:reason:)``'s caller can see.
    case stopString
    /// Its mask allows nothing more.
    case complete
    /// `maxNewTokens` or the context was reached.
    case length
    case deadline
    case cancelled
    /// No token could be chosen.
    case failed(String)
}

/// What happened to requests, in its order.
package enum SchedulerEvent: Sendable, Equatable {
    /// A sequence begins to run in a slot, for the first time or after it was preempted; so many of its tokens were found in the
    /// cache.
    case started(RequestID, choice: Int, slot: Int, cachedTokens: Int)
    case token(RequestID, choice: Int, Int32)
    case finished(RequestID, choice: Int, ServingFinish)
    /// Its blocks were needed by older ones. It will be computed anew, to the same tokens.
    case preempted(RequestID, choice: Int)
}

/// What a row's selection answered.
package enum ChosenToken: Sendable, Equatable {
    case token(Int32)
    case failed(String)
}
