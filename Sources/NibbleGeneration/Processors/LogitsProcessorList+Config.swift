/// What the processors of a generation depend on besides its configuration.
package struct ProcessorSetting: Sendable {
    package var vocabularySize: Int
    /// L, padding included.
    package var promptLength: Int
    package var maxLength: Int
    package var minLength: Int
    package var eos: [Int32]
    package var prefixAllowedTokens: PrefixAllowedTokens?
    /// The caller's processors.
    package var custom: [any LogitsProcessor]
    var grammar: GrammarProcessor?

    package init(
        vocabularySize: Int, promptLength: Int, maxLength: Int, minLength: Int = 0, eos: [Int32] = [],
        prefixAllowedTokens: PrefixAllowedTokens? = nil, custom: [any LogitsProcessor] = []
    ) {
        self.vocabularySize = vocabularySize
        self.promptLength = promptLength
        self.maxLength = maxLength
        self.minLength = minLength
        self.eos = eos
        self.prefixAllowedTokens = prefixAllowedTokens
        self.custom = custom
    }

    init(
        vocabularySize: Int, promptLength: Int, maxLength: Int, minLength: Int, eos: [Int32],
        prefixAllowedTokens: PrefixAllowedTokens?, custom: [any LogitsProcessor], grammar: GrammarProcessor?
    ) {
        self.init(
            vocabularySize: vocabularySize, promptLength: promptLength, maxLength: maxLength, minLength: minLength, eos: eos,
            prefixAllowedTokens: prefixAllowedTokens, custom: custom)
        self.grammar = grammar
    }
}

extension LogitsProcessorList {
    /// The processors of a resolved configuration, in transformers' order. Guidance is not among them: it needs a model and is
    /// applied first.
    ///
    /// - Throws: ``GenerationError/tokenOutOfRange`` for tokens that would be forced or biased outside the vocabulary.
    package static func make(
        _ config: GenerationConfig, _ setting: ProcessorSetting
    ) throws -> (list: LogitsProcessorList, warnings: [GenerationWarning]) {
        try checkTokens(config, setting.vocabularySize)
        var list = LogitsProcessorList()
        list.appendBiases(config, setting)
        list.appendLengths(config, setting)
        let warnings = list.appendCustom(setting.custom)
        // Behind whatever might allow a token again.
        if let grammar = setting.grammar { list.processors.append(grammar) }
        if config.doSample ?? false { list.appendWarpers(config, setting) }
        if config.renormalizeLogits ?? false { list.processors.append(LogitNormalizationProcessor()) }
        return (list, warnings)
    }

    private mutating func appendBiases(_ config: GenerationConfig, _ setting: ProcessorSetting) {
        if let biases = config.sequenceBias { processors.append(SequenceBiasProcessor(biases)) }
        if let penalty = config.encoderRepetitionPenalty, penalty != 1 {
            processors.append(EncoderRepetitionPenaltyProcessor(penalty: penalty))
        }
        if let penalty = config.repetitionPenalty, penalty != 1 {
            processors.append(RepetitionPenaltyProcessor(penalty: penalty))
        }
        if let size = config.noRepeatNgramSize, size > 0 { processors.append(NoRepeatNgramProcessor(size: size)) }
        if let size = config.encoderNoRepeatNgramSize, size > 0 {
            processors.append(EncoderNoRepeatNgramProcessor(size: size))
        }
        if let words = config.badWordsIds { processors.append(NoBadWordsProcessor(words, eos: setting.eos)) }
    }

    private mutating func appendLengths(_ config: GenerationConfig, _ setting: ProcessorSetting) {
        let eos = setting.eos
        if setting.minLength > 0, !eos.isEmpty { processors.append(MinLengthProcessor(setting.minLength, eos: eos)) }
        if let count = config.minNewTokens, count > 0, !eos.isEmpty {
            processors.append(MinNewTokensProcessor(count, eos: eos))
        }
        if let allowed = setting.prefixAllowedTokens {
            processors.append(PrefixConstrainedProcessor(beams: config.numBeams ?? 1, allowed))
        }
        if let token = config.forcedBosTokenId { processors.append(ForcedBosProcessor(token)) }
        if let tokens = config.forcedEosTokenId {
            processors.append(ForcedEosProcessor(tokens, maxLength: setting.maxLength))
        }
        if config.removeInvalidValues ?? false { processors.append(InfNanRemoveProcessor()) }
        if let decay = config.exponentialDecayLengthPenalty {
            processors.append(ExponentialDecayProcessor(decay, eos: eos))
        }
        if let tokens = config.suppressTokens { processors.append(SuppressTokensProcessor(tokens)) }
        if let tokens = config.beginSuppressTokens {
            let waitsForBos = setting.promptLength <= 1 && config.forcedBosTokenId != nil
            processors.append(
                SuppressTokensAtBeginProcessor(tokens, begin: setting.promptLength + (waitsForBos ? 1 : 0)))
        }
    }

    /// A caller's processor replaces a standard one of the same type.
    private mutating func appendCustom(_ custom: [any LogitsProcessor]) -> [GenerationWarning] {
        var warnings: [GenerationWarning] = []
        for processor in custom {
            if let place = processors.firstIndex(where: { type(of: $0) == type(of: processor) }) {
                processors[place] = processor
                warnings.append(.replacedProcessor("\(type(of: processor))"))
            } else {
                processors.append(processor)
            }
        }
        return warnings
    }

    private mutating func appendWarpers(_ config: GenerationConfig, _ setting: ProcessorSetting) {
        let beams = (config.numBeams ?? 1) > 1
        let kept = beams ? (setting.eos.isEmpty ? 2 : setting.eos.count + 1) : 1
        if let value = config.temperature, value != 1 { processors.append(TemperatureWarper(value)) }
        if let value = config.topH { processors.append(TopHWarper(value)) }
        if let value = config.topK, value != 0 { processors.append(TopKWarper(value, minimumKept: kept)) }
        if let value = config.topP, value < 1 { processors.append(TopPWarper(value, minimumKept: kept)) }
        if let value = config.minP { processors.append(MinPWarper(value, minimumKept: kept)) }
        if let value = config.typicalP, value < 1 { processors.append(TypicalWarper(value, minimumKept: kept)) }
        if let value = config.epsilonCutoff, value > 0, value < 1 {
            processors.append(EpsilonWarper(value, minimumKept: kept))
        }
        if let value = config.etaCutoff, value > 0, value < 1 { processors.append(EtaWarper(value, minimumKept: kept)) }
    }

    private static func checkTokens(_ config: GenerationConfig, _ vocabularySize: Int) throws {
        func check(_ field: String, _ tokens: some Sequence<Int32>) throws {
            for token in tokens where token < 0 || Int(token) >= vocabularySize {
                throw GenerationError.tokenOutOfRange(field: field, token: token, vocabularySize: vocabularySize)
            }
        }
        try check("sequence_bias", (config.sequenceBias ?? []).flatMap(\.tokens))
        try check("bad_words_ids", (config.badWordsIds ?? []).flatMap { $0 })
        try check("forced_bos_token_id", [config.forcedBosTokenId].compactMap { $0 })
        try check("forced_eos_token_id", config.forcedEosTokenId ?? [])
    }
}
