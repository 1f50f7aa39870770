internal import NibbleModels

/// Greedy decoding and sampling in which proposed tokens are checked many at a time: by a smaller model (Leviathan et al.
/// 2023, Chen et al. 2023) or by looking the text up in the sequence itself.
///
/// Greedy: the same tokens as without. Sampling: the same distribution.
struct AssistedDecoding {
    private enum Source {
        case draft(DraftModel)
        case lookup(PromptLookup)
    }

    private let run: GenerationRun
    private let session: any DecodingSession
    private var source: Source
    private let ids: RowMatrix<Int32>
    private var length: Int
    /// The sequence without padding.
    private var tokens: [Int32]
    private var reason: FinishReason?
    private var logProbabilities: [Float] = []

    private var isSampling: Bool { run.config.doSample ?? false }

    init(_ run: GenerationRun, assistant: (any GenerativeModel)?) throws {
        guard run.rows == 1 else {
            throw GenerationError.conflict(
                "assisted decoding and prompt look-up work on one sequence, not on \(run.rows)")
        }
        self.run = run
        session = try run.makeSession(run.model)
        try run.prepareGuidance()
        if let assistant {
            source = .draft(try DraftModel(run, model: assistant))
        } else {
            source = .lookup(
                PromptLookup(
                    tokens: run.config.promptLookupNumTokens ?? 0, maximumNgram: run.config.maxMatchingNgramSize ?? 2))
        }
        ids = RowMatrix(rows: 1, capacity: min(run.maxLength, run.promptLength + 256))
        ids.setRow(0, to: run.inputs.prompts[0])
        length = run.promptLength
        tokens = run.inputs.tokens[0]
    }

    mutating func generate() throws -> GenerationOutput {
        try feedSequence(from: 0)
        while reason == nil {
            // The checked tokens and one more of the model's own must fit.
            let proposed = try propose(limit: run.maxLength - length - 1)
            let accepted = try check(proposed)
            adapt(accepted: accepted, of: proposed.count)
            if reason == nil { try feedSequence(from: try session.rollBack(row: 0, to: tokens.count - 1)) }
        }
        return output()
    }

    private mutating func adapt(accepted: Int, of proposed: Int) {
        switch source {
        case .draft(let model): model.adapt(accepted: accepted, of: proposed)
        case .lookup(var lookup):
            lookup.adapt(accepted: accepted, of: proposed)
            source = .lookup(lookup)
        }
    }

    /// Feeds what the session lacks of all tokens but the last.
    private func feedSequence(from start: Int) throws {
        guard start < tokens.count - 1 else { return }
        try session.feed([RowTokens(row: 0, tokens: Array(tokens[start...].dropLast()))], logits: .last) { _ in }
    }

    private func propose(limit: Int) throws -> [Int32] {
        switch source {
        case .draft(let model): try model.propose(after: ids.row(0, count: length), tokens: tokens, limit: limit)
        case .lookup(let lookup): lookup.propose(after: ids.row(0, count: length), limit: limit, eos: run.eos)
        }
    }

    /// Runs the model over the proposed tokens and takes those it agrees with, and one more of its own. Returns how many
    /// were agreed with.
    private mutating func check(_ proposed: [Int32]) throws -> Int {
        let input = RowTokens(row: 0, tokens: tokens.suffix(1) + proposed)
        return try session.feed([input], logits: .all) { batch in
            try run.check(batch, rows: proposed.count + 1)
            for position in 0...proposed.count {
                let row = LogitsBatch(rows: 1, vocabularySize: batch.vocabularySize, values: batch[position])
                run.recorder.recordLogits(row, rows: [0], total: 1)
                try run.process(row, [run.context(0, ids.row(0, count: length))])
                run.recorder.recordScores(row, rows: [0], total: 1)
                let proposal = position < proposed.count ? proposed[position] : nil
                let logSum = run.wantsLogProbabilities ? row[0].logSumExp : 0
                let (token, score) = try choose(row[0], proposal, position)
                try append(token, run.wantsLogProbabilities ? score - logSum : nil)
                if reason != nil || token != proposal { return token == proposal ? position + 1 : position }
            }
            return proposed.count
        }
    }

    /// The token for one position, with its score. May overwrite `scores`.
    private func choose(
        _ scores: UnsafeMutableBufferPointer<Float>, _ proposal: Int32?, _ position: Int
    ) throws -> (token: Int32, score: Float) {
        let step = length - run.promptLength
        guard isSampling, case .draft(let model) = source, let proposal else {
            let token = try run.choose(scores, row: 0, step: step)
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

    /// The proposal x with probability min(1, p(x)/q(x)), else a draw from what p has more than q.
    private func accept(
        _ proposal: Int, _ p: UnsafeMutableBufferPointer<Float>, _ q: UnsafeBufferPointer<Float>, _ step: Int
    ) -> Int? {
        let u = run.random.uniform(row: 0, step: step, .acceptance)
        if u * q[proposal] < p[proposal] { return proposal }
        let correction = run.random.uniform(row: 0, step: step, .correction)
        // Kept for the case that rounding leaves nothing of the difference.
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
        reason = try run.stopping.finishReason(
            run.context(0, ids.row(0, count: length)), outOfTime: run.stopping.isOutOfTime)
        try run.onToken?(
            GeneratedToken(
                row: 0, step: length - run.promptLength - 1, id: token, logProbability: logProbability,
                finishReason: reason))
    }

    private func output() -> GenerationOutput {
        GenerationOutput(
            sequences: [Array(ids.row(0, count: length))], promptLength: run.promptLength,
            newTokenCounts: [length - run.promptLength], finishReasons: [reason],
            tokenLogProbabilities: run.wantsLogProbabilities ? [logProbabilities] : nil, scores: run.recorder.scores,
            logits: run.recorder.logits, seed: isSampling ? run.random.seed : nil, warnings: run.warnings)
    }
}
