internal import NibbleCore

/// The decoding mode that a configuration selects.
package enum GenerationMode: Sendable, Equatable {
    case greedy, sampling, beamSearch, beamSampling
}

extension GenerationConfig {
    package var mode: GenerationMode {
        let samples = doSample ?? false
        if (numBeams ?? 1) > 1 { return samples ? .beamSampling : .beamSearch }
        return samples ? .sampling : .greedy
    }

    /// Checks a resolved configuration.
    ///
    /// - Returns: warnings about fields without effect.
    /// - Throws: ``GenerationError`` for values out of range, conflicts and modes Nibble does not have.
    @discardableResult
    public func validate() throws -> [GenerationWarning] {
        try validateValues()
        try checkReturnedSequences()
        return idleFields()
    }

    /// Checks each value on its own, so that a part of a configuration can be checked before the rest is known.
    ///
    /// - Throws: ``GenerationError`` for values out of range and modes Nibble does not have.
    package func validateValues() throws {
        try refuseRemovedModes()
        try checkCounts()
        try checkRanges()
        try checkTokenLists()
    }

    private func refuseRemovedModes() throws {
        func refuse(_ condition: Bool, _ field: String, _ mode: String) throws {
            if condition { throw GenerationError.unsupportedMode(field: field, mode: mode) }
        }
        try refuse((penaltyAlpha ?? 0) > 0 && (topK ?? 50) > 1, "penalty_alpha", "contrastive search")
        try refuse((numBeamGroups ?? 1) > 1, "num_beam_groups", "group beam search")
        try refuse((diversityPenalty ?? 0) > 0, "diversity_penalty", "group beam search")
        try refuse(constraints != nil, "constraints", "constrained beam search")
        try refuse(forceWordsIds != nil, "force_words_ids", "constrained beam search")
        try refuse(dolaLayers != nil, "dola_layers", "DoLa decoding")
        try refuse(watermarkingConfig != nil, "watermarking_config", "watermarking")
        try refuse(assistantEarlyExit != nil, "assistant_early_exit", "early-exit drafting")
    }

    /// Rows that a prompt may be copied to.
    private static let maximumCopies = 1 << 16

    private func checkCounts() throws {
        try require("max_new_tokens", maxNewTokens, "above 0") { $0 > 0 }
        try require("max_length", maxLength, "above 0") { $0 > 0 }
        try require("min_length", minLength, "0 or more") { $0 >= 0 }
        try require("min_new_tokens", minNewTokens, "0 or more") { $0 >= 0 }
        try require("num_beams", numBeams, "from 1 to \(Self.maximumCopies)") { 1...Self.maximumCopies ~= $0 }
        try require("num_return_sequences", numReturnSequences, "from 1 to \(Self.maximumCopies)") {
            1...Self.maximumCopies ~= $0
        }
        try require("no_repeat_ngram_size", noRepeatNgramSize, "0 or more") { $0 >= 0 }
        try require("encoder_no_repeat_ngram_size", encoderNoRepeatNgramSize, "0 or more") { $0 >= 0 }
        try require("num_assistant_tokens", numAssistantTokens, "1 or more") { $0 >= 1 }
        try require("prompt_lookup_num_tokens", promptLookupNumTokens, "1 or more") { $0 >= 1 }
        try require("max_matching_ngram_size", maxMatchingNgramSize, "1 or more") { $0 >= 1 }
        try require("max_time", maxTime, "0 or more") { $0 >= 0 }
        try require("cache_config.nbits", cacheConfig?.nbits, "8, 4 or 2", KeyValueQuantization.allowedBits.contains)
        try require(
            "cache_config.q_group_size", cacheConfig?.qGroupSize, "16, 32, 64 or 128",
            KeyValueQuantization.allowedGroupSizes.contains)
    }

