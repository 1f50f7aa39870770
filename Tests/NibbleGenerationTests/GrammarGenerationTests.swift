import NibbleGeneration
import NibbleGrammar
import NibbleModels
import Testing

/// Generation held to a grammar, over a model whose tokens are pieces of JSON.
@Suite struct GrammarGenerationTests {
    /// Token 0 ends a text; 1 is special and stands for no text.
    static let tokens: [String] = [
        "", "", "[", "]", ",", " ", "1", "2", "-", "0", ".", "\"", "a", "b", "é", "], ", "[[", "12", "\"a", "\": ", "{", "}",
        "{\"", "null",
        "true", "\n", "e", "false", "x\"", ", ", ":",
    ]

    private static func generator(_ seed: UInt64 = 3, eos: Int32? = 0) -> Generator {
        var config = GenerationConfig()
        config.eosTokenId = eos.map { [$0] }
        config.padTokenId = 0
        return Generator(
            model: HashModel(vocabularySize: tokens.count, seed: seed), modelConfig: config,
            grammarTokens: GrammarTokens { Array(tokens[Int($0)].utf8) })
    }

    private static func text(_ ids: some Sequence<Int32>) -> String { ids.map { tokens[Int($0)] }.joined() }

    static let schemas = [
        #"{"type": "array", "items": {"type": "array", "items": {"type": "integer"}}, "maxItems": 3}"#,
        #"{"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": ["null", "string"]}}, "required": ["b"]}"#,
        #"{"anyOf": [{"type": "number", "minimum": 1}, {"enum": ["aé", "ab", null]}]}"#, #"{"const": [1, "a"]}"#,
    ]

    /// Every row is a text of the grammar if it chose the end, else the beginning of one.
    private func check(_ output: GenerationOutput, _ grammar: Grammar) throws {
        for row in output.sequences.indices {
            let ids = output.newTokens(row: row).prefix { $0 != 0 }
            let text = Self.text(ids)
            if output.newTokens(row: row).contains(0) {
                #expect(try grammar.accepts(text.utf8), "\(text)")
            } else {
                #expect(try grammar.matcher().advance(text.utf8), "\(text)")
            }
        }
    }

    enum Mode: CaseIterable { case greedy, sampling, beams, beamSampling, assisted, assistedSampling, lookup }

    private func request(_ mode: Mode, _ grammar: GenerationGrammar, seed: UInt64) -> GenerationRequest {
        var config = GenerationConfig(maxNewTokens: 40)
        var request = GenerationRequest(inputs: [[2, 6, 3, 4, 2, 7]])
        config.doSample = [.sampling, .beamSampling, .assistedSampling].contains(mode)
        config.seed = seed
        switch mode {
        case .sampling: config.numReturnSequences = 4
        case .beams, .beamSampling:
            config.numBeams = 3
            config.numReturnSequences = 3
        case .assisted, .assistedSampling: request.assistant = HashModel(vocabularySize: Self.tokens.count, seed: 4)
        case .lookup: config.promptLookupNumTokens = 4
        case .greedy: break
        }
        request.config = config
        request.grammar = grammar
        return request
    }

    @Test("whatever the mode, no row leaves the grammar", arguments: Mode.allCases, schemas)
    func modes(mode: Mode, schema: String) throws {
        let grammar = try GenerationGrammar(jsonSchema: schema)
        for seed in UInt64(1)...8 {
            let output = try Self.generator(seed).generate(request(mode, grammar, seed: seed))
            try check(output, grammar.grammar)
        }
    }

    @Test("proposals change nothing of what is generated greedily", arguments: schemas)
    func assisted(schema: String) throws {
        let grammar = try GenerationGrammar(jsonSchema: schema)
        for seed in UInt64(1)...8 {
            let outputs = try [Mode.greedy, .assisted, .lookup].map {
                try Self.generator(seed).generate(request($0, grammar, seed: seed)).sequences
            }
            #expect(outputs[1] == outputs[0] && outputs[2] == outputs[0])
        }
    }

    @Test("the end is chosen exactly where a text may end")
    func end() throws {
        let grammar = try GenerationGrammar(regex: "(12|1)2")
        for seed in UInt64(1)...20 {
            let output = try Self.generator(seed).generate(request(.greedy, grammar, seed: seed))
            #expect(output.finishReasons == [.endOfSequence(0)])
            #expect(["12", "122"].contains(Self.text(output.newTokens(row: 0).dropLast())))
        }
    }

    @Test("without a token that ends texts, a row ends where nothing can follow")
    func withoutEnd() throws {
        let grammar = try GenerationGrammar(gbnf: "root ::= \"[1]\"")
        let output = try Self.generator(eos: nil).generate(request(.greedy, grammar, seed: 1))
        #expect(Self.text(output.newTokens(row: 0)) == "[1]")
        #expect(output.finishReasons == [.stoppingCriterion])
    }

    @Test("a generator without the tokenizer's tokens refuses a grammar")
    func withoutTokenizer() throws {
        let generator = Generator(model: HashModel(vocabularySize: Self.tokens.count))
        let request = request(.greedy, try GenerationGrammar(regex: "1"), seed: 1)
        #expect(throws: GenerationError.self) { try generator.generate(request) }
    }
}
