internal import NibbleCore
internal import NibbleModels

/// Greedy decoding and sampling: each row takes one token a step, until all rows have ended.
struct SamplingLoop {
    private let run: GenerationRun
    private let session: any DecodingSession
    private let ids: RowMatrix<Int32>
    private var length: Int
    private var reasons: [FinishReason?]
    private var counts: [Int]
    private var logProbabilities: [[Float]]
    /// Rows the model still computes. A finished row stays among them where there is no eos to end it: the reference then
    /// ends all rows together.
    private var fed: [Int]
    private var inputs: [RowTokens] = []
    private var contexts: [RowContext] = []
    /// The step's tokens, one for each of ``fed``.
    private var chosen: [Int32] = []
    private var chosenLogProbabilities: [Float?] = []

    init(_ run: GenerationRun) throws {
        self.run = run
        session = try run.makeSession(run.model)
        try run.prepareGuidance()
        length = run.promptLength
        ids = RowMatrix(rows: run.rows, capacity: min(run.maxLength, run.promptLength + 256))
        for row in 0..<run.rows { ids.setRow(row, to: run.inputs.prompts[row / run.copies]) }
        reasons = Array(repeating: nil, count: run.rows)
        counts = Array(repeating: 0, count: run.rows)
        logProbabilities = Array(repeating: [], count: run.rows)
        fed = Array(0..<run.rows)
    }

    mutating func generate() throws -> GenerationOutput {
        let device = run.deviceParameters
        try prefill(device)
        while try appendChosen() {
            prepareInputs()
            try step(device)
        }
        return output()
    }

    // MARK: Steps

    /// Runs the model over each item's prompt once, whatever the number of its copies.
    private mutating func prefill(_ device: SamplingParameters?) throws {
        let copies = run.copies
        inputs = (0..<run.items).map { RowTokens(row: $0 * copies, tokens: run.inputs.tokens[$0]) }
        guard copies > 1 else { return try step(device) }
        let first = try session.feed(inputs, logits: .last) { batch in
            try run.check(batch, rows: run.items)
            return Array(batch.values.prefix(run.items * run.vocabularySize))
        }
        try session.gather((0..<run.rows).map { $0 / copies * copies })
        let width = run.vocabularySize
        var expanded = (0..<run.rows).flatMap { first[($0 / copies * width)..<(($0 / copies + 1) * width)] }
        try expanded.withUnsafeMutableBufferPointer {
            try choose(LogitsBatch(rows: run.rows, vocabularySize: width, values: $0))
        }
        inputs = fed.map { RowTokens(row: $0, tokens: [0]) }
    }

    private mutating func step(_ device: SamplingParameters?) throws {
        if var parameters = device {
            parameters.step = UInt64(length - run.promptLength)
            chosen = try session.feed(inputs, sampling: parameters)
            guard chosen.count == inputs.count else {
                throw GenerationError.modelMisbehaved("\(inputs.count) tokens were due, got \(chosen.count)")
            }
            if let index = chosen.firstIndex(where: { $0 < 0 }) {
                throw GenerationError.noTokenAllowed(row: fed[index], position: length)
            }
            chosenLogProbabilities = Array(repeating: nil, count: chosen.count)
        } else {
            try session.feed(inputs, logits: .last) { batch in
                try run.check(batch, rows: inputs.count)
                try choose(batch)
            }
        }
    }

    /// Host selection: one token for each of ``fed`` from its row of `batch`.
    private mutating func choose(_ batch: LogitsBatch) throws {
        run.recorder.recordLogits(batch, rows: fed, total: run.rows)
        contexts.removeAll(keepingCapacity: true)
        for row in fed { contexts.append(run.context(row, ids.row(row, count: length))) }
        try run.process(batch, contexts)
        run.recorder.recordScores(batch, rows: fed, total: run.rows)
        chosen.removeAll(keepingCapacity: true)
        chosenLogProbabilities.removeAll(keepingCapacity: true)
        for (index, row) in fed.enumerated() {
            let token = try run.choose(batch[index], row: row, step: length - run.promptLength)
            chosen.append(token)
            chosenLogProbabilities.append(run.logProbability(token, batch[index]))
        }
    }

    /// Appends a token to every row (the chosen one, or padding) and finds which rows end. False when all have.
    private mutating func appendChosen() throws -> Bool {
        ids.reserve(length + 1, used: length)
        for row in 0..<run.rows { ids[row, length] = run.pad }
        for (index, row) in fed.enumerated() { ids[row, length] = chosen[index] }
        length += 1
        let outOfTime = run.stopping.isOutOfTime
        for (index, row) in fed.enumerated() where reasons[row] == nil {
            counts[row] += 1
            if let value = chosenLogProbabilities[index] { logProbabilities[row].append(value) }
            reasons[row] = try run.stopping.finishReason(
                run.context(row, ids.row(row, count: length)), outOfTime: outOfTime)
            try run.onToken?(
                GeneratedToken(
                    row: row, step: counts[row] - 1, id: chosen[index], logProbability: chosenLogProbabilities[index],
                    finishReason: reasons[row]))
        }
        return reasons.contains { $0 == nil }
    }

    /// The next feed: the last token of every row that goes on.
    private mutating func prepareInputs() {
        let isLastColumnFedAlone = inputs.allSatisfy { $0.tokens.count == 1 }
        let ended = !run.eos.isEmpty && fed.contains { reasons[$0] != nil }
        if ended { fed.removeAll { reasons[$0] != nil } }
        if ended || !isLastColumnFedAlone || inputs.count != fed.count {
            inputs = fed.map { RowTokens(row: $0, tokens: [0]) }
        }
        for (index, row) in fed.enumerated() { inputs[index].tokens[0] = ids[row, length - 1] }
    }

    // MARK: Result

    private func output() -> GenerationOutput {
        GenerationOutput(
            sequences: (0..<run.rows).map { Array(ids.row($0, count: length)) }, promptLength: run.promptLength,
            newTokenCounts: counts, finishReasons: reasons,
            tokenLogProbabilities: run.wantsLogProbabilities ? logProbabilities : nil, scores: run.recorder.scores,
            logits: run.recorder.logits, seed: run.config.doSample ?? false ? run.random.seed : nil,
            warnings: run.warnings)
    }
}
