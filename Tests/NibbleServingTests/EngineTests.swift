import NibbleCore
import NibbleModels
import NibbleServing
import NibbleTestSupport
import Synchronization
import Testing

/// The engine on its own thread, with an executor that shows every wrong block as a wrong text.
@Suite struct EngineTests {
    let control = ShadowModel.Control()

    func engine(
        slots: Int = 4, context: Int = 512, blocks: Int = 200, sharesPrefixes: Bool = true,
        _ options: EngineOptions = EngineOptions()
    ) async throws -> TokenEngine {
        let control = control
        return try await TokenEngine.start(options) {
            ShadowModel(slots: slots, context: context, blocks: blocks, sharesPrefixes: sharesPrefixes, control)
        }
    }

    static func submission(_ prompt: [Int32], new: Int, seed: UInt64 = 1, _ change: (inout Submission) -> Void = { _ in })
        -> Submission
    {
        var submission = Submission(ServingRequest(prompt: prompt, maxNewTokens: new))
        submission.selection.seed = seed
        change(&submission)
        return submission
    }

    static func prompt(_ count: Int, seed: Int = 0) -> [Int32] {
        (0..<count).map { Int32(mixed(UInt64(seed * 10_000 + $0)) % 50) }
    }

    /// Waits for the engine's own view of itself.
    static func wait(_ engine: TokenEngine, until isReached: (EngineStatus) -> Bool) async throws {
        try await NibbleTestSupport.wait { isReached(engine.status) }
    }

    // MARK: Many at once

    /// Prompts with common beginnings, different lengths, stop tokens and numbers of choices.
    static func mixedSubmissions(_ count: Int) -> [Submission] {
        var random = SeededGenerator(seed: 5)
        return (0..<count).map { index in
            var tokens = prompt(Int.random(in: 0...90, using: &random), seed: Int.random(in: 0..<4, using: &random))
            tokens += prompt(Int.random(in: 1...30, using: &random), seed: 100 + index)
            return submission(tokens, new: Int.random(in: 1...100, using: &random), seed: UInt64(index)) { submission in
                if Bool.random(using: &random) { submission.request.stopTokens = [Int32.random(in: 0..<50, using: &random)] }
                if index % 10 == 0 { submission.request.choices = Int.random(in: 2...4, using: &random) }
                submission.request.client = ["a", "b", "c"][index % 3]
                if index % 7 == 0 { submission.logProbabilities = 2 }
            }
        }
    }

    @Test("in a crowd, with preemptions, slow readers and cancellations, every text is the one it has alone")
    func crowd() async throws {
        // 16 blocks of 32 for 8 sequences of up to 220 tokens. The first step waits until all requests are there.
        control.isGated.store(true, ordering: .sequentiallyConsistent)
        let engine = try await engine(slots: 8, context: 256, blocks: 16)
        let submissions = Self.mixedSubmissions(400)
        let compared = try await withThrowingTaskGroup(of: Int.self) { group in
            for (index, submission) in submissions.enumerated() {
                let answers = try engine.submit(submission)
                group.addTask { try await Self.check(answers, submission, index) }
            }
            control.open()
            return try await group.reduce(0, +)
        }
        #expect(compared > 300)
        try await Self.wait(engine) { $0.running == 0 && $0.waitingRequests == 0 }
        let status = engine.status
        #expect(status.usedBlocks == 0)
        #expect(status.preemptions > 0 && status.cachedTokens > 0 && status.chosenTokens > 0)
        #expect(status.isHealthy())
        #expect(control.faults.withLock(\.self) == [])
    }

