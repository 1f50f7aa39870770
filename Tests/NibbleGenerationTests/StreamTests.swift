import Foundation
import NibbleGeneration
import NibbleModels
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(10))) struct StreamTests {
    let generator = Generator(model: HashModel())

    @Test("A stream delivers every token in order, then the output")
    func delivers() async throws {
        let request = GenerationRequest(inputs: [[5, 6], [7, 8]], config: config(new: 40, eos: [2], pad: 0))
        let whole = try generator.generate(request)
        var tokens: [[Int32]] = [[], []]
        var reasons: [FinishReason?] = [nil, nil]
        var output: GenerationOutput?
        for try await event in generator.stream(request, buffering: 3) {
            switch event {
            case .token(let token):
                #expect(output == nil)
                #expect(token.step == tokens[token.row].count)
                tokens[token.row].append(token.id)
                reasons[token.row] = token.finishReason
            case .finished(let result): output = result
            }
        }
        #expect(output?.sequences == whole.sequences)
        #expect(reasons == whole.finishReasons)
        #expect(tokens == (0..<2).map { Array(whole.newTokens(row: $0)) })
    }

    @Test("The producer never runs further ahead than the buffer")
    func backPressure() async throws {
        let counter = Counter()
        var request = GenerationRequest(inputs: [[5]], config: config(new: 200))
        request.stopping = [
            { _ in
                counter.add()
                return false
            }
        ]
        var consumed = 0
        for try await event in generator.stream(request, buffering: 4) {
            guard case .token = event else { continue }
            consumed += 1
            await Task.yield()
            // In the buffer, and one in the producer's hand.
            #expect(counter.value <= consumed + 4 + 1)
        }
        #expect(consumed == 200)
    }

    @Test("Within a loop over a stream the same model can generate")
    func nested() async throws {
        let whole = greedy(HashModel(), [5], new: 20)
        var tokens: [Int32] = []
        for try await event in generator.stream(GenerationRequest(inputs: [[5]], config: config(new: 20)), buffering: 1) {
            guard case .token(let token) = event else { continue }
            tokens.append(token.id)
            let inner = try await generator.output(of: GenerationRequest(inputs: [[6]], config: config(new: 3)))
            #expect(Array(inner.newTokens(row: 0)) == greedy(HashModel(), [6], new: 3))
        }
        #expect(tokens == whole)
    }

    @Test("Generations take turns, a step each")
    func turns() async throws {
        let order = Mutex<[Int32]>([])
        let (started, begin) = AsyncStream<Void>.makeStream()
        @Sendable func request(_ first: Int32) -> GenerationRequest {
            var request = GenerationRequest(inputs: [[first]], config: config(new: 30))
            request.stopping = [
                { context in
                    order.withLock { $0.append(context.ids[0]) }
                    begin.yield()
                    return false
                }
            ]
            return request
        }
        // The second one begins while the first one's thread waits for it.
        var blocked = request(5)
        let gate = DispatchSemaphore(value: 0)
        blocked.stopping.append { context in
            if context.ids.count == 2 { gate.wait() }
            return false
        }
        let (generator, first) = (generator, blocked)
        async let one = generator.output(of: first)
        for await _ in started { break }
        let second = generator.stream(request(6), buffering: 100)
        gate.signal()
        for try await _ in second {}
        _ = try await one
        let turns = order.withLock { $0 }
        #expect(turns.count == 60)
        #expect(turns.dropFirst().prefix(58).enumerated().allSatisfy { $1 == ($0 % 2 == 0 ? 6 : 5) })
    }

    @Test("Leaving the loop ends the generation")
    func dropping() async throws {
        let (ended, continuation) = AsyncStream<Void>.makeStream()
        var consumed = 0
        do {
            let guardian = Guardian(continuation)
            var request = GenerationRequest(inputs: [[5]], config: config(new: 1_000_000))
            request.stopping = [{ _ in guardian.holds }]
            for try await _ in generator.stream(request, buffering: 2) {
                consumed += 1
                if consumed == 3 { break }
            }
        }
        // The request, and with it the guardian, goes away with the producing thread.
        for await _ in ended {}
        #expect(consumed == 3)
    }

    @Test("Cancelling the reading task ends the generation")
    func cancelling() async throws {
        let (ended, continuation) = AsyncStream<Void>.makeStream()
        let (started, begin) = AsyncStream<Void>.makeStream()
        let task = Task {
            let guardian = Guardian(continuation)
            var request = GenerationRequest(inputs: [[5]], config: config(new: 1_000_000))
            request.stopping = [{ _ in guardian.holds }]
            for try await _ in generator.stream(request) { begin.finish() }
        }
        for await _ in started {}
        task.cancel()
        _ = await task.result
        for await _ in ended {}
        #expect(task.isCancelled)
    }

    @Test("An error of the generation is thrown from the stream")
    func errors() async {
        await #expect(throws: GenerationError.self) {
            for try await _ in generator.stream(GenerationRequest(config: config(new: 0))) {}
        }
    }

    @Test("With beams only the end is delivered")
    func beams() async throws {
        let request = GenerationRequest(inputs: [[5]], config: config(new: 5) { $0.numBeams = 2 })
        var events = 0
        for try await event in generator.stream(request) {
            guard case .finished(let output) = event else { continue }
            #expect(output.sequences[0].count == 6)
            events += 1
        }
        #expect(events == 1)
    }

    @Test("What onToken throws ends the generation")
    func throwing() {
        struct Enough: Error {}
        var seen = 0
        #expect(throws: Enough.self) {
            try generator.generate(inputs: [[5]], config: config(new: 50)) { _ in
                seen += 1
                if seen == 4 { throw Enough() }
            }
        }
        #expect(seen == 4)
    }
}

/// Finishes a stream when the last closure that holds it is gone.
private final class Guardian: Sendable {
    private let continuation: AsyncStream<Void>.Continuation
    let holds = false

    init(_ continuation: AsyncStream<Void>.Continuation) { self.continuation = continuation }

    deinit { continuation.finish() }
}

private final class Counter: Sendable {
    private let count = Atomic(0)

    func add() { count.add(1, ordering: .relaxed) }
    var value: Int { count.load(ordering: .relaxed) }
}
