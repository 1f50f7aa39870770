internal import NibbleModels

/// Speculative decoding: the model checks several proposed tokens in one run. They are drafted by a smaller model (Leviathan et
/// al. 2023, Chen et al. 2023) or copied from an earlier occurrence in the sequence (prompt look-up).
///
/// Greedy decoding gives the same tokens as without proposals, sampling the same distribution.
struct AssistedDecoding: DecodingLoop {
    private enum Source {
        case draft(DraftModel)
        case lookup(PromptLookup)
    }

    private let request: ResolvedRequest
    private let session: any DecodingSession
    private var source: Source
    private let ids: RowMatrix<Int32>
    private var length: Int
    /// The sequence without padding.
    private var tokens: [Int32]
    private var reason: FinishReason?
    private var logProbabilities: [Float] = []

    private var isSampling: Bool { request.config.doSample ?? false }

    init(_ request: ResolvedRequest, assistant: (any GenerativeModel)?) throws {
        guard request.rows == 1 else {
            throw GenerationError.conflict(
                "assisted decoding and prompt look-up work on one sequence, not on \(request.rows)")
        }
        self.request = request
        session = try request.openSession()
        try request.prepareGuidance()
        if let assistant {
            source = .draft(try DraftModel(request, model: assistant))
        } else {
            source = .lookup(
                PromptLookup(
                    tokens: request.config.promptLookupNumTokens ?? 0, maximumNgram: request.config.maxMatchingNgramSize ?? 2))
        }
        ids = RowMatrix(rows: 1, capacity: min(request.maxLength, request.promptLength + 256))
        ids.setRow(0, to: request.inputs.prompts[0])
        length = request.promptLength
        tokens = request.inputs.tokens[0]
    }

    mutating func takeStep() throws -> GenerationOutput? {
        // What was proposed and not accepted goes; the last token is fed with the next proposals.
        try feedSequence(from: session.rollBack(row: 0, to: tokens.count - 1))
        // The checked tokens and one more of the model's own must fit.
        let proposed = try propose(limit: request.maxLength - length - 1)
        adapt(accepted: try check(proposed), of: proposed.count)
        return reason == nil ? nil : output()
    }

    private mutating func adapt(accepted: Int, of proposed: Int) {
        switch source {
        case .draft(let model): model.adapt(accepted: accepted, of: proposed)
        case .lookup(var lookup):
            lookup.adapt(accepted: accepted, of: proposed)
            source = .lookup(lookup)
        }
    }

    /// Feeds the tokens from `start` on, without the last one.
    private func feedSequence(from start: Int) throws {
        guard start < tokens.count - 1 else { return }
        request.modelRuns += 1
        try session.feed([RowTokens(row: 0, tokens: Array(tokens[start...].dropLast()))], logits: .last) { _ in }
    }

    private func propose(limit: Int) throws -> [Int32] {
        switch source {
        case .draft(let model): try model.propose(after: ids.row(0, count: length), tokens: tokens, limit: limit)
        case .lookup(let lookup): lookup.propose(after: ids.row(0, count: length), limit: limit, eos: request.eos)
        }
    }

    /// Runs the model over the proposed tokens, accepts those that agree with it, and adds one token of its own. Returns how many
    /// were accepted.
    private mutating func check(_ proposed: [Int32]) throws -> Int {
        let input = RowTokens(row: 0, tokens: tokens.suffix(1) + proposed)
        request.modelRuns += 1
        return try session.feed([input], logits: .all) { batch in
            try request.check(batch, rows: proposed.count + 1)
            for position in 0...proposed.count {
                let row = LogitsBatch(rows: 1, vocabularySize: batch.vocabularySize, values: batch[position])
                request.recorder.recordLogits(row, rows: [0], total: 1)
                try request.process(row, [request.context(0, ids.row(0, count: length))])
                request.recorder.recordScores(row, rows: [0], total: 1)
                let proposal = position < proposed.count ? proposed[position] : nil
                let logSum = request.wantsLogProbabilities ? row[0].logSumExp : 0
                let (token, score) = try choose(row[0], proposal, position)
                try append(token, request.wantsLogProbabilities ? score - logSum : nil)
                if reason != nil || token != proposal { return token == proposal ? position + 1 : position }
            }
            return proposed.count
        }
    }

    /// The token for one position, with its score. May overwrite `scores`.
    private func choose(
        _ scores: UnsafeMutableBufferPointer<Float>, _ proposal: Int32?, _ position: Int
    ) throws -> (token: Int32, score: Float) {
        let step = length - request.promptLength
        guard isSampling, case .draft(let model) = source, let proposal else {
            let token = try request.choose(scores, row: 0, step: step)
            return (token, scores[Int(token)])
        }
        let original = Array(scores)
        guard scores.softmax() else { throw GenerationError.noTokenAllowed(row: 0, position: length) }
        let token = model.distributions.withUnsafeBufferPointer { drafts in
            let draft = UnsafeBufferPointer(rebasing: drafts[(position * scores.count)..<((position + 1) * scores.count)])
            return accept(Int(proposal), scores, draft, step)
        }
        guard let token else { throw GenerationError.noTokenAllowed(row: 0, position: length) }
        return (Int32(token), original[token])
    }

    /// The proposal x with probability min(1, p(x)/q(x)), else a draw from the positive part of p − q.
    private func accept(
        _ proposal: Int, _ p: UnsafeMutableBufferPointer<Float>, _ q: UnsafeBufferPointer<Float>, _ step: Int
    ) -> Int? {
        let u = request.random.uniform(row: 0, step: step, .acceptance)
        if u * q[proposal] < p[proposal] { return proposal }
        let correction = request.random.uniform(row: 0, step: step, .correction)
        // Used if rounding leaves nothing of the difference.
        let fallback = p.draw(correction)
        for index in p.indices { p[index] = max(p[index] - q[index], 0) }
        return p.draw(correction) ?? fallback
    }

    private mutating func append(_ token: Int32, _ logProbability: Float?) throws {
        ids.reserve(length + 1, used: length)
        ids[0, length] = token
        length += 1
        tokens.append(token)
        if let logProbability { logProbabilities.append(logProbability) }
        reason = try request.stopping.finishReason(
            request.context(0, ids.row(0, count: length)), outOfTime: request.stopping.isOutOfTime)
        try request.onToken?(
            GeneratedToken(
                row: 0, step: length - request.promptLength - 1, id: token, logProbability: logProbability,
                finishReason: reason))
    }

    private func output() -> GenerationOutput {
        request.finished(
            GenerationOutput(
                sequences: [Array(ids.row(0, count: length))], promptLength: request.promptLength,
                newTokenCounts: [length - request.promptLength], finishReasons: [reason],
                tokenLogProbabilities: request.wantsLogProbabilities ? [logProbabilities] : nil, scores: request.recorder.scores,
                logits: request.recorder.logits, seed: isSampling ? request.random.seed : nil, warnings: request.warnings))
    }
}
