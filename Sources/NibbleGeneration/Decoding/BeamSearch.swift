import Foundation
internal import NibbleModels

/// Beam search and beam sampling.
///
/// All arithmetic on scores is float32, as in the reference: a candidate that must not be chosen gets −1e9 added, which keeps
/// it behind all others without making it impossible.
struct BeamSearch: DecodingLoop {
    static let penalty: Float = -1e9

    let request: ResolvedRequest
    let beams: Int
    /// Candidates that are kept for an item at each step.
    let keep: Int
    let session: any DecodingSession
    var length: Int
    /// The current beams, and room for those of the next step.
    var running: BeamRows
    private var next: BeamRows
    /// items × beams slots, best first.
    private var finished: [[BeamHypothesis]]
    /// Items that can still improve.
    private var isOpen: [Bool]
    /// The tokens of one candidate, as the stopping criteria see them.
    private let probe: RowMatrix<Int32>
    /// The scores of all continuations of the current item's beams, [n · V].
    var accumulated: [Float]
    /// The distribution that beam sampling draws from.
    var weights = WeightPool()
    private var inputs: [RowTokens] = []
    private var contexts: [RowContext] = []

    var newCount: Int { length - request.promptLength }
    private var lengthPenalty: Double { request.config.lengthPenalty ?? 1 }
    private var earlyStopping: EarlyStopping { request.config.earlyStopping ?? .heuristic }

    init(_ request: ResolvedRequest) throws {
        self.request = request
        beams = request.copies
        keep = max(2, 1 + request.eos.count) * beams
        session = try request.openSession()
        try request.prepareGuidance()
        length = request.promptLength
        let room = min(request.maxLength, request.promptLength + 256)
        running = BeamRows(rows: request.rows, length: room)
        next = BeamRows(rows: request.rows, length: room)
        probe = RowMatrix(rows: 1, capacity: room)
        for row in 0..<request.rows {
            running.tokens.setRow(row, to: request.inputs.prompts[row / beams])
            running.scores[row] = row % beams == 0 ? 0 : Self.penalty
        }
        finished = Array(repeating: Array(repeating: BeamHypothesis(), count: beams), count: request.items)
        isOpen = Array(repeating: true, count: request.items)
        accumulated = Array(repeating: 0, count: beams * request.vocabularySize)
    }

    mutating func takeStep() throws -> GenerationOutput? {
        let candidates = newCount == 0 ? try prefill() : try step()
        advance(candidates)
        let allHit = candidates.allSatisfy { $0.allSatisfy { $0.finish != nil } }
        closeItems()
        let allFull = earlyStopping == .whenAllBeamsAreDone && finished.allSatisfy { $0.allSatisfy(\.isDone) }
        return allHit || allFull || !isOpen.contains(true) ? output() : nil
    }

    // MARK: The model

    /// Runs the model over each item's prompt once; every beam of the item sees the same scores.
    private mutating func prefill() throws -> [[BeamCandidate]] {
        request.modelRuns += 1
        let first = (0..<request.items).map { RowTokens(row: $0 * beams, tokens: request.inputs.tokens[$0]) }
        let logits = try session.feed(first, logits: .last) { batch in
            try request.check(batch, rows: request.items)
            return Array(batch.values.prefix(request.items * request.vocabularySize))
        }
        try session.gather((0..<request.rows).map { $0 / beams * beams })
        let width = request.vocabularySize
        var expanded = [Float]()
        expanded.reserveCapacity(request.rows * width)
        for row in 0..<request.rows { expanded += logits[(row / beams * width)...].prefix(width) }
        inputs = (0..<request.rows).map { RowTokens(row: $0, tokens: [0]) }
        return try expanded.withUnsafeMutableBufferPointer {
            try candidates(LogitsBatch(rows: request.rows, vocabularySize: width, values: $0))
        }
    }

