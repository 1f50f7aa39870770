import Nibble
import NibbleServing
import Testing

/// The engine over a real model: what comes out is what `generate` gives.
@Suite(.disabled("models have no executor yet"))
struct EngineFacadeTests {
    private static let prompts = ["Once upon a time", "The dog", "Lily went to the park with her mom.", "One day, a big"]

    private func engine(_ configuration: EngineConfiguration = EngineConfiguration(maxBatch: 4, context: 256)) async throws
        -> Engine
    {
        let (model, tokenizer) = try ExampleModel.stories.get()
        return try await model.engine(configuration, tokenizer: tokenizer)
    }

    /// All that came of a request.
    private struct Outcome {
        var texts: [String]
        var tokens: [[GeneratedToken]]
        var reasons: [FinishReason?]
        var newTokens: [Int]
        var cachedTokens = 0
    }

    private func outcome(_ request: EngineRequest, _ engine: Engine, choices: Int = 1) async throws -> Outcome {
        var outcome = Outcome(
            texts: Array(repeating: "", count: choices), tokens: Array(repeating: [], count: choices),
            reasons: Array(repeating: nil, count: choices), newTokens: Array(repeating: 0, count: choices))
        for try await event in engine.submit(request) {
            switch event {
            case .delta(let choice, let text, let tokens):
                outcome.texts[choice] += text
                outcome.tokens[choice] += tokens
            case .finished(let choice, let reason, let promptTokens, let cachedTokens, let newTokens):
                #expect(promptTokens == request.prompt.count)
                outcome.reasons[choice] = reason
                outcome.newTokens[choice] = newTokens
                outcome.cachedTokens += cachedTokens
            }
        }
        return outcome
    }

    private func check(_ outcome: Outcome, _ inputs: BatchEncoding, _ config: GenerationConfig) async throws {
        let (model, tokenizer) = try ExampleModel.stories.get()
        let output = try await model.generate(inputs, config, tokenizer: tokenizer)
        for row in output.sequences.indices {
            let tokens = Array(output.newTokens(row: row))
            #expect(outcome.tokens[row].map(\.id) == tokens)
            #expect(outcome.tokens[row].map(\.step) == Array(tokens.indices))
            #expect(outcome.texts[row] == tokenizer.decode(tokens, skipSpecialTokens: true))
            #expect(outcome.reasons[row] == output.finishReasons[row])
            #expect(outcome.newTokens[row] == tokens.count)
        }
    }

    @Test("a request's text is generate's, greedy and sampled", arguments: prompts, [false, true])
    func equalToGenerate(prompt: String, samples: Bool) async throws {
        let inputs = try ExampleModel.stories.get().tokenizer(prompt)
        let config = GenerationConfig(
            maxNewTokens: 40, doSample: samples, temperature: samples ? 0.8 : nil, topP: samples ? 0.95 : nil, seed: 17)
        let engine = try await engine()
        try await check(outcome(EngineRequest(inputs.inputIDs[0], config), engine), inputs, config)
    }

    @Test("several answers are the sequences that generate returns")
    func choices() async throws {
        let inputs = try ExampleModel.stories.get().tokenizer("Once upon a time")
        let config = GenerationConfig(maxNewTokens: 30, doSample: true, numReturnSequences: 3, seed: 5)
        let engine = try await engine()
        try await check(outcome(EngineRequest(inputs.inputIDs[0], config), engine, choices: 3), inputs, config)
    }

    @Test("a penalty, a minimum length and forbidden tokens have generate's effect")
    func processors() async throws {
        let inputs = try ExampleModel.stories.get().tokenizer("Once upon a time")
        var config = GenerationConfig(maxNewTokens: 40, minNewTokens: 10, doSample: false, repetitionPenalty: 1.3)
        config.suppressTokens = [10, 11, 12]
        let engine = try await engine()
        try await check(outcome(EngineRequest(inputs.inputIDs[0], config), engine), inputs, config)
    }

