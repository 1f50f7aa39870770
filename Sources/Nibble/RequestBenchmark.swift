import NibbleCore
package import NibbleGeneration
import NibbleModels
import NibbleServing
import Synchronization

/// Measures an engine under load.
package struct RequestBenchmark: Sendable {
    /// What the requests are like. Lengths are drawn from the ranges, by seeds of their own.
    package struct Load: Sendable {
        package var requests = 200
        package var promptRange = 32...512
        package var outputRange = 16...128
        /// Tokens that all prompts begin with.
        package var sharedPrefix = 0
        /// Requests a second; `nil`: all at once.
        package var rate: Double?
        /// Every second request samples, with top-p and a penalty; the others are greedy.
        package var mixesSampling = false
        /// What all answers must look like. They end where nothing can follow.
        package var grammar: GenerationGrammar?

        package init() {}

        /// Tokens of the longest possible sequence.
        package var longest: Int { sharedPrefix + promptRange.upperBound + outputRange.upperBound }
    }

    package struct Result: Sendable {
        package var requests: Int
        package var seconds: Double
        package var promptTokens: Int
        package var outputTokens: Int
        /// Seconds, sorted.
        package var firstTokens: [Double]
        package var gaps: [Double]
        package var preemptions: Int
        package var cachedTokens: Int
        /// After the last request.
        package var usedBlocks: Int
    }

    package struct LongPromptResult: Sendable {
        package var promptTokens: Int
        package var streams: Int
        /// Between two tokens of a stream while the prompt runs, in seconds.
        package var largestGap: Double
        package var targetStep: Double
        /// Of the long prompt.
        package var firstToken: Double
    }

    package struct LeakResult: Sendable {
        package var requests: Int
        package var cancelled: Int
        /// Bytes of `RssAnon` and `VmSwap` after a tenth of the requests, and at the end.
        package var early: Int
        package var late: Int
        package var usedBlocks: Int
    }

    private let owner: Engine
    private var engine: TokenEngine { owner.tokenEngine }

    package init(_ engine: Engine) { owner = engine }

    // MARK: Load

    package func run(_ load: Load) async throws -> Result {
        let masks = try load.grammar.map { try owner.masks($0, ends: []) }
        let before = engine.status
        let start = ContinuousClock.now
        let readings = try await withThrowingTaskGroup(of: Reading.self) { group in
            for number in 0..<load.requests {
                var submission = submission(number, load)
                submission.masks = masks
                if let rate = load.rate { try await Task.sleep(until: start + .seconds(Double(number) / rate)) }
                let submitted = ContinuousClock.now
                let answers = try engine.submit(submission)
                group.addTask { try await Reading.of(answers, since: submitted) }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        let after = try await idle()
        return Result(
            requests: load.requests, seconds: seconds, promptTokens: after.promptTokens - before.promptTokens,
            outputTokens: readings.reduce(0) { $0 + $1.tokens }, firstTokens: readings.compactMap(\.first).sorted(),
            gaps: readings.flatMap(\.gaps).sorted(), preemptions: after.preemptions - before.preemptions,
            cachedTokens: after.cachedTokens - before.cachedTokens, usedBlocks: after.usedBlocks)
    }

    private func submission(_ number: Int, _ load: Load) -> Submission {
        let stream = UInt64(number)
        let length = draw(load.promptRange, stream, 0)
        let prompt = tokens(load.sharedPrefix, stream: .max) + tokens(length, stream: stream)
        var submission = Submission(ServingRequest(prompt: prompt, maxNewTokens: draw(load.outputRange, stream, 1)))
        guard load.mixesSampling, number % 2 == 1 else { return submission }
        submission.selection.temperature = 0.8
        submission.selection.topP = 0.95
        submission.selection.repetitionPenalty = 1.1
        submission.selection.seed = stream
        return submission
    }

    private func draw(_ range: ClosedRange<Int>, _ stream: UInt64, _ counter: UInt64) -> Int {
        let number = RandomStream.uniform(seed: 7, stream: stream, counter: counter)
        return range.lowerBound + Int(Double(number) * Double(range.count))
    }

    private func tokens(_ count: Int, stream: UInt64) -> [Int32] {
        (0..<count).map { index in
            let number = RandomStream.uniform(seed: 3, stream: stream, counter: UInt64(index))
            return Int32(number * Float(engine.vocabularySize - 1))
        }
    }

    /// Ends the engine and waits until its memory is free: a process must not exit before.
    package func end() async { await engine.shutdown(timeout: .zero) }

    /// The engine's state once nothing runs.
    private func idle() async throws -> EngineStatus {
        while true {
            let status = engine.status
            if status.running == 0, status.waitingRequests == 0 { return status }
            try await Task.sleep(for: .milliseconds(1))
        }
    }

    // MARK: A long prompt

    private final class Progress: Sendable {
        /// Streams that have some tokens.
        let started = Atomic(0)
        let isOver = Atomic(false)
    }

    /// Streams decode; then a long prompt comes.
    package func longPrompt(_ length: Int, streams: Int = 8) async throws -> LongPromptResult {
        // Kernels are prepared and the time of steps is learned before anything counts.
        _ = try await Reading.of(engine.submit(Submission(ServingRequest(prompt: tokens(length, stream: 1), maxNewTokens: 4))))
        let tokensOfStream = engine.capacity - 32
        let progress = Progress()
        return try await withThrowingTaskGroup(of: [ContinuousClock.Instant].self) { group in
            for stream in 0..<streams {
                let prompt = tokens(16, stream: UInt64(100 + stream))
                let answers = try engine.submit(Submission(ServingRequest(prompt: prompt, maxNewTokens: tokensOfStream)))
                group.addTask {
                    try await Reading.times(answers) { count in
                        if count == 16 { progress.started.add(1, ordering: .relaxed) }
                        return !progress.isOver.load(ordering: .relaxed)
                    }
                }
            }
            while progress.started.load(ordering: .relaxed) < streams { try await Task.sleep(for: .milliseconds(1)) }
            let submitted = ContinuousClock.now
            let prompt = tokens(length, stream: 2)
            let reading = try await Reading.of(
                engine.submit(Submission(ServingRequest(prompt: prompt, maxNewTokens: 8))), since: submitted)
            let end = ContinuousClock.now
            progress.isOver.store(true, ordering: .relaxed)
            var largest = 0.0
            for try await times in group {
                for (last, next) in zip(times, times.dropFirst()) where next > submitted && last < end {
                    largest = max(largest, (next - last) / .seconds(1))
                }
            }
            return LongPromptResult(
                promptTokens: length, streams: streams, largestGap: largest,
                targetStep: engine.limits.targetStep / .seconds(1), firstToken: reading.first ?? 0)
        }
    }

    // MARK: Leaks

    /// Many small requests, twice as many at once as run side by side; one of ten is cancelled after a random number of
    /// its tokens.
    package func leaks(requests: Int) async throws -> LeakResult {
        var load = Load()
        load.promptRange = 4...24
        load.outputRange = 2...16
        var result = LeakResult(requests: requests, cancelled: 0, early: 0, late: 0, usedBlocks: 0)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<requests {
                if number >= 2 * engine.limits.slots { try await group.next() }
                if number == max(requests / 10, 1) { result.early = Self.anonymousMemory() }
                let isCancelled = draw(0...9, UInt64(number), 2) == 0
                if isCancelled { result.cancelled += 1 }
                let limit = isCancelled ? draw(0...8, UInt64(number), 3) : .max
                let answers = try engine.submit(submission(number, load))
                group.addTask { _ = try await Reading.of(answers, limit: limit) }
            }
            try await group.waitForAll()
        }
        result.usedBlocks = try await idle().usedBlocks
        result.late = Self.anonymousMemory()
        return result
    }

    private static func anonymousMemory() -> Int { (ProcessMemory.bytes("RssAnon") ?? 0) + (ProcessMemory.bytes("VmSwap") ?? 0) }
}

/// When the tokens of one request arrived.
private struct Reading: Sendable {
    var tokens = 0
    /// Seconds from the submission to the first token.
    var first: Double?
    /// Seconds between arrivals.
    var gaps: [Double] = []

    /// Reads at most `limit` tokens.
    /// - Throws: ``EngineError/answerFailed(choice:reason:)``
    static func of(_ answers: AnswerStream, since start: ContinuousClock.Instant = .now, limit: Int = .max) async throws
        -> Reading
    {
        var reading = Reading()
        var last = start
        while reading.tokens < limit, let parts = try await answers.next() {
            for part in parts {
                if case .failed(let reason) = part.finish { throw EngineError.answerFailed(choice: part.choice, reason: reason) }
                guard !part.tokens.isEmpty else { continue }
                let now = ContinuousClock.now
                let seconds = (now - last) / .seconds(1)
                if reading.first == nil { reading.first = seconds } else { reading.gaps.append(seconds) }
                reading.tokens += part.tokens.count
                last = now
            }
        }
        return reading
    }

    /// The times at which tokens arrive, while `goesOn`, which is told how many there are.
    static func times(
        _ answers: AnswerStream, while goesOn: @Sendable (Int) -> Bool
    ) async throws -> [ContinuousClock.Instant] {
        var times: [ContinuousClock.Instant] = []
        while goesOn(times.count), let parts = try await answers.next() {
            if parts.contains(where: { !$0.tokens.isEmpty }) { times.append(.now) }
        }
        return times
    }
}