    private mutating func step() throws -> [[BeamCandidate]] {
        try session.gather((0..<request.rows).map { Int(running.origins[$0, newCount - 1]) })
        request.modelRuns += 1
        for row in 0..<request.rows { inputs[row].tokens[0] = running.tokens[row, length - 1] }
        return try session.feed(inputs, logits: .last) { batch in
            try request.check(batch, rows: request.rows)
            return try candidates(batch)
        }
    }

    // MARK: Candidates

    /// The best (or drawn) continuations of each item, each with the reason why it would end its sequence.
    private mutating func candidates(_ batch: LogitsBatch) throws -> [[BeamCandidate]] {
        let rows = Array(0..<request.rows)
        request.recorder.recordLogits(batch, rows: rows, total: request.rows)
        for row in rows { batch[row].normalizeLogarithms() }
        contexts.removeAll(keepingCapacity: true)
        for row in rows { contexts.append(request.context(row, running.tokens.row(row, count: length))) }
        try request.process(batch, contexts)
        request.recorder.recordScores(batch, rows: rows, total: request.rows)
        let outOfTime = request.stopping.isOutOfTime
        return try (0..<request.items).map { item in
            try candidates(item, batch).map { candidate in
                var candidate = candidate
                candidate.finish = try finishReason(candidate, outOfTime: outOfTime)
                return candidate
            }
        }
    }

    private mutating func candidates(_ item: Int, _ batch: LogitsBatch) throws -> [BeamCandidate] {
        let width = request.vocabularySize
        for beam in 0..<beams {
            let row = item * beams + beam
            let scores = batch[row]
            guard !scores.holdsNaN else { throw GenerationError.noTokenAllowed(row: row, position: length) }
            let score = running.scores[row]
            accumulated.withUnsafeMutableBufferPointer { accumulated in
                for token in 0..<width { accumulated[beam * width + token] = scores[token] + score }
            }
        }
        let selected = select(item)
        guard let best = selected.first, accumulated[best] > -.infinity else {
            throw GenerationError.noTokenAllowed(row: item * beams, position: length)
        }
        return selected.map { index in
            let row = item * beams + index / width
            return BeamCandidate(
                score: accumulated[index], row: row, token: Int32(index % width), logProbability: batch[row][index % width])
        }
    }

    /// Indices into ``accumulated``, in the order in which candidates are listed.
    private mutating func select(_ item: Int) -> [Int] {
        if request.config.doSample ?? false { return drawWithoutReplacement(item) }
        request.scratch.selection.reset(limit: keep)
        accumulated.withUnsafeMutableBufferPointer { request.scratch.selection.insert(contentsOf: $0) }
        request.scratch.selection.finish()
        return request.scratch.selection.entries.map(\.index)
    }

    private func finishReason(_ candidate: BeamCandidate, outOfTime: Bool) throws -> FinishReason? {
        probe.reserve(length + 1, used: 0)
        probe.copyRow(0, from: running.tokens, candidate.row, count: length)
        probe[0, length] = candidate.token
        return try request.stopping.finishReason(
            request.context(candidate.row, probe.row(0, count: length + 1)), outOfTime: outOfTime)
    }

    // MARK: One step

    /// Chooses the next beams and the finished sequences; the length grows by one.
    private mutating func advance(_ candidates: [[BeamCandidate]]) {
        running.reserve(length + 1, used: length)
        next.reserve(length + 1, used: 0)
        for (item, candidates) in candidates.enumerated() {
            finish(item, candidates)
            proceed(item, candidates)
        }
        swap(&running, &next)
        length += 1
    }

    /// The best candidates that do not end become the item's beams.
    private mutating func proceed(_ item: Int, _ candidates: [BeamCandidate]) {
        var best = TopSelection(limit: beams)
        for (index, candidate) in candidates.enumerated() {
            best.insert(candidate.score + (candidate.finish == nil ? 0 : Self.penalty), index)
        }
        best.finish()
        for (beam, entry) in best.entries.enumerated() {
            let row = item * beams + beam
            let candidate = candidates[entry.index]
            next.copyRow(row, from: running, candidate.row, length: length, new: newCount)
            next.tokens[row, length] = candidate.token
            next.origins[row, newCount] = Int32(candidate.row)
            next.logProbabilities[row, newCount] = candidate.logProbability
            next.scores[row] = entry.score
        }
    }