    private func checkRanges() throws {
        try require("repetition_penalty", repetitionPenalty, "a finite number above 0") { $0 > 0 && $0.isFinite }
        try require("encoder_repetition_penalty", encoderRepetitionPenalty, "a finite number above 0") { $0 > 0 && $0.isFinite }
        try require("length_penalty", lengthPenalty, "a finite number") { $0.isFinite }
        try require("guidance_scale", guidanceScale, "a finite number") { $0.isFinite }
        try require("exponential_decay_length_penalty", exponentialDecayLengthPenalty?.factor, "above 0 (the factor)") {
            $0 > 0 && $0.isFinite
        }
        try require("assistant_confidence_threshold", assistantConfidenceThreshold, "from 0 to 1") { (0...1).contains($0) }
        guard doSample ?? false else { return }
        try require("temperature", temperature, "above 0 (for greedy decoding set do_sample to false)") {
            $0 > 0 && $0.isFinite
        }
        try require("top_k", topK, "0 or more") { $0 >= 0 }
        try require("top_p", topP, "from 0 to 1") { (0...1).contains($0) }
        try require("min_p", minP, "from 0 to 1") { (0...1).contains($0) }
        try require("top_h", topH, "above 0 and at most 1") { $0 > 0 && $0 <= 1 }
        try require("typical_p", typicalP, "above 0") { $0 > 0 }
        try require("epsilon_cutoff", epsilonCutoff, "from 0 to 1") { (0...1).contains($0) }
        try require("eta_cutoff", etaCutoff, "from 0 to 1") { (0...1).contains($0) }
    }

    private func checkTokenLists() throws {
        try require("bad_words_ids", badWordsIds, "lists of at least one token") { $0.allSatisfy { !$0.isEmpty } }
        try require("sequence_bias", sequenceBias, "lists of at least one token") {
            $0.allSatisfy { !$0.tokens.isEmpty && !$0.bias.isNaN }
        }
        try require("stop_strings", stopStrings, "texts of at least one character") { $0.allSatisfy { !$0.isEmpty } }
    }

    private func checkReturnedSequences() throws {
        let (returned, beams) = (numReturnSequences ?? 1, numBeams ?? 1)
        if mode == .greedy && returned > 1 {
            throw GenerationError.conflict(
                "num_return_sequences is \(returned), but greedy decoding has one answer: set do_sample or num_beams")
        }
        if beams > 1 && returned > beams {
            throw GenerationError.conflict("num_return_sequences (\(returned)) must not exceed num_beams (\(beams))")
        }
    }

    private func idleFields() -> [GenerationWarning] {
        var warnings: [GenerationWarning] = []
        if !(doSample ?? false) {
            let sampling: [(String, Bool)] = [
                ("temperature", temperature.map { $0 != 1 } ?? false), ("top_p", topP.map { $0 != 1 } ?? false),
                ("min_p", minP != nil), ("typical_p", typicalP.map { $0 != 1 } ?? false), ("top_h", topH != nil),
                ("top_k", topK.map { $0 != 50 } ?? false),
                ("epsilon_cutoff", epsilonCutoff.map { $0 != 0 } ?? false),
                ("eta_cutoff", etaCutoff.map { $0 != 0 } ?? false),
            ]
            warnings += sampling.filter(\.1).map { .ignoredWithoutSampling(field: $0.0) }
        }
        if (numBeams ?? 1) == 1 {
            if (earlyStopping ?? .heuristic) != .heuristic { warnings.append(.ignoredWithoutBeams(field: "early_stopping")) }
            if (lengthPenalty ?? 1) != 1 { warnings.append(.ignoredWithoutBeams(field: "length_penalty")) }
        }
        if cacheImplementation == .quantized, (cacheConfig?.residualLength ?? 0) != 0 {
            warnings.append(.withoutEffect(field: "cache_config.residual_length"))
        }
        return warnings
    }

    private func require<Value>(
        _ field: String, _ value: Value?, _ expected: String, _ isValid: (Value) -> Bool
    ) throws {
        guard let value, !isValid(value) else { return }
        throw GenerationError.invalidValue(field: field, expected: expected, found: "\(value)", source: nil)
    }
}
