import Nibble
import NibbleCore
import NibbleServing
import Testing

/// What a configuration becomes in an engine.
@Suite struct EngineRequestTests {
    private func submission(_ prompt: [Int32] = [5, 6, 7], _ change: (inout EngineRequest) -> Void = { _ in }) throws
        -> Submission
    {
        let model = try ExampleModel.stories.get().model
        var request = EngineRequest(prompt)
        change(&request)
        let config = GenerationConfig.resolved(call: request.config, model: model.generationConfig)
        return try request.submission(config, model.model)
    }

    static let hostOnly: [(String, @Sendable (inout GenerationConfig) -> Void)] = [
        ("num_beams", { $0.numBeams = 2 }),
        ("prompt_lookup_num_tokens", { $0.promptLookupNumTokens = 3 }),
        ("guidance_scale", { $0.guidanceScale = 2 }),
        ("cache_implementation", { $0.cacheImplementation = .quantized }),
        ("sequence_bias", { $0.sequenceBias = [SequenceBias(tokens: [4], bias: 1)] }),
        ("bad_words_ids", { $0.badWordsIds = [[4], [5, 6]] }),
        ("encoder_repetition_penalty", { $0.encoderRepetitionPenalty = 2 }),
        ("no_repeat_ngram_size", { $0.noRepeatNgramSize = 2 }),
        ("encoder_no_repeat_ngram_size", { $0.encoderNoRepeatNgramSize = 2 }),
        ("forced_bos_token_id", { $0.forcedBosTokenId = 2 }),
        ("forced_eos_token_id", { $0.forcedEosTokenId = [2] }),
        ("remove_invalid_values", { $0.removeInvalidValues = true }),
        ("exponential_decay_length_penalty", { $0.exponentialDecayLengthPenalty = ExponentialDecay(start: 1, factor: 2) }),
        ("begin_suppress_tokens", { $0.beginSuppressTokens = [2] }),
        ("renormalize_logits", { $0.renormalizeLogits = true }),
        (
            "top_h",
            {
                $0.doSample = true
                $0.topH = 0.5
            }
        ),
        (
            "typical_p",
            {
                $0.doSample = true
                $0.typicalP = 0.5
            }
        ),
        (
            "epsilon_cutoff",
            {
                $0.doSample = true
                $0.epsilonCutoff = 0.1
            }
        ),
        (
            "eta_cutoff",
            {
                $0.doSample = true
                $0.etaCutoff = 0.1
            }
        ),
        ("output_scores", { $0.outputScores = true }),
        ("output_logits", { $0.outputLogits = true }),
    ]

    @Test("what needs the logits on the host is refused by its name", arguments: hostOnly)
    func refused(field: String, change: @Sendable (inout GenerationConfig) -> Void) {
        #expect(throws: EngineError.unsupported(field: field)) { try submission { change(&$0.config) } }
    }

    @Test("values out of range are refused as generate refuses them")
    func invalid() {
        #expect(throws: GenerationError.self) {
            try submission { $0.config = GenerationConfig(doSample: true, temperature: -1) }
        }
        #expect(throws: GenerationError.self) { try submission { $0.config.maxNewTokens = 0 } }
    }

    @Test("sampling, penalties, lengths and ends")
    func mapped() throws {
        let made = try submission {
            $0.config = GenerationConfig(
                maxNewTokens: 40, minNewTokens: 3, doSample: true, temperature: 0.5, topK: 7, topP: 0.9, minP: 0.1,
                repetitionPenalty: 1.2, numReturnSequences: 3, seed: 11)
            $0.config.badWordsIds = [[9], [2]]
            $0.config.suppressTokens = [8]
            $0.config.maxTime = 2
            $0.bias = [TokenBias(token: 4, value: 1)]
            $0.presencePenalty = 0.5
            $0.frequencyPenalty = 0.25
            $0.client = "somebody"
            $0.logProbabilities = 5
        }
        var expected = SlotSelection()
        expected.temperature = 0.5
        expected.topK = 7
        expected.topP = 0.9
        expected.minP = 0.1
        expected.repetitionPenalty = 1.2
        expected.presencePenalty = 0.5
        expected.frequencyPenalty = 0.25
        expected.seed = 11
        // A bad word that is an end token is left out.
        expected.bias = [
            TokenBias(token: 4, value: 1), TokenBias(token: 8, value: -.infinity), TokenBias(token: 9, value: -.infinity),
        ]
        expected.minimumTokens = 3
        expected.endTokens = [2]
        #expect(made.selection == expected)
        #expect(made.request.prompt == [5, 6, 7] && made.request.maxNewTokens == 40 && made.request.choices == 3)
        #expect(made.request.stopTokens == [2] && made.request.client == "somebody")
        #expect(made.logProbabilities == 5 && made.timeLimit == .seconds(2))
    }

    @Test("without sampling nothing of it is used, and a prompt without tokens begins with bos")
    func greedy() throws {
        let made = try submission([]) {
            $0.config.topK = 3
            $0.config.temperature = 2
            $0.config.seed = 0
        }
        var expected = SlotSelection()
        expected.endTokens = [2]
        #expect(made.selection == expected && made.request.prompt == [1])
        // As generate: 20 tokens if nothing else was said.
        #expect(made.request.maxNewTokens == 20)
    }
}
