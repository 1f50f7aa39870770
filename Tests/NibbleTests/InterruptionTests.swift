import Foundation
import Nibble
import NibbleCore
import NibbleGeneration
import NibbleModels
import NibbleTestSupport
import Synchronization
import Testing

/// Stopping in the middle of a prompt.
@Suite(.computing) struct InterruptionTests {
    private let stories: (model: PretrainedModel, tokenizer: Tokenizer)
    private let prompt: [Int32]

    init() throws {
        stories = try ExampleModel.stories.get()
        prompt = (0..<10_000).map { Int32($0 * 7 % 900 + 5) }
    }

    private struct Stopped: Error {}

    /// Throws from its `limit`-th question on.
    private final class Limit: Sendable {
        private let left: Atomic<Int>
        init(_ limit: Int) { left = Atomic(limit) }
        func ask() throws {
            if left.subtract(1, ordering: .relaxed).newValue < 0 { throw Stopped() }
        }
    }

    private final class Questions: Sendable {
        let count = Atomic(0)
    }

    @Test("a prompt is left between blocks, and the session holds what it held", arguments: [0, 1, 9, 40])
    func session(limit: Int) throws {
        let model = stories.model.model
        let session = try model.makeSession(SessionRequest(rows: 1, capacity: 11_000))
        let begun = Array(prompt.prefix(50))
        _ = try session.feed([RowTokens(row: 0, tokens: begun)], logits: .last) { $0.rows }
        let asked = Limit(limit)
        session.interruption = { try asked.ask() }
        #expect(throws: Stopped.self) {
            try session.feed([RowTokens(row: 0, tokens: prompt)], logits: .last) { $0.rows }
        }
        #expect(throws: Stopped.self) { try session.feed([RowTokens(row: 0, tokens: prompt)], sampling: .greedy) }
        #expect(session.length(ofRow: 0) == 50)
        session.interruption = nil
        let next = try session.feed([RowTokens(row: 0, tokens: [7])], logits: .last) { Array($0.values) }
        let fresh = try model.makeSession(SessionRequest(rows: 1, capacity: 100))
        let wanted = try fresh.feed([RowTokens(row: 0, tokens: begun + [7])], logits: .last) { Array($0.values) }
        expectEqual(next, wanted, model)
    }

    private func expectEqual(_ logits: [Float], _ wanted: [Float], _ model: LanguageModel) {
        #expect(logits.count == model.vocabularySize)
        #expect(wanted.count == model.vocabularySize)
        #expect(zip(logits, wanted).allSatisfy { abs($0 - $1) < 1e-3 })
    }

    @Test("a cancelled task leaves a long prompt at once")
    func task() async throws {
        let asked = Questions()
        var request = GenerationRequest(inputs: [prompt], config: GenerationConfig(maxNewTokens: 4, doSample: false))
        // The third question is answered when the task has been cancelled.
        let cancelled = DispatchSemaphore(value: 0)
        request.interruption = {
            if asked.count.add(1, ordering: .relaxed).newValue == 3 { cancelled.wait() }
        }
        let (model, given) = (stories.model, request)
        let task = Task { try await model.generate(given) }
        try await wait { asked.count.load(ordering: .relaxed) >= 3 }
        task.cancel()
        cancelled.signal()
        await #expect(throws: CancellationError.self) { try await task.value }
        // Far fewer questions than the whole prompt's chunks and blocks.
        let layers = model.model.architecture.decoder.layers.count
        #expect(asked.count.load(ordering: .relaxed) < 20 * layers)
    }

    @Test("results do not depend on how a prompt is cut", arguments: [1, 16, 100])
    func chunks(step: Int) throws {
        let model = stories.model.model
        let text = Array(prompt.prefix(600))
        let whole = try model.makeSession(SessionRequest(rows: 1, capacity: 700))
        let wanted = try whole.feed([RowTokens(row: 0, tokens: text)], logits: .last) { Array($0.values) }
        let session = try model.makeSession(SessionRequest(rows: 1, capacity: 700))
        var got = [Float]()
        for start in stride(from: 0, to: text.count, by: step) {
            let piece = Array(text[start..<min(start + step, text.count)])
            got = try session.feed([RowTokens(row: 0, tokens: piece)], logits: .last) { Array($0.values) }
        }
        expectEqual(got, wanted, model)
    }
}
