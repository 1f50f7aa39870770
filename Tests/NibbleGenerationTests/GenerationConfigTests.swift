import Foundation
import NibbleCore
import NibbleGeneration
import NibbleTestSupport
import Testing

@Suite struct GenerationConfigTests {
    @Test("Options are read under GenerationConfig's own names")
    func readsOptions() throws {
        let config = try GenerationConfig(
            options: JSONValue.parse(
                """
                {"max_new_tokens": 7, "do_sample": true, "temperature": 0.5, "eos_token_id": 3, "early_stopping": "never",
                 "stop_strings": "end", "bad_words_ids": [[1, 2], [3]], "sequence_bias": [[[4, 5], -1.5]],
                 "exponential_decay_length_penalty": [2, 1.1], "top_k": null, "cache_implementation": "offloaded_static",
                 "num_assistant_tokens_schedule": "heuristic", "forced_eos_token_id": [1, 2], "transformers_version": "5"}
                """))
        #expect(config.maxNewTokens == 7)
        #expect(config.doSample == true)
        #expect(config.temperature == 0.5)
        #expect(config.eosTokenId == [3])
        #expect(config.earlyStopping == .never)
        #expect(config.stopStrings == ["end"])
        #expect(config.badWordsIds == [[1, 2], [3]])
        #expect(config.sequenceBias == [SequenceBias(tokens: [4, 5], bias: -1.5)])
        #expect(config.exponentialDecayLengthPenalty == ExponentialDecay(start: 2, factor: 1.1))
        #expect(config.topK == nil)
        #expect(config.cacheImplementation == .offloadedStatic)
        #expect(config.numAssistantTokensSchedule == .heuristic)
        #expect(config.forcedEosTokenId == [1, 2])
    }

