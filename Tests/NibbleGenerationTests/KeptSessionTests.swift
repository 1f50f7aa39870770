import NibbleGeneration
import NibbleModels
import Testing

/// A session that passes from one generation to the next, as in a chat.
@Suite(.timeLimit(.minutes(10))) struct KeptSessionTests {
    private let model = HashModel(vocabularySize: 24, seed: 4)
    private let kept = KeptSession()

    private func request(
        _ prompt: [Int32], new: Int = 6, _ change: (inout GenerationConfig) -> Void = { _ in }
    ) -> GenerationRequest {
        var request = GenerationRequest(inputs: [prompt], config: config(new: new, change))
        request.keptSession = kept
        return request
    }

    /// Generates, and expects what a model without a past gives, for `fed` tokens.
    private func expect(
        _ request: GenerationRequest, cached: Int, fed: Int, sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> [Int32] {
        var fresh = request
        fresh.keptSession = nil
        let wanted = try Generator(model: HashModel(vocabularySize: 24, seed: 4)).generate(fresh).sequences[0]
        let before = model.fedTokens.load(ordering: .relaxed)
        let output = try Generator(model: model).generate(request)
        #expect(output.sequences[0] == wanted, sourceLocation: sourceLocation)
        #expect(output.cachedTokens == cached, sourceLocation: sourceLocation)
        #expect(model.fedTokens.load(ordering: .relaxed) - before == fed, sourceLocation: sourceLocation)
        return output.sequences[0]
    }

    @Test("The next turn feeds what is new, and the last token of the answer")
    func turns() throws {
        let first = try expect(request([1, 2, 3]), cached: 0, fed: 3 + 5)
        let second = try expect(request(first + [7, 8]), cached: first.count - 1, fed: 3 + 5)
        _ = try expect(request(second + [9]), cached: second.count - 1, fed: 2 + 5)
    }

    @Test("Generating again feeds one token of the prompt")
    func again() throws {
        let prompt: [Int32] = [1, 2, 3, 4, 5]
        _ = try expect(request(prompt), cached: 0, fed: 5 + 5)
        _ = try expect(request(prompt), cached: 4, fed: 1 + 5)
        // The same prompt with other settings: the cache does not depend on them.
        _ = try expect(request(prompt) { $0.repetitionPenalty = 1.4 }, cached: 4, fed: 1 + 5)
        let sampled = request(prompt) {
            $0.doSample = true
            $0.seed = 3
        }
        _ = try expect(sampled, cached: 4, fed: 1 + 5)
    }

    @Test("A change is fed from the first token that differs", arguments: 0...5)
    func edited(position: Int) throws {
        var prompt: [Int32] = [1, 2, 3, 4, 5, 6]
        _ = try expect(request(prompt), cached: 0, fed: 6 + 5)
        prompt[position] = 20
        _ = try expect(request(prompt), cached: position, fed: 6 - position + 5)
    }

    @Test("A shorter prompt is cut from what is held")
    func shorter() throws {
        _ = try expect(request([1, 2, 3, 4, 5, 6]), cached: 0, fed: 6 + 5)
        _ = try expect(request([1, 2, 3]), cached: 2, fed: 1 + 5)
    }

    @Test("An error leaves a session that is sound", arguments: [1, 3, 6])
    func errors(token: Int) throws {
        struct Enough: Error {}
        let prompt: [Int32] = [1, 2, 3]
        var seen = 0
        #expect(throws: Enough.self) {
            try Generator(model: model).generate(request(prompt)) { _ in
                seen += 1
                if seen == token { throw Enough() }
            }
        }
        _ = try expect(request(prompt + [4]), cached: 3, fed: 1 + 5)
    }

    @Test("Proposals that were not accepted are not held", arguments: [0, 1])
    func assisted(memory: Int) throws {
        var first = request([1, 2, 3, 1, 2]) { $0.numAssistantTokens = 3 }
        first.assistant = memory == 0 ? HashModel(vocabularySize: 24, seed: 4) : HashModel(vocabularySize: 24, seed: 5)
        let sequence = try Generator(model: model).generate(first).sequences[0]
        _ = try expect(request(sequence + [7]), cached: sequence.count - 1, fed: 2 + 5)
        let lookup = request(sequence + [7, 1, 2]) { $0.promptLookupNumTokens = 3 }
        #expect(try Generator(model: model).generate(lookup).cachedTokens == sequence.count + 1)
    }

    @Test("Requests that cannot share it run beside it")
    func others() throws {
        let first = try expect(request([1, 2, 3]), cached: 0, fed: 3 + 5)
        var rows = request([1, 2, 3])
        rows.inputs = [[1, 2, 3], [4, 5, 6]]
        #expect(try Generator(model: model).generate(rows).cachedTokens == 0)
        #expect(try Generator(model: model).generate(request([1, 2, 3]) { $0.numBeams = 2 }).cachedTokens == 0)
        _ = try expect(request(first), cached: first.count - 1, fed: 1 + 5)
    }

    @Test("A stream that its reader left gives the session back")
    func leftStream() async throws {
        let prompt: [Int32] = [1, 2, 3]
        let generator = Generator(model: model)
        for try await _ in generator.stream(request(prompt, new: 1_000), buffering: 2) { break }
        // The thread lets go of the first one before it begins the next.
        let output = try await generator.output(of: request(prompt + [4], new: 2))
        #expect(output.sequences[0] == [1, 2, 3, 4] + greedy(model, [1, 2, 3, 4], new: 2))
        #expect(output.cachedTokens == 3)
    }

    @Test("A conversation outgrows no session while the model has positions")
    func growth() throws {
        let model = HashModel(vocabularySize: 24, maximumPositions: 5_000, seed: 4)
        var sequence: [Int32] = [1, 2, 3]
        for _ in 0..<4 {
            let fed = model.fedTokens.load(ordering: .relaxed)
            sequence = try Generator(model: model).generate(request(sequence, new: 600)).sequences[0]
            #expect(model.fedTokens.load(ordering: .relaxed) - fed <= 600 + 3)
        }
        #expect(sequence.count == 2_403)
    }
}