    /// Reads one request in the way that its number says. Answers how many of its answers were compared.
    private static func check(_ answers: AnswerStream, _ submission: Submission, _ index: Int) async throws -> Int {
        let choices = submission.request.choices
        if index % 9 == 4 {
            // Leaves after some tokens, or none.
            let some = try await Collected.from(answers, choices: choices, limit: index % 5)
            for (choice, tokens) in some.tokens.enumerated() {
                #expect(ShadowText.answer(submission, choice: choice).starts(with: tokens))
            }
            return 0
        }
        let all = try await Collected.from(answers, choices: choices, pause: index % 11 == 3 ? .milliseconds(2) : .zero)
        for choice in 0..<choices {
            let expected = ShadowText.answer(submission, choice: choice)
            #expect(all.tokens[choice] == expected, "request \(index), choice \(choice)")
            let isStopped = expected.last.map(submission.request.stopTokens.contains) ?? false
            #expect(all.finishes[choice] == (isStopped ? .stopToken : .length))
            if submission.logProbabilities != nil {
                #expect(all.scores[choice].map(\.chosen) == expected.map { -Float($0) })
                #expect(all.scores[choice].allSatisfy { $0.top.count == 2 })
            }
        }
        return choices
    }

    @Test("what comes while nobody reads is read at once")
    func slowReader() async throws {
        let engine = try await engine()
        let submission = Self.submission(Self.prompt(40), new: 100)
        let answers = try engine.submit(submission)
        try await Self.wait(engine) { $0.chosenTokens == 100 && $0.running == 0 }
        let all = try await Collected.from(answers)
        #expect(all.parts == 1)
        #expect(all.tokens == [ShadowText.answer(submission)] && all.finishes == [.length] && all.cachedTokens == [0])
    }

    @Test("an equal beginning is found in the cache, unless the executor forbids it", arguments: [true, false])
    func prefixes(sharesPrefixes: Bool) async throws {
        let engine = try await engine(sharesPrefixes: sharesPrefixes)
        let submission = Self.submission(Self.prompt(100), new: 3)
        _ = try await Collected.from(try engine.submit(submission))
        let again = try await Collected.from(try engine.submit(submission))
        #expect(again.tokens == [ShadowText.answer(submission)])
        #expect(again.cachedTokens == [sharesPrefixes ? 96 : 0])
    }

    // MARK: Ends

    @Test("a request is cancelled in the queue, in its prompt and while it decodes")
    func cancellation() async throws {
        control.isGated.store(true, ordering: .sequentiallyConsistent)
        let engine = try await engine(slots: 2)
        let decoding = try engine.submit(Self.submission(Self.prompt(10), new: 400))
        let inPrompt = try engine.submit(Self.submission(Self.prompt(300, seed: 1), new: 400))
        let queued = try engine.submit(Self.submission(Self.prompt(10, seed: 2), new: 400))
        // Two steps: the first has a token and is told to everybody when the second has begun.
        for _ in 0..<2 { control.gate.signal() }
        try await Self.wait(engine) { $0.steps == 2 }
        #expect(engine.status.chosenTokens > 0 && engine.status.waitingRequests == 1)
        for answers in [queued, inPrompt, decoding] { answers.cancel() }
        control.open()
        for answers in [decoding, inPrompt, queued] {
            #expect(try await Collected.from(answers).finishes == [.cancelled])
        }
        try await Self.wait(engine) { $0.running == 0 && $0.usedBlocks == 0 && $0.waitingRequests == 0 }
    }

    @Test("who has gone is counted no more while the next step runs")
    func goneBeforeTheStep() async throws {
        control.isGated.store(true, ordering: .sequentiallyConsistent)
        let engine = try await engine(slots: 2)
        let staying = try engine.submit(Self.submission(Self.prompt(10), new: 400))
        let leaving = try engine.submit(Self.submission(Self.prompt(10, seed: 1), new: 400))
        for _ in 0..<2 { control.gate.signal() }
        try await Self.wait(engine) { $0.steps == 2 && $0.running == 2 }
        leaving.cancel()
        // The third step ends, and the fourth waits.
        control.gate.signal()
        try await Self.wait(engine) { $0.running == 1 && $0.steps == 3 }
        #expect(try await Collected.from(leaving).finishes == [.cancelled])
        staying.cancel()
        control.open()
    }

    @Test("cancelling the task that reads ends the request")
    func cancelledTask() async throws {
        let engine = try await engine(context: 100_000, blocks: 4000)
        let answers = try engine.submit(Self.submission(Self.prompt(10), new: 90_000))
        let reader = Task { try await Collected.from(answers) }
        try await Self.wait(engine) { $0.chosenTokens > 0 }
        reader.cancel()
        await #expect(throws: CancellationError.self) { try await reader.value }
        try await Self.wait(engine) { $0.running == 0 && $0.usedBlocks == 0 }
        #expect(engine.status.chosenTokens < 90_000)
    }