    @Test("a stop string ends the text with it, as in generate, or before it", arguments: [true, false])
    func stopStrings(isIncluded: Bool) async throws {
        let (model, tokenizer) = try ExampleModel.stories.get()
        let inputs = try tokenizer("Once upon a time")
        var config = GenerationConfig(maxNewTokens: 60, doSample: false)
        let whole = try await model.generate(inputs, config)
        let text = tokenizer.decode(Array(whole.newTokens(row: 0)), skipSpecialTokens: true)
        // A string in the middle that begins within a word.
        let stop = String(text.dropFirst(20).prefix(9))
        try #require(stop.count == 9)
        config.stopStrings = [stop]
        let engine = try await engine()
        var request = EngineRequest(inputs.inputIDs[0], config)
        request.includesStopString = isIncluded
        let outcome = try await outcome(request, engine)
        #expect(outcome.reasons == [.stopString(stop)])
        if isIncluded {
            try await check(outcome, inputs, config)
        } else {
            #expect(outcome.texts == [String(text.prefix(upTo: try #require(text.range(of: stop)).lowerBound))])
        }
    }

    @Test("an encoder-decoder answers as generate does", arguments: [false, true])
    func encoderDecoder(samples: Bool) async throws {
        let (model, tokenizer) = try ExampleModel.spelling.get()
        let inputs = try tokenizer("Ths is a smal test")
        let config = GenerationConfig(maxNewTokens: 24, doSample: samples, seed: 3)
        let engine = try await model.engine(EngineConfiguration(maxBatch: 2, context: 64), tokenizer: tokenizer)
        let outcome = try await outcome(EngineRequest(inputs.inputIDs[0], config), engine)
        let output = try await model.generate(inputs, config)
        #expect(outcome.tokens[0].map(\.id) == Array(output.newTokens(row: 0)))
    }

    @Test("log probabilities are those of the model")
    func logProbabilities() async throws {
        let (model, tokenizer) = try ExampleModel.stories.get()
        let inputs = try tokenizer("Once upon a time")
        let config = GenerationConfig(maxNewTokens: 12, doSample: false)
        var request = EngineRequest(inputs.inputIDs[0], config)
        request.logProbabilities = 3
        let outcome = try await outcome(request, engine())
        var same = GenerationRequest(inputs: inputs.inputIDs, config: config)
        same.logProbabilities = true
        let output = try await model.generate(same)
        let expected = try #require(output.tokenLogProbabilities?.first)
        #expect(outcome.tokens[0].count == expected.count)
        for (token, value) in zip(outcome.tokens[0], expected) {
            #expect(abs((token.logProbability ?? 1) - value) < 1e-3)
            #expect(token.mostProbable.count == 3 && token.mostProbable[0].token == token.id)
        }
    }

    @Test("a prompt that was seen is found in the cache")
    func cache() async throws {
        let tokenizer = try ExampleModel.stories.get().tokenizer
        let prompt = Array(tokenizer.encode(String(repeating: "Once upon a time there was a dog. ", count: 12)).prefix(100))
        let engine = try await engine()
        let request = EngineRequest(prompt, GenerationConfig(maxNewTokens: 8, doSample: false))
        let first = try await outcome(request, engine)
        let second = try await outcome(request, engine)
        #expect(first.cachedTokens == 0 && second.cachedTokens == 96)
        #expect(first.tokens[0].map(\.id) == second.tokens[0].map(\.id))
    }

    @Test("what cannot be served is thrown by the sequence")
    func refusals() async throws {
        let engine = try await engine(EngineConfiguration(maxBatch: 2, context: 64))
        func refuses(_ error: EngineError, _ request: EngineRequest) async {
            await #expect(throws: error) { for try await _ in engine.submit(request) {} }
        }
        await refuses(.unsupported(field: "num_beams"), EngineRequest([5], GenerationConfig(maxNewTokens: 2, numBeams: 2)))
        await refuses(
            .promptTooLong(tokens: 64, context: 64),
            EngineRequest(Array(repeating: 5, count: 64), GenerationConfig(maxNewTokens: 2)))
        await #expect(throws: ModelError.self) {
            for try await _ in engine.submit(EngineRequest([1 << 30], GenerationConfig(maxNewTokens: 2))) {}
        }
        engine.drain()
        await refuses(.isDraining, EngineRequest([5], GenerationConfig(maxNewTokens: 2)))
        await engine.shutdown(timeout: .seconds(60))
    }
}