    @Test("An unknown option is an error that names its nearest neighbour")
    func unknownOption() {
        #expect(
            throws: GenerationError.unknownFields([
                .init(name: "max_new_token", suggestion: "max_new_tokens"), .init(name: "zebra_crossing", suggestion: nil),
            ])
        ) {
            try GenerationConfig(options: ["max_new_token": 3, "top_k": 2, "zebra_crossing": 1])
        }
    }

    @Test(
        "A value of the wrong form names field, form and value",
        arguments: [
            ("max_new_tokens", "\"many\""), ("do_sample", "1"), ("eos_token_id", "[1, \"2\"]"), ("temperature", "true"),
            ("early_stopping", "\"soon\""), ("cache_implementation", "\"magic\""), ("bad_words_ids", "[1]"),
            ("pad_token_id", "4294967296"), ("top_k", "2.5"), ("sequence_bias", "[[[1]]]"),
        ])
    func wrongForm(_ field: String, _ json: String) throws {
        let value = try JSONValue.parse(json)
        #expect {
            try GenerationConfig(options: .object([field: value]))
        } throws: { error in
            guard case .invalidValue(let name, _, let found, _) = error as? GenerationError else { return false }
            return name == field && found == value.encoded()
        }
    }

    @Test("A model's file may hold names of its own; its old word for a cache is dropped")
    func modelFile() throws {
        let config = try GenerationConfig(
            modelFile: ["chat_format": "chatml", "top_p": 0.8, "cache_implementation": "hybrid"])
        #expect(config.topP == 0.8)
        #expect(config.cacheImplementation == nil)
    }

    @Test("config.json stands in for a missing generation_config.json")
    func modelFolder() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        #expect(try GenerationConfig(modelFolder: folder) == GenerationConfig())
        let old = #"{"model_type": "bart", "num_beams": 4, "eos_token_id": 2, "use_cache": true, "hidden_size": 8}"#
        try Data(old.utf8).write(to: folder.appending(path: "config.json"))
        let fallback = try GenerationConfig(modelFolder: folder)
        #expect(fallback.numBeams == 4)
        #expect(fallback.eosTokenId == [2])
        #expect(fallback.useCache == nil)
        try Data(#"{"eos_token_id": [5, 6]}"#.utf8).write(to: folder.appending(path: "generation_config.json"))
        let own = try GenerationConfig(modelFolder: folder)
        #expect(own.eosTokenId == [5, 6])
        #expect(own.numBeams == nil)
    }

    @Test("A call goes before a given configuration, that before the model's, that before the defaults")
    func priorities() {
        let call = GenerationConfig(temperature: 0.1)
        let given = GenerationConfig(temperature: 0.2, topK: 2)
        let model = GenerationConfig(temperature: 0.3, topK: 3, topP: 0.3)
        let config = GenerationConfig.resolved(call: call, given: given, model: model)
        #expect(config.temperature == 0.1)
        #expect(config.topK == 2)
        #expect(config.topP == 0.3)
        #expect(config.numBeams == 1)
        #expect(config.maxLength == nil)
        #expect(GenerationConfig.resolved().topK == 50)
    }

    @Test(
        "Values out of range are refused",
        arguments: [
            #"{"max_new_tokens": 0}"#, #"{"max_length": -1}"#, #"{"num_beams": 0}"#, #"{"num_return_sequences": 2}"#,
            #"{"num_beams": 2, "num_return_sequences": 3}"#, #"{"do_sample": true, "temperature": 0.0}"#,
            #"{"do_sample": true, "temperature": -1}"#, #"{"do_sample": true, "top_p": 1.5}"#,
            #"{"do_sample": true, "top_k": -1}"#, #"{"do_sample": true, "min_p": -0.1}"#, #"{"repetition_penalty": 0}"#,
            #"{"bad_words_ids": [[]]}"#, #"{"sequence_bias": [[[], 1]]}"#, #"{"prompt_lookup_num_tokens": 0}"#,
            #"{"max_time": NaN}"#, #"{"length_penalty": Infinity}"#, #"{"stop_strings": ["a", ""]}"#,
        ])
    func outOfRange(_ json: String) throws {
        let config = GenerationConfig.resolved(
            call: try GenerationConfig(options: JSONValue.parse(json, options: .nonFiniteNumbers)))
        #expect(throws: GenerationError.self) { try config.validate() }
    }

    @Test("A temperature of 0 says how to decode greedily")
    func zeroTemperature() {
        let config = GenerationConfig.resolved(call: GenerationConfig(doSample: true, temperature: 0))
        #expect { try config.validate() } throws: { "\($0)".contains("do_sample") }
    }

    @Test(
        "Modes that transformers moved out of its core are refused by name",
        arguments: [
            (#"{"penalty_alpha": 0.6, "top_k": 4}"#, "contrastive search"), (#"{"num_beam_groups": 2}"#, "group beam search"),
            (#"{"constraints": [1]}"#, "constrained beam search"), (#"{"force_words_ids": [[1]]}"#, "constrained beam search"),
            (#"{"dola_layers": "low"}"#, "DoLa decoding"), (#"{"watermarking_config": {}}"#, "watermarking"),
        ])
    func removedModes(_ json: String, _ mode: String) throws {
        let config = GenerationConfig.resolved(
            call: try GenerationConfig(options: JSONValue.parse(json, options: .nonFiniteNumbers)))
        #expect { try config.validate() } throws: { "\($0)".hasPrefix(mode) }
    }

    @Test("What has no effect is only a warning")
    func warnings() throws {
        var config = GenerationConfig(temperature: 0.5, topP: 0.9)
        config.lengthPenalty = 2
        #expect(
            try GenerationConfig.resolved(call: config).validate() == [
                .ignoredWithoutSampling(field: "temperature"), .ignoredWithoutSampling(field: "top_p"),
                .ignoredWithoutBeams(field: "length_penalty"),
            ])
        #expect(try GenerationConfig.resolved().validate().isEmpty)
    }
}