    @Test("letting go of the answers ends the request")
    func forgotten() async throws {
        let engine = try await engine(context: 6000)
        var answers: AnswerStream? = try engine.submit(Self.submission(Self.prompt(10), new: 5000))
        _ = try await answers?.next()
        answers = nil
        try await Self.wait(engine) { $0.running == 0 && $0.usedBlocks == 0 }
    }

    @Test("one answer of several is ended by its reader")
    func stopString() async throws {
        let engine = try await engine(context: 6000)
        let submission = Self.submission(Self.prompt(10), new: 200) { $0.request.choices = 2 }
        let answers = try engine.submit(submission)
        answers.finish(choice: 1)
        let all = try await Collected.from(answers, choices: 2)
        #expect(all.finishes[0] == .length && all.tokens[0] == ShadowText.answer(submission))
        #expect(all.finishes[1] == .stopString || all.finishes[1] == .length)
    }

    @Test("a deadline ends what waits and what runs")
    func deadlines() async throws {
        let engine = try await engine(slots: 1, context: 6000)
        control.isGated.store(true, ordering: .sequentiallyConsistent)
        let running = try engine.submit(Self.submission(Self.prompt(10), new: 5000) { $0.timeLimit = .milliseconds(1) })
        let waiting = try engine.submit(Self.submission(Self.prompt(10), new: 5000) { $0.timeLimit = .milliseconds(1) })
        let free = try engine.submit(Self.submission(Self.prompt(10), new: 5))
        try await Task.sleep(for: .milliseconds(2))
        control.open()
        #expect(try await Collected.from(running).finishes == [.deadline])
        let never = try await Collected.from(waiting)
        #expect(never.finishes == [.deadline])
        #expect(try await Collected.from(free).finishes == [.length])
    }

    // MARK: Errors

    @Test("a row that fails ends alone", arguments: [Float(-1), -2])
    func failedRow(temperature: Float) async throws {
        let engine = try await engine()
        let good = Self.submission(Self.prompt(50), new: 40)
        let bad = Self.submission(Self.prompt(50), new: 40) { $0.selection.temperature = temperature }
        let answers = try [good, bad, good, bad].map { try engine.submit($0) }
        for (index, answer) in answers.enumerated() {
            let all = try await Collected.from(answer)
            if index % 2 == 0 {
                #expect(all.tokens == [ShadowText.answer(good)] && all.finishes == [.length])
            } else if case .failed(let reason) = all.finishes[0] {
                #expect(reason.contains(temperature == -1 ? "record cannot be written" : "no token can be chosen"))
            } else {
                Issue.record("the row has not failed: \(all.finishes)")
            }
        }
        try await Self.wait(engine) { $0.running == 0 && $0.usedBlocks == 0 }
        #expect(engine.status.life == .running)
    }

    @Test("a failing step ends every request and the engine")
    func failedStep() async throws {
        control.failingStep.store(5, ordering: .sequentiallyConsistent)
        let engine = try await engine(slots: 2)
        // Whoever submits late is refused with the same error.
        let answers = (0..<6).compactMap { try? engine.submit(Self.submission(Self.prompt(10, seed: $0), new: 100)) }
        #expect(!answers.isEmpty)
        let failure = EngineError.engineFailed("the device is gone")
        for answer in answers { await #expect(throws: failure) { try await Collected.from(answer) } }
        #expect(engine.status.life == .failed(failure) && !engine.status.isHealthy())
        #expect(throws: failure) { try engine.submit(Self.submission(Self.prompt(10), new: 1)) }
        await engine.shutdown(timeout: .zero)
    }

    @Test("an executor that cannot be made is an error")
    func noExecutor() async {
        await #expect(throws: ShadowModel.Failure.self) {
            try await TokenEngine.start { throw ShadowModel.Failure(description: "no memory") }
        }
    }

