import Nibble
import NibbleGeneration
import NibbleGrammar
import NibbleServing
import NibbleTestSupport
import Testing

/// Grammars through the engine over a real model: the text is that of `generate` with the same grammar and seed.
@Suite(.computing)
struct EngineGrammarTests {
    private static let object = #"""
        {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["big", "small"]}, "maxItems": 3}}, "required": ["name", "age", "tags"]}
        """#

    /// What a request may be held to.
    enum Form: String, CaseIterable, Sendable {
        case schema, regex, gbnf

        func grammar() throws -> GenerationGrammar {
            switch self {
            case .schema: try GenerationGrammar(jsonSchema: EngineGrammarTests.object)
            case .regex: try GenerationGrammar(regex: "(The|A) [a-z]{3,9} (is|was) [a-z]{2,8}\\.")
            case .gbnf: try GenerationGrammar(gbnf: #"root ::= "(" [a-z]+ ("," root)? ")""#)
            }
        }
    }

    private struct Outcome: Equatable {
        var texts: [String]
        var tokens: [[Int32]]
        var reasons: [FinishReason?]
    }

    private func outcome(_ request: EngineRequest, _ engine: Engine, choices: Int = 1) async throws -> Outcome {
        var outcome = Outcome(
            texts: Array(repeating: "", count: choices), tokens: Array(repeating: [], count: choices),
            reasons: Array(repeating: nil, count: choices))
        for try await event in engine.submit(request) {
            switch event {
            case .delta(let choice, let text, let tokens):
                outcome.texts[choice] += text
                outcome.tokens[choice] += tokens.map(\.id)
            case .finished(let choice, let reason, _, _, _): outcome.reasons[choice] = reason
            }
        }
        return outcome
    }

    /// The same from `generate`.
    private func generated(_ prompt: String, _ config: GenerationConfig, _ grammar: GenerationGrammar) async throws -> Outcome {
        let (model, tokenizer) = try ExampleModel.stories.get()
        var request = GenerationRequest(inputs: try tokenizer(prompt).inputIDs)
        request.config = config
        request.grammar = grammar
        let output = try await model.generate(request, tokenizer: tokenizer)
        let rows = output.sequences.indices.map { Array(output.newTokens(row: $0)) }
        return Outcome(
            texts: rows.map { tokenizer.decode($0, skipSpecialTokens: true) }, tokens: rows, reasons: output.finishReasons)
    }

    private func engine(_ configuration: EngineConfiguration) async throws -> (Engine, Tokenizer) {
        let (model, tokenizer) = try ExampleModel.stories.get()
        return (try await model.engine(configuration, tokenizer: tokenizer), tokenizer)
    }

    private func request(_ prompt: String, _ config: GenerationConfig, _ grammar: GenerationGrammar) throws -> EngineRequest {
        var request = EngineRequest(try ExampleModel.stories.get().tokenizer(prompt).inputIDs[0], config)
        request.grammar = grammar
        return request
    }

    @Test("a request's text is generate's with the same grammar and seed", arguments: Form.allCases, [nil, 1, 2, 3] as [UInt64?])
    func equalToGenerate(form: Form, seed: UInt64?) async throws {
        let (engine, _) = try await engine(EngineConfiguration(maxBatch: 4, context: 256))
        let grammar = try form.grammar()
        let config = GenerationConfig(maxNewTokens: 80, doSample: seed != nil, temperature: seed.map { _ in 1 }, seed: seed ?? 0)
        let outcome = try await outcome(request("Once upon a time", config, grammar), engine)
        #expect(try await outcome == generated("Once upon a time", config, grammar))
        if case .endOfSequence = outcome.reasons[0] {
            #expect(try grammar.grammar.accepts(outcome.texts[0].utf8))
        } else {
            #expect(outcome.reasons == [.maxLength])
        }
    }

    @Test("each of several answers follows the grammar alone")
    func choices() async throws {
        let (engine, _) = try await engine(EngineConfiguration(maxBatch: 4, context: 256))
        let grammar = try Form.schema.grammar()
        let config = GenerationConfig(maxNewTokens: 60, doSample: true, numReturnSequences: 3, seed: 5)
        let outcome = try await outcome(request("Once upon a time", config, grammar), engine, choices: 3)
        #expect(try await outcome == generated("Once upon a time", config, grammar))
        #expect(Set(outcome.texts).count > 1)
    }

    @Test("preempted and chunked requests with grammars give what they give alone, beside others without")
    func preemption() async throws {
        var configuration = EngineConfiguration(maxBatch: 6, context: 192, cacheBudget: "8MB")
        configuration.chunkTokens = 32
        let (engine, tokenizer) = try await engine(configuration)
        let prompt = String(repeating: "The little dog was very happy. ", count: 6)
        try #require(tokenizer(prompt).inputIDs[0].count > 33)
        let words = try GenerationGrammar(regex: "([a-z]{2,7} ){80}")
        var streams: [(request: EngineRequest, stream: AsyncThrowingStream<EngineEvent, any Error>)] = []
        for index in 0..<9 {
            let config = GenerationConfig(maxNewTokens: 100, doSample: true, seed: UInt64(index))
            var request = try request(prompt, config, words)
            if index % 3 == 2 { request.grammar = nil }
            streams.append((request, engine.submit(request)))
        }
        for (request, stream) in streams {
            var tokens: [Int32] = []
            for try await event in stream {
                if case .delta(_, _, let new) = event { tokens += new.map(\.id) }
            }
            guard let grammar = request.grammar else { continue }
            #expect(try await tokens == generated(prompt, request.config, grammar).tokens[0])
        }
        #expect(engine.tokenEngine.status.preemptions > 0)
    }

    @Test("a stop string within the grammar's text ends it")
    func stopString() async throws {
        let (engine, _) = try await engine(EngineConfiguration(maxBatch: 2, context: 256))
        let grammar = try Form.schema.grammar()
        var config = GenerationConfig(maxNewTokens: 80, doSample: true, seed: 2)
        config.stopStrings = ["\"age\""]
        let outcome = try await outcome(request("Once upon a time", config, grammar), engine)
        #expect(try await outcome == generated("Once upon a time", config, grammar))
        #expect(outcome.reasons == [.stopString("\"age\"")])
    }

    @Test("without end tokens an answer ends where nothing can follow")
    func noEndToken() async throws {
        let (engine, _) = try await engine(EngineConfiguration(maxBatch: 2, context: 256))
        let grammar = try GenerationGrammar(regex: "(yes|no), [a-z]{3}")
        var config = GenerationConfig(maxNewTokens: 80, doSample: true, seed: 2)
        config.eosTokenId = []
        let outcome = try await outcome(request("Once upon a time", config, grammar), engine)
        #expect(try await outcome == generated("Once upon a time", config, grammar))
        #expect(outcome.reasons == [.stoppingCriterion])
    }

    @Test("an engine without a tokenizer refuses grammars")
    func noTokenizer() async throws {
        let engine = try await ExampleModel.stories.get().model.engine(EngineConfiguration(maxBatch: 1, context: 64))
        let request = try request("One day", GenerationConfig(maxNewTokens: 4), Form.regex.grammar())
        await #expect(throws: GenerationError.self) { for try await _ in engine.submit(request) {} }
    }
}
