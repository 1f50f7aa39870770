internal import NibbleCore

/// One field of ``GenerationConfig``: its name in JSON, how it is read, how it is layered.
struct ConfigField: Sendable {
    let name: String
    let expected: String
    /// Returns false if the value does not have the expected form.
    let read: @Sendable (inout GenerationConfig, JSONValue) -> Bool
    let fill: @Sendable (inout GenerationConfig, GenerationConfig) -> Void
    let isSet: @Sendable (GenerationConfig) -> Bool

    init<Value>(
        _ name: String, _ path: any (WritableKeyPath<GenerationConfig, Value?> & Sendable), _ form: ValueForm<Value>
    ) {
        self.name = name
        expected = form.expected
        read = { config, json in
            guard let value = form.read(json) else { return false }
            config[keyPath: path] = value
            return true
        }
        fill = { config, other in
            if config[keyPath: path] == nil { config[keyPath: path] = other[keyPath: path] }
        }
        isSet = { $0[keyPath: path] != nil }
    }
}

extension GenerationConfig {
    /// This configuration, with what it does not say taken from `other`.
    public func filling(from other: GenerationConfig) -> GenerationConfig {
        var result = self
        for field in Self.fields { field.fill(&result, other) }
        return result
    }

    /// This configuration with the field `name` unset.
    package func removing(_ name: String) -> GenerationConfig {
        var result = GenerationConfig()
        for field in Self.fields where field.name != name { field.fill(&result, self) }
        return result
    }

    /// The names of all fields, as they are written in JSON.
    package static var fieldNames: [String] { fields.map(\.name) }

    static let fields: [ConfigField] = [
        ConfigField("max_length", \.maxLength, .integer),
        ConfigField("max_new_tokens", \.maxNewTokens, .integer),
        ConfigField("min_length", \.minLength, .integer),
        ConfigField("min_new_tokens", \.minNewTokens, .integer),
        ConfigField("early_stopping", \.earlyStopping, .earlyStopping),
        ConfigField("max_time", \.maxTime, .number),
        ConfigField("stop_strings", \.stopStrings, .strings),
        ConfigField("do_sample", \.doSample, .boolean),
        ConfigField("num_beams", \.numBeams, .integer),
        ConfigField("num_return_sequences", \.numReturnSequences, .integer),
        ConfigField("use_cache", \.useCache, .boolean),
        ConfigField("cache_implementation", \.cacheImplementation, .word()),
        ConfigField("cache_config", \.cacheConfig, .cacheConfig),
        ConfigField("seed", \.seed, .seed),
        ConfigField("temperature", \.temperature, .number),
        ConfigField("top_k", \.topK, .integer),
        ConfigField("top_p", \.topP, .number),
        ConfigField("min_p", \.minP, .number),
        ConfigField("top_h", \.topH, .number),
        ConfigField("typical_p", \.typicalP, .number),
        ConfigField("epsilon_cutoff", \.epsilonCutoff, .number),
        ConfigField("eta_cutoff", \.etaCutoff, .number),
        ConfigField("repetition_penalty", \.repetitionPenalty, .number),
        ConfigField("encoder_repetition_penalty", \.encoderRepetitionPenalty, .number),
        ConfigField("length_penalty", \.lengthPenalty, .number),
        ConfigField("no_repeat_ngram_size", \.noRepeatNgramSize, .integer),
        ConfigField("encoder_no_repeat_ngram_size", \.encoderNoRepeatNgramSize, .integer),
        ConfigField("bad_words_ids", \.badWordsIds, .tokenLists),
        ConfigField("sequence_bias", \.sequenceBias, .sequenceBias),
        ConfigField("guidance_scale", \.guidanceScale, .number),
        ConfigField("renormalize_logits", \.renormalizeLogits, .boolean),
        ConfigField("remove_invalid_values", \.removeInvalidValues, .boolean),
        ConfigField("exponential_decay_length_penalty", \.exponentialDecayLengthPenalty, .exponentialDecay),
        ConfigField("suppress_tokens", \.suppressTokens, .tokens),
        ConfigField("begin_suppress_tokens", \.beginSuppressTokens, .tokens),
        ConfigField("forced_bos_token_id", \.forcedBosTokenId, .token),
        ConfigField("forced_eos_token_id", \.forcedEosTokenId, .tokens),
        ConfigField("bos_token_id", \.bosTokenId, .token),
        ConfigField("eos_token_id", \.eosTokenId, .tokens),
        ConfigField("pad_token_id", \.padTokenId, .token),
        ConfigField("decoder_start_token_id", \.decoderStartTokenId, .tokens),
        ConfigField("num_assistant_tokens", \.numAssistantTokens, .integer),
        ConfigField("num_assistant_tokens_schedule", \.numAssistantTokensSchedule, .word()),
        ConfigField("assistant_confidence_threshold", \.assistantConfidenceThreshold, .number),
        ConfigField("prompt_lookup_num_tokens", \.promptLookupNumTokens, .integer),
        ConfigField("max_matching_ngram_size", \.maxMatchingNgramSize, .integer),
        ConfigField("output_scores", \.outputScores, .boolean),
        ConfigField("output_logits", \.outputLogits, .boolean),
        ConfigField("return_dict_in_generate", \.returnDictInGenerate, .boolean),
        ConfigField("penalty_alpha", \.penaltyAlpha, .number),
        ConfigField("num_beam_groups", \.numBeamGroups, .integer),
        ConfigField("diversity_penalty", \.diversityPenalty, .number),
        ConfigField("constraints", \.constraints, .opaque),
        ConfigField("force_words_ids", \.forceWordsIds, .opaque),
        ConfigField("dola_layers", \.dolaLayers, .opaque),
        ConfigField("watermarking_config", \.watermarkingConfig, .opaque),
        ConfigField("assistant_early_exit", \.assistantEarlyExit, .integer),
    ]

    /// Fields of transformers without a meaning for Nibble. They may be given and have no effect.
    static let ignoredNames: Set<String> = [
        "transformers_version", "_from_model_config", "_commit_hash", "_original_object_hash", "generation_kwargs",
        "max_cache_len", "return_legacy_cache", "token_healing", "low_memory", "is_assistant",
        "prefill_chunk_size", "compile_config", "disable_compile", "assistant_lookbehind", "target_lookbehind",
        "output_attentions", "output_hidden_states", "continuous_batching_config",
    ]
}
