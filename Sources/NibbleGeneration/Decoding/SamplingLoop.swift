internal import NibbleCore
internal import NibbleModels

/// Greedy decoding and sampling: each row gets one token per step until all rows have ended.
struct SamplingLoop: DecodingLoop {
    private let request: ResolvedRequest
    private let session: any DecodingSession
    /// How tokens are chosen on the device; `nil` if the host chooses them.
    private let device: SamplingParameters?
    private let ids: RowMatrix<Int32>
    private var length: Int
    private var reasons: [FinishReason?]
    private var counts: [Int]
    private var logProbabilities: [[Float]]
    /// Rows that the model still computes. Without eos tokens a finished row stays among them: the reference then ends all rows
    /// together.
    private var fed: [Int]
    private var inputs: [RowTokens] = []
    private var contexts: [RowContext] = []
    /// The step's tokens, one for each of ``fed``.
    private var chosen: [Int32] = []
    private var chosenLogProbabilities: [Float?] = []

    init(_ request: ResolvedRequest) throws {
        self.request = request
        session = try request.openSession()
        try request.prepareGuidance()
        device = request.deviceParameters
        length = request.promptLength
        ids = RowMatrix(rows: request.rows, capacity: min(request.maxLength, request.promptLength + 256))
        for row in 0..<request.rows { ids.setRow(row, to: request.inputs.prompts[row / request.copies]) }
        reasons = Array(repeating: nil, count: request.rows)
        counts = Array(repeating: 0, count: request.rows)
        logProbabilities = Array(repeating: [], count: request.rows)
        fed = Array(0..<request.rows)
    }

    mutating func takeStep() throws -> GenerationOutput? {
        if length == request.promptLength {
            try prefill()
        } else {
            prepareInputs()
            try step()
        }
        return try appendChosen() ? nil : output()
    }

    // MARK: Steps

    /// Runs the model over each item's prompt once, however many copies of it are decoded.
    private mutating func prefill() throws {
        let copies = request.copies
        inputs = (0..<request.items).map {
            RowTokens(row: $0 * copies, tokens: Array(request.inputs.tokens[$0][request.cachedTokens...]))
        }
        guard copies > 1 else { return try step() }
        request.modelRuns += 1
        let first = try session.feed(inputs, logits: .last) { batch in
            try request.check(batch, rows: request.items)
            return Array(batch.values.prefix(request.items * request.vocabularySize))
        }
        try session.gather((0..<request.rows).map { $0 / copies * copies })
        let width = request.vocabularySize
        var expanded = [Float]()
        expanded.reserveCapacity(request.rows * width)
        for row in 0..<request.rows { expanded += first[(row / copies * width)...].prefix(width) }
        try expanded.withUnsafeMutableBufferPointer {
            try choose(LogitsBatch(rows: request.rows, vocabularySize: width, values: $0))
        }
        inputs = fed.map { RowTokens(row: $0, tokens: [0]) }
    }

    private mutating func step() throws {
        request.modelRuns += 1
        if var parameters = device {
            parameters.step = UInt64(length - request.promptLength)
            chosen = try session.feed(inputs, sampling: parameters)
            guard chosen.count == inputs.count else {
                throw GenerationError.modelMisbehaved("\(inputs.count) tokens were due, got \(chosen.count)")
            }
            if let index = chosen.firstIndex(where: { $0 < 0 }) {
                throw GenerationError.noTokenAllowed(row: fed[index], position: length)
            }
            // In place: a step allocates nothing.
            chosenLogProbabilities.removeAll(keepingCapacity: true)
            for _ in chosen { chosenLogProbabilities.append(nil) }
        } else {
            try session.feed(inputs, logits: .last) { batch in
                try request.check(batch, rows: inputs.count)
                try choose(batch)
            }
        }
    }

    /// Selects on the host: one token for each of ``fed``, from its row of `batch`.
    private mutating func choose(_ batch: LogitsBatch) throws {
        request.recorder.recordLogits(batch, rows: fed, total: request.rows)
        contexts.removeAll(keepingCapacity: true)
        for row in fed { contexts.append(request.context(row, ids.row(row, count: length))) }
        try request.process(batch, contexts)
        request.recorder.recordScores(batch, rows: fed, total: request.rows)
        chosen.removeAll(keepingCapacity: true)
        chosenLogProbabilities.removeAll(keepingCapacity: true)
        for (index, row) in fed.enumerated() {
            let token = try request.choose(batch[index], row: row, step: length - request.promptLength)
            chosen.append(token)
            chosenLogProbabilities.append(request.logProbability(token, batch[index]))
        }
    }

    /// Appends a token to every row (the chosen one, or padding) and finds which rows end. False when all have.
    private mutating func appendChosen() throws -> Bool {
        ids.reserve(length + 1, used: length)
        for row in 0..<request.rows { ids[row, length] = request.pad }
        for (index, row) in fed.enumerated() { ids[row, length] = chosen[index] }
        length += 1
        let outOfTime = request.stopping.isOutOfTime
        for (index, row) in fed.enumerated() where reasons[row] == nil {
            counts[row] += 1
            if let value = chosenLogProbabilities[index] { logProbabilities[row].append(value) }
            reasons[row] = try request.stopping.finishReason(
                request.context(row, ids.row(row, count: length)), outOfTime: outOfTime)
            try request.onToken?(
                GeneratedToken(
                    row: row, step: counts[row] - 1, id: chosen[index], logProbability: chosenLogProbabilities[index],
                    finishReason: reasons[row]))
        }
        return reasons.contains { $0 == nil }
    }

    /// The next feed: the last token of every row that goes on.
    private mutating func prepareInputs() {
        let isLastColumnFedAlone = inputs.allSatisfy { $0.tokens.count == 1 }
        let ended = !request.eos.isEmpty && fed.contains { reasons[$0] != nil }
        if ended { fed.removeAll { reasons[$0] != nil } }
        if ended || !isLastColumnFedAlone || inputs.count != fed.count {
            inputs = fed.map { RowTokens(row: $0, tokens: [0]) }
        }
        for (index, row) in fed.enumerated() { inputs[index].tokens[0] = ids[row, length - 1] }
    }

    // MARK: Result

    private func output() -> GenerationOutput {
        request.finished(
            GenerationOutput(
                sequences: (0..<request.rows).map { Array(ids.row($0, count: length)) }, promptLength: request.promptLength,
                newTokenCounts: counts, finishReasons: reasons,
                tokenLogProbabilities: request.wantsLogProbabilities ? logProbabilities : nil, scores: request.recorder.scores,
                logits: request.recorder.logits, seed: request.config.doSample ?? false ? request.random.seed : nil,
                warnings: request.warnings))
    }
}