    @Test("work gets pieces between steps, and ends with what it throws, with its task, or with the engine")
    func work() async throws {
        let engine = try await engine(slots: 2, context: 64)
        let pieces = Mutex(0)
        try await engine.perform {
            pieces.withLock {
                $0 += 1
                return $0 == 5
            }
        }
        #expect(pieces.withLock(\.self) == 5)
        await #expect(throws: ShadowModel.Failure.self) {
            try await engine.perform { throw ShadowModel.Failure(description: "no memory") }
        }
        let endless = Task { try await engine.perform { false } }
        let answers = try engine.submit(Self.submission(Self.prompt(10), new: 20))
        #expect(try await Collected.from(answers).finishes == [.length])
        endless.cancel()
        await #expect(throws: CancellationError.self) { try await endless.value }
        await engine.shutdown(timeout: .seconds(5))
        await #expect(throws: EngineError.isDraining) { try await engine.perform { true } }
    }

    @Test("what cannot run is refused at once")
    func refusals() async throws {
        control.isGated.store(true, ordering: .sequentiallyConsistent)
        var options = EngineOptions()
        options.queuedRequests = 3
        let engine = try await engine(slots: 2, context: 64, options)
        func refuses(_ error: EngineError, _ submission: Submission) {
            #expect(throws: error) { try engine.submit(submission) }
        }
        refuses(.emptyPrompt, Self.submission([], new: 1))
        refuses(.invalidCount(field: "maxNewTokens", found: 0), Self.submission([1], new: 0))
        refuses(.promptTooLong(tokens: 64, context: 64), Self.submission(Self.prompt(64), new: 1))
        refuses(.tooManyChoices(asked: 3, slots: 2), Self.submission([1], new: 1) { $0.request.choices = 3 })
        #expect(throws: ModelError.self) { try engine.submit(Self.submission([50], new: 1)) }
        #expect(throws: ModelError.self) { try engine.submit(Self.submission([-1], new: 1)) }
        var held: [AnswerStream] = []
        for _ in 0..<2 { held.append(try engine.submit(Self.submission([1], new: 1))) }
        // The first two are in the step that waits.
        try await Self.wait(engine) { $0.heartbeat.lastStepBegan != nil }
        while true {
            do {
                held.append(try engine.submit(Self.submission([1], new: 1)))
            } catch {
                #expect(error as? EngineError == .queueIsFull(requests: 3))
                break
            }
        }
        #expect(held.count >= 3 && held.count <= 5)
        control.open()
        for answers in held { #expect(try await Collected.from(answers).finishes == [.length]) }
    }

    // MARK: The engine's end

    @Test("a draining engine takes nothing new and finishes what it has")
    func drain() async throws {
        let engine = try await engine(slots: 2)
        let submissions = (0..<6).map { Self.submission(Self.prompt(20, seed: $0), new: 50) }
        let answers = try submissions.map { try engine.submit($0) }
        engine.drain()
        #expect(throws: EngineError.isDraining) { try engine.submit(submissions[0]) }
        for (answer, submission) in zip(answers, submissions) {
            #expect(try await Collected.from(answer).tokens == [ShadowText.answer(submission)])
        }
        await engine.shutdown(timeout: .seconds(3600))
        #expect(engine.status.life == .stopped)
        #expect(throws: EngineError.isDraining) { try engine.submit(submissions[0]) }
    }

    @Test("a shutdown ends what is left with an error")
    func shutdown() async throws {
        let engine = try await engine(slots: 2, context: 100_000, blocks: 10_000)
        let answers = try (0..<4).map { try engine.submit(Self.submission(Self.prompt(20, seed: $0), new: 90_000)) }
        try await Self.wait(engine) { $0.chosenTokens > 0 }
        await engine.shutdown(timeout: .zero)
        for answer in answers { await #expect(throws: EngineError.stopped) { try await Collected.from(answer) } }
        #expect(engine.status.life == .stopped)
    }

    @Test("an idle engine that is let go of ends its thread")
    func letGo() async throws {
        let control = control
        let box = Mutex<WeakModel>(WeakModel())
        var engine: TokenEngine? = try await TokenEngine.start {
            let made = ShadowModel(slots: 1, context: 64, blocks: 2, control)
            box.withLock { $0.model = made }
            return made
        }
        #expect(engine?.status.life == .running)
        engine = nil
        try await NibbleTestSupport.wait { box.withLock { $0.model == nil } }
    }

    private struct WeakModel: @unchecked Sendable {
        weak var model: ShadowModel?
    }

    // MARK: Masks

    /// Allows the tokens whose remainder by 5 is the number of tokens accepted so far.
    final class Steps: TokenMaskProvider {
        private var accepted: [Int32] = []
        private let failsAfter: Int
        private let exhaustedAfter: Int

        init(failsAfter: Int = .max, exhaustedAfter: Int = .max) {
            self.failsAfter = failsAfter
            self.exhaustedAfter = exhaustedAfter
        }

        static func words(_ accepted: [Int32]) -> [Int32] {
            var words: [Int32] = [0, 0]
            for token in 0..<ShadowModel.vocabulary where token % 5 == accepted.count % 5 {
                words[token / 32] |= Int32(bitPattern: 1 << UInt32(token % 32))
            }
            return words
        }

        func mask(into words: UnsafeMutableBufferPointer<Int32>) {
            for (index, word) in Self.words(accepted).enumerated() { words[index] = word }
        }

        func accept(_ token: Int32) throws {
            accepted.append(token)
            if accepted.count == failsAfter { throw ShadowModel.Failure(description: "no text may follow") }
        }

        var isExhausted: Bool { accepted.count == exhaustedAfter }

        func rollback(_ count: Int) { accepted.removeLast(count) }
    }

    @Test("masked answers hold what is allowed, also after preemption, beside answers without masks")
    func masks() async throws {
        let engine = try await engine(slots: 4, context: 256, blocks: 12)
        let submissions = (0..<24).map { index in
            Self.submission(Self.prompt(40, seed: index), new: 100, seed: UInt64(index)) { submission in
                if index % 3 != 0 { submission.masks = { _ in Steps() } }
                if index % 8 == 1 { submission.request.choices = 2 }
            }
        }
        let answers = try submissions.map { try engine.submit($0) }
        for (answer, submission) in zip(answers, submissions) {
            let choices = submission.request.choices
            let all = try await Collected.from(answer, choices: choices)
            for choice in 0..<choices {
                let mask: (([Int32]) -> [Int32])? = submission.masks == nil ? nil : { Steps.words($0) }
                #expect(all.tokens[choice] == ShadowText.answer(submission, choice: choice, mask: mask))
            }
        }
        #expect(engine.status.preemptions > 0)
        #expect(control.faults.withLock(\.self) == [])
    }

    @Test("an answer of which the mask allows nothing more is complete", arguments: [1, 7, 20])
    func exhaustedMask(count: Int) async throws {
        let engine = try await engine()
        let submission = Self.submission(Self.prompt(30), new: 20) { $0.masks = { _ in Steps(exhaustedAfter: count) } }
        let all = try await Collected.from(engine.submit(submission))
        #expect(all.tokens[0].count == count)
        #expect(all.finishes == [count == 20 ? .length : .complete])
    }

    @Test("a mask that fails ends its answer alone")
    func failedMask() async throws {
        let engine = try await engine()
        let good = Self.submission(Self.prompt(30), new: 20)
        let bad = Self.submission(Self.prompt(30), new: 20) { $0.masks = { _ in Steps(failsAfter: 7) } }
        let unmade = Self.submission(Self.prompt(30), new: 20) { submission in
            submission.masks = { _ in throw ShadowModel.Failure(description: "no grammar") }
        }
        let answers = try [good, bad, unmade].map { try engine.submit($0) }
        #expect(try await Collected.from(answers[0]).tokens == [ShadowText.answer(good)])
        let failed = try await Collected.from(answers[1])
        #expect(failed.tokens[0].count == 7 && failed.finishes == [.failed("no text may follow")])
        #expect(try await Collected.from(answers[2]).finishes == [.failed("no grammar")])
    }
}
