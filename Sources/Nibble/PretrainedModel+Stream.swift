extension PretrainedModel {
    /// Continues one prompt and delivers the text while it is generated.
    ///
    /// ```swift
    /// for try await text in model.stream(inputs, GenerationConfig(maxNewTokens: 64), tokenizer: tokenizer) {
    ///     print(text, terminator: "")
    /// }
    /// ```
    /// A piece of text never ends within a character. With beams, the text comes as one piece at the end. Leaving the loop, or
    /// cancelling its task, ends the generation.
    /// - Parameters:
    ///   - inputs: one row of token ids.
    ///   - config: what the model's generation_config.json and the defaults should not decide.
    ///   - tokenizer: decodes the tokens and finds stop strings.
    ///   - skipSpecialTokens: whether special tokens are left out of the text.
    ///   - assistant: a smaller model of the same vocabulary that drafts tokens.
    /// - Returns: a sequence that throws ``GenerationError`` (for more than one row, too) and what
    ///   ``generate(_:_:tokenizer:assistant:)`` throws.
    public func stream(
        _ inputs: BatchEncoding, _ config: GenerationConfig = GenerationConfig(), tokenizer: Tokenizer,
        skipSpecialTokens: Bool = true, assistant: PretrainedModel? = nil
    ) -> AsyncThrowingStream<String, any Error> {
        let resolved = GenerationConfig.resolved(call: config, model: generationConfig)
        let rows = max(inputs.inputIDs.count, 1) * (resolved.numReturnSequences ?? 1)
        guard rows == 1 else {
            return AsyncThrowingStream { throw GenerationError.conflict("a stream of text has one sequence, found \(rows)") }
        }
        let events = stream(request(inputs, config), tokenizer: tokenizer, assistant: assistant)
        let pieces = TextPieces(events, TokenStreamDecoder(tokenizer, skipSpecialTokens: skipSpecialTokens))
        return AsyncThrowingStream { try await pieces.next() }
    }

    /// Generates and delivers each token when it is chosen, with its row and log-probability, and at last the whole output.
    ///
    /// With beams, only the output is delivered. Leaving the loop, or cancelling its task, ends the generation.
    /// - Returns: a sequence that throws what ``generate(_:tokenizer:assistant:)`` throws.
    public func stream(
        _ request: GenerationRequest, tokenizer: Tokenizer? = nil, assistant: PretrainedModel? = nil
    ) -> AsyncThrowingStream<GenerationEvent, any Error> {
        do {
            return generator(tokenizer: tokenizer).stream(try completed(request, assistant))
        } catch {
            return AsyncThrowingStream { throw error }
        }
    }
}

/// The text of one row's events, piece by piece.
private actor TextPieces {
    private let events: AsyncThrowingStream<GenerationEvent, any Error>
    private var decoder: TokenStreamDecoder
    private var hasTokens = false

    init(_ events: AsyncThrowingStream<GenerationEvent, any Error>, _ decoder: TokenStreamDecoder) {
        self.events = events
        self.decoder = decoder
    }

    /// The next piece that is not empty; `nil` at the end.
    func next() async throws -> String? {
        // Iterators of such a stream share its state.
        for try await event in events {
            let text = text(of: event)
            if !text.isEmpty { return text }
        }
        return nil
    }

    private func text(of event: GenerationEvent) -> String {
        switch event {
        case .token(let token):
            hasTokens = true
            return decoder.push(token.id)
        case .finished(let output):
            // Beam search delivers no tokens on the way.
            let tokens = hasTokens ? [] : Array(output.newTokens(row: 0))
            return tokens.map { decoder.push($0) }.joined() + decoder.finish()
        }
    }
}
