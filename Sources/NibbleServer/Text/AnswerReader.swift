import NibbleCore

/// Why an answer ended well.
enum AnswerEnd: Sendable, Equatable {
    /// An end token, or this stop string.
    case stop(String?)
    case length
}

enum AnswerEvent: Sendable {
    case piece(choice: Int, AnswerText.Piece)
    case finished(choice: Int, AnswerEnd)
}

/// Tokens that a request has cost.
struct TokenUsage: Sendable {
    var prompt: Int
    var cached = 0
    var completion = 0

    var json: JSONValue {
        [
            "prompt_tokens": .int(prompt), "completion_tokens": .int(completion), "total_tokens": .int(prompt + completion),
            "prompt_tokens_details": ["cached_tokens": .int(cached)],
        ]
    }
}

/// Reads the answers of a request as text. Used by one task.
struct AnswerReader: ~Copyable {
    private let source: AnswerSource
    private let metrics: ServerMetrics
    private var texts: [AnswerText]
    private var isFinished: [Bool]
    private var openCount: Int
    private var lastToken: [ContinuousClock.Instant?]
    private(set) var usage: TokenUsage

    init(_ source: AnswerSource, text: AnswerText, _ metrics: ServerMetrics) {
        self.source = source
        self.metrics = metrics
        texts = Array(repeating: text, count: source.choices)
        isFinished = Array(repeating: false, count: source.choices)
        lastToken = Array(repeating: nil, count: source.choices)
        openCount = source.choices
        usage = TokenUsage(prompt: source.promptTokens)
    }

    var isOver: Bool { openCount == 0 }

    /// What has come since the last call; waits for something. Empty if the reader was only woken.
    /// - Throws: ``APIError``
    mutating func next() async throws -> [AnswerEvent] {
        var answers: [AnswerEvent] = []
        // Some tokens add no text: parts of a character, or what may become a stop string.
        while answers.isEmpty {
            switch await source.mailbox.take() {
            case .silence: return []
            case .failed(let error):
                metrics.abandoned(reason: "abort", count: openCount)
                throw error
            case .events(let events): for event in events { try take(event, &answers) }
            }
        }
        return answers
    }

    private mutating func take(_ event: CompletionEvent, _ answers: inout [AnswerEvent]) throws {
        switch event {
        case .started(let choice, let cached):
            if choice % source.choicesPerPrompt == 0, lastToken[choice] == nil { usage.cached += cached }
        case .token(let choice, let token, let scores):
            guard !isFinished[choice] else { return }
            count(choice)
            let piece = texts[choice].push(token, scores)
            append(piece, choice, &answers)
            if texts[choice].isComplete {
                finish(choice, .stop(texts[choice].match), &answers)
                source.stop(choice: choice)
            }
        case .finished(let choice, let reason):
            guard !isFinished[choice] else { return }
            let end = try end(reason)
            append(texts[choice].finish(), choice, &answers)
            finish(choice, end == .length && texts[choice].match == nil ? .length : .stop(texts[choice].match), &answers)
        }
    }

    private func end(_ reason: CompletionFinish) throws -> AnswerEnd {
        switch reason {
        case .stop: return .stop(nil)
        case .length: return .length
        case .timeLimit:
            metrics.abandoned(reason: "abort", count: openCount)
            throw APIError.timeLimit
        case .cancelled:
            metrics.abandoned(reason: "abort", count: openCount)
            throw APIError.disconnected
        case .failed(let reason):
            metrics.abandoned(reason: "error", count: openCount)
            throw APIError.server(reason)
        }
    }

    private func append(_ piece: AnswerText.Piece, _ choice: Int, _ answers: inout [AnswerEvent]) {
        guard !piece.text.isEmpty || !piece.tokens.isEmpty else { return }
        if case .piece(choice, var last)? = answers.last {
            last.text += piece.text
            last.tokens += piece.tokens
            answers[answers.count - 1] = .piece(choice: choice, last)
        } else {
            answers.append(.piece(choice: choice, piece))
        }
    }

    private mutating func finish(_ choice: Int, _ end: AnswerEnd, _ answers: inout [AnswerEvent]) {
        answers.append(.finished(choice: choice, end))
        close(choice, end)
    }

    /// Ends a choice that a handler has seen enough of.
    mutating func finishEarly(_ choice: Int) {
        guard !isFinished[choice] else { return }
        source.stop(choice: choice)
        close(choice, .stop(nil))
    }

    private mutating func close(_ choice: Int, _ end: AnswerEnd) {
        isFinished[choice] = true
        openCount -= 1
        metrics.finished(
            reason: end == .length ? "length" : "stop", source.choiceTimes[choice],
            submitted: source.started)
        if openCount == 0 { metrics.ended(source, completionTokens: usage.completion) }
    }

    private mutating func count(_ choice: Int) {
        usage.completion += 1
        let now = ContinuousClock.now
        if let last = lastToken[choice] {
            metrics.token(.interTokenLatency, (now - last) / .seconds(1))
        } else {
            metrics.token(.timeToFirstToken, (now - source.started) / .seconds(1))
        }
        lastToken[choice] = now
    }
}