    /// Candidates among the first n that end here compete with the item's finished sequences.
    private mutating func finish(_ item: Int, _ candidates: [BeamCandidate]) {
        let slots = finished[item]
        let divisor = Float(pow(Double(newCount + 1), lengthPenalty))
        let isFull = earlyStopping == .whenAllBeamsAreDone && slots.allSatisfy(\.isDone)
        var best = TopSelection(limit: beams)
        for (index, slot) in slots.enumerated() { best.insert(slot.score, index) }
        for (index, candidate) in candidates.enumerated() {
            var score = candidate.score / divisor
            if isFull { score += Self.penalty }
            if !isOpen[item] { score += Self.penalty }
            if candidate.finish == nil || index >= beams { score += Self.penalty }
            best.insert(score, beams + index)
        }
        best.finish()
        finished[item] = best.entries.map { entry in
            guard entry.index >= beams else { return slots[entry.index] }
            let index = entry.index - beams
            return hypothesis(candidates[index], score: entry.score, isDone: candidates[index].finish != nil && index < beams)
        }
    }

    private func hypothesis(_ candidate: BeamCandidate, score: Float, isDone: Bool) -> BeamHypothesis {
        BeamHypothesis(
            tokens: Array(running.tokens.row(candidate.row, count: length)) + [candidate.token],
            origins: Array(running.origins.row(candidate.row, count: newCount)) + [Int32(candidate.row)],
            logProbabilities: Array(running.logProbabilities.row(candidate.row, count: newCount))
                + [candidate.logProbability],
            score: score, finish: candidate.finish, isDone: isDone)
    }

    /// Closes the items that cannot improve any more (or, by default, are unlikely to). Uses the new length.
    private mutating func closeItems() {
        let hopes = earlyStopping == .never && lengthPenalty > 0
        let divisor = Float(pow(Double(hopes ? request.maxLength - request.promptLength : newCount), lengthPenalty))
        for item in 0..<request.items where isOpen[item] {
            let best = running.scores[item * beams] / divisor
            let worst = finished[item].map(\.score).min() ?? Self.penalty
            isOpen[item] = finished[item].contains { best > ($0.isDone ? worst : Self.penalty) }
        }
    }

    // MARK: Result

    private func output() -> GenerationOutput {
        let returned = finished.flatMap { $0.prefix(request.config.numReturnSequences ?? 1) }
        let longest = returned.map(\.origins.count).max() ?? 0
        let width = request.promptLength + longest
        // As in the reference, a pad id of 0 means unset, and without eos nothing is filled in.
        let fill = request.eos.first.map { request.pad == 0 ? $0 : request.pad } ?? -1
        let sequences = returned.enumerated().map { index, hypothesis in
            let prompt = request.inputs.prompts[index / (request.config.numReturnSequences ?? 1)]
            let tokens = hypothesis.tokens.isEmpty ? prompt : hypothesis.tokens
            return tokens + Array(repeating: fill, count: width - tokens.count)
        }
        return request.finished(
            GenerationOutput(
                sequences: sequences, promptLength: request.promptLength, newTokenCounts: returned.map(\.origins.count),
                finishReasons: returned.map(\.finish), sequencesScores: returned.map(\.score),
                beamIndices: returned.map { $0.origins + Array(repeating: -1, count: longest - $0.origins.count) },
                tokenLogProbabilities: request.wantsLogProbabilities ? returned.map(\.logProbabilities) : nil,
                scores: request.recorder.scores, logits: request.recorder.logits,
                seed: request.config.doSample ?? false ? request.random.seed : nil, warnings: request.warnings))
    }
}
