package import NibbleCore
package import NibbleGeneration
package import NibbleModels

/// What the HTTP handlers need of an engine. ``EngineService`` provides it over the façade's `Engine`.
package protocol CompletionService: Sendable {
    /// Tokens a sequence may hold: prompt and answer.
    var context: Int { get }
    /// Tokens that the model scores.
    var vocabularySize: Int { get }
    /// The most tokens of a prompt that an encoder reads; `nil` for decoders, where prompt and answer share ``context``.
    var encoderContext: Int? { get }

    /// Queues a prompt. `deliver` is called with events, in order and from any thread, and must not wait; the last event of each
    /// choice is ``CompletionEvent/finished(choice:_:)``.
    /// - Throws: ``ServiceRefusal``.
    func submit(
        _ job: CompletionJob, deliver: @escaping @Sendable ([CompletionEvent]) -> Void
    ) throws -> any CompletionHandle

    /// Numbers in the vector of a text; `nil` where the model makes none.
    var embeddingWidth: Int? { get }
    /// The vectors of texts that fit the context; they are not normalized. Cancelling the task ends the work.
    /// - Parameter adapters: as ``CompletionJob/adapters``.
    func embeddings(of texts: [[Int32]], _ pooling: Pooling, adapters: [String: Float]) async throws -> [[Float]]

    /// The adapters that jobs may name, in the order in which they were loaded.
    var adapters: [ServedAdapter] { get }
    /// Reads an adapter and offers it under a name; with `replaces` in place of one that has the name.
    /// - Throws: ``ServiceRefusal``; what is wrong with the files.
    func loadAdapter(_ name: String, path: String, replaces: Bool) async throws
    /// Offers an adapter no more. Returns when the jobs that use it have ended. Answers whether it was there.
    func unloadAdapter(_ name: String) async throws -> Bool

    /// Looks whether the queue has room, before a request is read.
    /// - Throws: ``ServiceRefusal/busy(_:retryAfter:)``
    func checkQueue() throws

    func counts() -> ServiceCounts
    func health() -> ServiceHealth
    /// Takes no new prompts and ends those that run.
    func stop() async
}

extension CompletionService {
    package var encoderContext: Int? { nil }
    package var embeddingWidth: Int? { nil }
    package func checkQueue() throws {}

    package var adapters: [ServedAdapter] { [] }
    package func unloadAdapter(_ name: String) async throws -> Bool { false }

    package func loadAdapter(_ name: String, path: String, replaces: Bool) async throws {
        throw ServiceRefusal.invalid("this server takes no adapters", field: nil)
    }

    package func embeddings(of texts: [[Int32]], _ pooling: Pooling, adapters: [String: Float]) async throws -> [[Float]] {
        throw ServiceRefusal.invalid("this model makes no embeddings", field: "model")
    }
}

/// A prompt that was taken. Both calls may come at any time and from any thread, also after the end.
package protocol CompletionHandle: Sendable {
    /// Ends all choices within one step.
    func cancel()
    /// Ends one choice, because its text has come to its end.
    func stop(choice: Int)
}

/// A prompt and how to answer it.
package struct CompletionJob: Sendable {
    /// At least one token. The encoder's input where the model has an encoder.
    package var prompt: [Int32]
    package var selection = SlotSelection()
    package var maxNewTokens: Int
    package var choices = 1
    /// Tokens that end an answer; they are delivered.
    package var endTokens: [Int32] = []
    /// Texts that end an answer. Handlers watch for them, too; a service may end the answer earlier than they can.
    package var stopStrings: [String] = []
    /// Alternatives wanted beside the log probability of each token; `nil`: no log probabilities.
    package var logProbabilities: Int?
    /// Whose turn it is: requests of one client wait for each other.
    package var client = ""
    package var priority = 0
    /// Prompts share cached prefixes only with prompts of the same salt.
    package var cacheSalt = ""
    /// By name: the adapters it uses, and the factors of their sums.
    package var adapters: [String: Float] = [:]
    /// How long it may take from now on.
    package var timeLimit: Duration?
    /// What answers must look like.
    package var grammar: JobGrammar?

    package init(prompt: [Int32], maxNewTokens: Int) {
        self.prompt = prompt
        self.maxNewTokens = maxNewTokens
    }
}

/// A compiled grammar and how it ends.
package struct JobGrammar: Sendable {
    package var grammar: GenerationGrammar
    /// Tokens that end an answer, allowed exactly where its text is complete.
    package var ends: [Int32]
    /// Special tokens that stand for text in this grammar.
    package var marks: [Int32: [UInt8]] = [:]

    package init(_ grammar: GenerationGrammar, ends: [Int32]) {
        self.grammar = grammar
        self.ends = ends
    }
}

package enum CompletionEvent: Sendable {
    /// A choice has left the queue; so many of its prompt's tokens were found in the cache.
    case started(choice: Int, cachedTokens: Int)
    case token(choice: Int, Int32, TokenScores?)
    case finished(choice: Int, CompletionFinish)
}

package enum CompletionFinish: Sendable, Equatable {
    /// An end token or a stop string.
    case stop
    /// The token limit or the end of the context.
    case length
    case timeLimit
    case cancelled
    case failed(String)
}

/// Why a prompt was not taken.
package enum ServiceRefusal: Error, Sendable, Equatable {
    /// The queue is full: in how many seconds to try again.
    case busy(String, retryAfter: Int)
    /// No prompts are taken any more.
    case stopping
    /// The prompt cannot be answered, now or later.
    case invalid(String, field: String?)
    case promptTooLong(tokens: Int, context: Int)
    case encoderInputTooLong(tokens: Int, limit: Int)
}

/// Counters and gauges of an engine.
package struct ServiceCounts: Sendable {
    package var running = 0
    package var waiting = 0
    package var slots = 0
    package var blockSize = 0
    package var blocks = 0
    package var blocksInUse = 0
    package var preemptions = 0
    package var prefixQueriedTokens = 0
    package var prefixFoundTokens = 0
    package var steps = 0
    /// Steps by how many tokens they had, up to each of ``stepTokenBounds`` and beyond, and all tokens.
    package var stepCounts: [Int] = []
    package var stepTokenBounds: [Int] = []
    package var stepTokens = 0

    package init() {}

    /// 0 to 1.
    var cacheUsage: Double { blocks > 0 ? Double(blocksInUse) / Double(blocks) : 0 }
}

package enum ServiceHealth: Sendable, Equatable {
    case alive
    /// No step has ended in time.
    case stuck(seconds: Double)
    case failed(String)
}
