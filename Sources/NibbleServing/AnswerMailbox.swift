import NibbleCore
package import NibbleModels

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

/// What the reader of a request has not seen, one part for each of its answers.
struct UnreadAnswers: MailboxContent {
    private var parts: [AnswerPart]
    private(set) var openChoices: Int

    init(choices: Int) {
        parts = (0..<choices).map { AnswerPart(choice: $0) }
        openChoices = choices
    }

    mutating func takeNews() -> [AnswerPart]? {
        let news = parts.filter { !$0.isEmpty }
        for part in news { parts[part.choice] = AnswerPart(choice: part.choice) }
        return news.isEmpty ? nil : news
    }

    mutating func begin(_ choice: Int, cachedTokens: Int) { parts[choice].cachedTokens = cachedTokens }

    mutating func add(_ choice: Int, _ token: Int32, _ scores: TokenScores?) {
        parts[choice].tokens.append(token)
        if let scores { parts[choice].scores.append(scores) }
    }

    mutating func end(_ choice: Int, _ reason: ServingFinish) {
        parts[choice].finish = reason
        openChoices -= 1
    }
}

/// Takes the tokens of one request from the engine's thread to its reader. The reader takes all there is at once: a slow one gets
/// larger parts and never holds the engine. Bounded by the tokens that the request may have.
typealias AnswerMailbox = Mailbox<UnreadAnswers>

extension AnswerMailbox {
    convenience init(choices: Int) { self.init(UnreadAnswers(choices: choices)) }

    func begin(_ choice: Int, cachedTokens: Int) { withContent { $0.begin(choice, cachedTokens: cachedTokens) } }

    func add(_ choice: Int, _ token: Int32, _ scores: TokenScores?) { withContent { $0.add(choice, token, scores) } }

    func end(_ choice: Int, _ reason: ServingFinish) {
        let isLast = withContent {
            $0.end(choice, reason)
            return $0.openChoices == 0
        }
        if isLast { close() }
    }

    /// Ends the whole request. What was delivered before can still be read.
    func fail(_ error: any Error) { close(throwing: error) }

    /// Whether the engine has ended all answers.
    var hasEnded: Bool { withContent { $0.openChoices == 0 } }
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
