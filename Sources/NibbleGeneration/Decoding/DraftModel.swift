internal import NibbleModels

/// Proposes tokens with a smaller model.
final class DraftModel {
    private let request: ResolvedRequest
    private let session: any DecodingSession
    private let ids: RowMatrix<Int32>
    /// Tokens that the session holds.
    private var fed: [Int32] = []
    /// Lengths of the sequence, with padding and without, that are the same as at the last call.
    private var known = (sequence: 0, tokens: 0)
    /// Tokens to draft before the next check.
    private(set) var draftLength: Int
    private let confidence: Float
    /// Sampling: the distribution each drafted token was drawn from, row after row of V.
    private(set) var distributions: [Float] = []
    /// How often the model was run.
    private(set) var steps = 0

    init(_ request: ResolvedRequest, model: any GenerativeModel) throws {
        self.request = request
        guard model.vocabularySize == request.vocabularySize else {
            throw GenerationError.shapeMismatch(
                what: "the assistant's vocabulary", expected: "\(request.vocabularySize) tokens", found: "\(model.vocabularySize)"
            )
        }
        guard model.isEncoderDecoder == request.model.isEncoderDecoder else {
            throw GenerationError.conflict("the assistant and the model must both be encoder-decoders, or neither")
        }
        session = try request.makeSession(model)
        ids = RowMatrix(rows: 1, capacity: min(request.maxLength, request.promptLength + 256))
        draftLength = request.config.numAssistantTokens ?? 20
        confidence = Float(request.config.assistantConfidenceThreshold ?? 0)
    }

    /// Drafts up to `limit` tokens.
    ///
    /// - Parameters:
    ///   - sequence: the sequence with its padding, as the processors see it.
    ///   - tokens: the sequence without padding, as the model sees it.
    func propose(after sequence: UnsafeBufferPointer<Int32>, tokens: [Int32], limit: Int) throws -> [Int32] {
        let limit = min(limit, draftLength)
        distributions.removeAll(keepingCapacity: true)
        guard limit > 0 else { return [] }
        ids.reserve(sequence.count + limit, used: known.sequence)
        for column in known.sequence..<sequence.count { ids[0, column] = sequence[column] }
        let common = known.tokens + zip(fed[known.tokens...], tokens[known.tokens...]).prefix { $0 == $1 }.count
        var kept = min(common, tokens.count - 1)
        if kept < fed.count { kept = try session.rollBack(row: 0, to: kept) }
        known = (sequence.count, kept)
        fed = tokens
        var pending = Array(tokens[kept...])
        var drafted: [Int32] = []
        while drafted.count < limit {
            let (token, probability) = try next(pending, length: sequence.count + drafted.count)
            ids[0, sequence.count + drafted.count] = token
            drafted.append(token)
            if drafted.count == limit || request.eos.contains(token) || probability < confidence { break }
            pending = [token]
            fed.append(token)
        }
        return drafted
    }

    private func next(_ pending: [Int32], length: Int) throws -> (token: Int32, probability: Float) {
        steps += 1
        return try session.feed([RowTokens(row: 0, tokens: pending)], logits: .last) { batch in
            try request.check(batch, rows: 1)
            try request.processors.process(batch, [request.context(0, ids.row(0, count: length))])
            let scores = batch[0]
            guard scores.softmax() else { throw GenerationError.noTokenAllowed(row: 0, position: length) }
            guard request.config.doSample ?? false else {
                guard let token = scores.argmax else { throw GenerationError.noTokenAllowed(row: 0, position: length) }
                return (Int32(token), scores[token])
            }
            distributions.append(contentsOf: scores)
            let u = request.random.uniform(row: 0, step: length - request.promptLength, .draft)
            guard let token = scores.draw(u) else { throw GenerationError.noTokenAllowed(row: 0, position: length) }
            return (Int32(token), scores[token])
        }
    }

    /// Adapts the length of drafts to how many tokens were accepted.
    func adapt(accepted: Int, of proposed: Int) {
        guard request.config.numAssistantTokensSchedule ?? .constant != .constant else { return }
        draftLength = accepted == proposed ? draftLength + 2 : max(draftLength - 1, 1)
    }
}
