import NibbleModels
import NibbleServing
import Testing

/// One engine over several executors.
@Suite struct ReplicaTests {
    private func engine(_ controls: [ShadowModel.Control], slots: Int = 4) async throws -> TokenEngine {
        try await TokenEngine.start(
            EngineOptions(),
            makeExecutors: controls.map { control in { ShadowModel(slots: slots, context: 512, blocks: 100, control) } })
    }

    @Test("requests go where the fewest tokens wait, and every text is the one it has alone", arguments: [2, 3])
    func divided(count: Int) async throws {
        let controls = (0..<count).map { _ in ShadowModel.Control() }
        for control in controls { control.isGated.store(true, ordering: .sequentiallyConsistent) }
        let engine = try await engine(controls)
        let submissions = EngineTests.mixedSubmissions(30)
        let answers = try submissions.map { ($0, try engine.submit($0)) }
        #expect(engine.status.waitingRequests + engine.status.running > 0)
        for control in controls { control.open() }
        for (submission, answer) in answers {
            let all = try await Collected.from(answer, choices: max(submission.request.choices, 1))
            #expect(all.tokens[0] == ShadowText.answer(submission))
        }
        let steps = controls.map { $0.steps.load(ordering: .sequentiallyConsistent) }
        #expect(steps.allSatisfy { 2 * $0 * count > steps.reduce(0, +) }, "one had less than half of its share: \(steps)")
        try await EngineTests.wait(engine) { $0.running == 0 && $0.usedBlocks == 0 }
        await engine.shutdown(timeout: .seconds(3600))
        #expect(engine.status.life == .stopped)
        #expect(controls.allSatisfy { $0.faults.withLock(\.isEmpty) })
    }

    @Test("one executor that fails ends its own requests; the others go on and take the new ones")
    func failure() async throws {
        let controls = [ShadowModel.Control(), ShadowModel.Control()]
        controls[0].failingStep.store(3, ordering: .sequentiallyConsistent)
        let engine = try await engine(controls)
        let submissions = (0..<8).map { EngineTests.submission(EngineTests.prompt(10, seed: $0), new: 50) }
        var failed = 0
        for answer in try submissions.map({ try engine.submit($0) }) {
            do { _ = try await Collected.from(answer) } catch { failed += 1 }
        }
        #expect(failed > 0 && failed < 8)
        #expect(!engine.status.isHealthy())
        for submission in submissions {
            #expect(try await Collected.from(try engine.submit(submission)).tokens == [ShadowText.answer(submission)])
        }
        await engine.shutdown(timeout: .zero)
    }

    @Test("if one executor cannot be made there is no engine")
    func noExecutor() async {
        await #expect(throws: ShadowModel.Failure.self) {
            try await TokenEngine.start(
                EngineOptions(),
                makeExecutors: [
                    { ShadowModel(slots: 1, context: 64, blocks: 2, ShadowModel.Control()) },
                    { throw ShadowModel.Failure(description: "no memory") },
                ])
        }
    }
}
