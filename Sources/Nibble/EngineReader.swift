import NibbleGeneration
import NibbleModels
import NibbleServing

/// Turns the tokens of a request's answers into events, on the reader's side: decoding text costs the engine nothing.
package actor EngineReader {
    private let answers: AnswerStream
    private let promptTokens: Int
    private var texts: [AnswerText]
    private var events: [EngineEvent] = []

    init(
        _ answers: AnswerStream, _ submission: Submission, _ request: EngineRequest, strings: [String], _ tokenizer: Tokenizer?
    ) {
        self.answers = answers
        promptTokens = submission.encoderInput.isEmpty ? submission.request.prompt.count : submission.encoderInput.count
        let text = AnswerText(submission, request, strings: strings, tokenizer)
        texts = Array(repeating: text, count: submission.request.choices)
    }

    /// The next event; `nil` at the end.
    package func next() async throws -> EngineEvent? {
        while events.isEmpty {
            guard let parts = try await answers.next() else { return nil }
            // The last of an event list is taken first.
            events = try parts.flatMap(events(of:)).reversed()
        }
        return events.popLast()
    }

    private func events(of part: AnswerPart) throws -> [EngineEvent] {
        let choice = part.choice
        guard texts[choice].reason == nil else { return [] }
        texts[choice].cachedTokens += part.cachedTokens ?? 0
        let (text, tokens) = texts[choice].take(part)
        var events: [EngineEvent] = []
        if !tokens.isEmpty || !text.isEmpty { events.append(.delta(choice: choice, text: text, tokens: tokens)) }
        if let reason = texts[choice].reason {
            if case .stopString = reason, part.finish == nil { answers.finish(choice: choice) }
            events.append(
                .finished(
                    choice: choice, reason: reason, promptTokens: promptTokens, cachedTokens: texts[choice].cachedTokens,
                    newTokens: texts[choice].newTokens))
        } else if let finish = part.finish {
            switch finish {
            case .failed(let reason): throw EngineError.answerFailed(choice: choice, reason: reason)
            default: throw CancellationError()
            }
        }
        return events
    }
}

/// The text of one answer so far.
private struct AnswerText {
    private let matcher: StopStringMatcher?
    private let includesStopString: Bool
    private let endTokens: Set<Int32>
    private var filter: StopTextFilter
    private var decoder: TokenStreamDecoder?
    /// Prompt and answer: a stop string may begin in the prompt.
    private var ids: [Int32]
    private var lastToken: Int32?
    private(set) var newTokens = 0
    var cachedTokens = 0
    private(set) var reason: FinishReason?

    init(_ submission: Submission, _ request: EngineRequest, strings: [String], _ tokenizer: Tokenizer?) {
        matcher = tokenizer.flatMap { tokenizer in
            strings.isEmpty ? nil : StopStringMatcher(strings) { tokenizer.tokenBytes($0) }
        }
        includesStopString = request.includesStopString
        endTokens = submission.request.stopTokens
        filter = StopTextFilter(request.includesStopString ? [] : strings)
        decoder = tokenizer.map { TokenStreamDecoder($0, skipSpecialTokens: request.skipsSpecialTokens) }
        ids = matcher == nil ? [] : submission.request.prompt
    }

    /// Takes the tokens of a part, up to the one with which a stop string ends.
    mutating func take(_ part: AnswerPart) -> (text: String, tokens: [GeneratedToken]) {
        var text = ""
        var tokens: [GeneratedToken] = []
        for (index, id) in part.tokens.enumerated() where reason == nil {
            let scores = index < part.scores.count ? part.scores[index] : nil
            var token = GeneratedToken(row: part.choice, step: newTokens, id: id, logProbability: scores?.chosen)
            token.mostProbable = scores?.top ?? []
            newTokens += 1
            let piece = filter.push(decoder?.push(id) ?? "")
            text += piece.text
            lastToken = id
            if !endTokens.contains(id), let string = stopString(after: id) ?? piece.stop { reason = .stopString(string) }
            if index == part.tokens.count - 1, reason == nil { reason = reason(part.finish) }
            token.finishReason = reason
            tokens.append(token)
            // The rest of the text is behind the stop string.
            if piece.stop != nil { return (text, tokens) }
        }
        if reason == nil { reason = reason(part.finish) }
        if reason != nil { text += rest() }
        return (text, tokens)
    }

    private mutating func stopString(after id: Int32) -> String? {
        guard let matcher else { return nil }
        ids.append(id)
        return ids.withUnsafeBufferPointer(matcher.match)
    }

    private mutating func rest() -> String {
        let piece = filter.push(decoder?.finish() ?? "")
        return piece.stop == nil ? piece.text + filter.finish() : piece.text
    }

    /// `nil` for answers that go on, and for those that were cancelled or have failed.
    private func reason(_ finish: ServingFinish?) -> FinishReason? {
        switch finish {
        case .stopToken: lastToken.map { .endOfSequence($0) }
        case .complete: .stoppingCriterion
        case .length: .maxLength
        case .deadline: .maxTime
        case .stopString, .cancelled, .failed, nil: nil
        }
    }
}
