package import NibbleModels
import Synchronization

/// What has come of one answer since its reader looked last.
package struct AnswerPart: Sendable {
    package var choice: Int
    package var tokens: [Int32] = []
    /// One for each of ``tokens``, if the request asked for probabilities.
    package var scores: [TokenScores] = []
    /// Tokens of the prompt that were found in the cache. Set in the first part.
    package var cachedTokens: Int?
    /// Set in the last part.
    package var finish: ServingFinish?

    init(choice: Int) { self.choice = choice }

    var isEmpty: Bool { tokens.isEmpty && finish == nil && cachedTokens == nil }
}

/// Takes the tokens of one request from the engine's thread to its reader. The reader takes all there is at once: a slow one gets
/// larger parts and never holds the engine. Bounded by the tokens that the request may have.
final class AnswerMailbox: Sendable {
    private typealias Waiter = CheckedContinuation<[AnswerPart]?, any Error>

    private struct State {
        var parts: [AnswerPart]
        var hasNews = false
        var openChoices: Int
        var error: (any Error)?
        var waiter: Waiter?

        /// What the reader gets now; `nil` if it has to wait.
        mutating func answer() -> Result<[AnswerPart]?, any Error>? {
            if hasNews {
                hasNews = false
                let news = parts.filter { !$0.isEmpty }
                for part in news { parts[part.choice] = AnswerPart(choice: part.choice) }
                return .success(news)
            }
            if let error { return .failure(error) }
            return openChoices == 0 ? .success(nil) : nil
        }
    }

    private let state: Mutex<State>

    init(choices: Int) {
        state = Mutex(State(parts: (0..<choices).map { AnswerPart(choice: $0) }, openChoices: choices))
    }

    // MARK: The engine's side

    func begin(_ choice: Int, cachedTokens: Int) {
        state.withLock {
            $0.parts[choice].cachedTokens = cachedTokens
            $0.hasNews = true
        }
    }

    func add(_ choice: Int, _ token: Int32, _ scores: TokenScores?) {
        state.withLock {
            $0.parts[choice].tokens.append(token)
            if let scores { $0.parts[choice].scores.append(scores) }
            $0.hasNews = true
        }
    }

    func end(_ choice: Int, _ reason: ServingFinish) {
        state.withLock {
            $0.parts[choice].finish = reason
            $0.openChoices -= 1
            $0.hasNews = true
        }
    }

    /// Ends the whole request. What was delivered before can still be read.
    func fail(_ error: any Error) {
        state.withLock { if $0.error == nil, $0.openChoices > 0 { $0.error = error } }
        wakeReader()
    }

    /// Hands the news to a reader that waits.
    func wakeReader() {
        let (waiter, answer) = state.withLock { state -> (Waiter?, Result<[AnswerPart]?, any Error>?) in
            guard let waiter = state.waiter, let answer = state.answer() else { return (nil, nil) }
            state.waiter = nil
            return (waiter, answer)
        }
        if let waiter, let answer { waiter.resume(with: answer) }
    }

    // MARK: The reader's side

    /// All that has come since the last call; `nil` after the end.
    /// - Throws: what ``fail(_:)`` was given; `CancellationError` if the task is cancelled.
    func next() async throws -> [AnswerPart]? {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { waiter in
                let answer = state.withLock { state in
                    let answer = state.answer()
                    if answer == nil { state.waiter = waiter }
                    return answer
                }
                if let answer { waiter.resume(with: answer) }
            }
        } onCancel: {
            fail(CancellationError())
        }
    }

    /// Whether the engine has ended all answers.
    var hasEnded: Bool { state.withLock { $0.openChoices == 0 } }
}

/// The answers to a request, as its one reader sees them. Letting go of it cancels what has not ended.
package final class AnswerStream: Sendable {
    private let request: OpenRequest
    private let inbox: EngineInbox
    /// Requests keep their engine alive.
    private let engine: TokenEngine

    init(_ request: OpenRequest, _ inbox: EngineInbox, _ engine: TokenEngine) {
        self.request = request
        self.inbox = inbox
        self.engine = engine
    }

    deinit { if !request.mailbox.hasEnded { cancel() } }

    /// All that has come since the last call, one part for each answer with news; `nil` after the end.
    ///
    /// Cancelling the calling task cancels the request.
    /// - Throws: ``EngineError`` if the engine has failed or was stopped; `CancellationError`.
    package func next() async throws -> [AnswerPart]? {
        do {
            return try await request.mailbox.next()
        } catch let error as CancellationError {
            inbox.post(.cancel(request))
            throw error
        }
    }

    /// Ends one answer whose text contains a stop string.
    package func finish(choice: Int) { inbox.post(.finish(request, choice: choice, .stopString)) }

    /// Ends all answers that have not ended.
    package func cancel() { inbox.post(.cancel(request)) }
}
