import NibbleCore
import NibbleGeneration
import NibbleModels
package import NibbleServing

/// One prompt to be continued by an ``Engine``.
public struct EngineRequest: Sendable {
    /// Token ids; for an encoder-decoder the encoder's input. Empty: the prompt is bos.
    public var prompt: [Int32]
    /// How to continue it: lengths, sampling, penalties, `numReturnSequences` answers, stop strings, `maxTime`. Fields that need
    /// the logits on the host are refused by name.
    public var config: GenerationConfig
    /// What the answers must look like. Needs an engine with a tokenizer.
    public var grammar: GenerationGrammar?
    /// Requests of one client wait for each other, not for those of others.
    package var client = ""
    /// How many of the most probable tokens are reported beside each chosen one, at most 20. `nil`: no probabilities at all.
    public var logProbabilities: Int?

    // What the façade's own configuration has no field for.

    /// Added to the logits of single tokens.
    package var bias: [TokenBias] = []
    package var presencePenalty: Float = 0
    package var frequencyPenalty: Float = 0
    /// Whether the text ends with the stop string, as that of `generate` does, or before it.
    package var includesStopString = true
    package var skipsSpecialTokens = true
    /// Which prompts may share its cache.
    package var root = PrefixRoot.plain
    /// `nil`: those that are active when it is submitted.
    package var adapters: AdapterWeights?

    /// A request for one prompt; everything else can be set afterwards.
    public init(_ prompt: [Int32], _ config: GenerationConfig = GenerationConfig()) {
        self.prompt = prompt
        self.config = config
    }
}

/// What comes of a request.
public enum EngineEvent: Sendable {
    /// New tokens of an answer, and the text that has become certain with them: it never ends within a character, and may be
    /// empty. The tokens' rows are the answer's number.
    case delta(choice: Int, text: String, tokens: [GeneratedToken])
    /// An answer has ended. Of its prompt's tokens, `cachedTokens` had been computed before, for others.
    case finished(choice: Int, reason: FinishReason, promptTokens: Int, cachedTokens: Int, newTokens: Int)
}

extension EngineRequest {
    /// The request in the engine's own terms.
    ///
    /// - Parameter config: resolved.
    /// - Throws: ``GenerationError``; ``EngineError/unsupported(field:)``.
    package func submission(_ config: GenerationConfig, _ model: any GenerativeModel) throws -> Submission {
        try config.validate()
        if let field = EngineRequest.hostOnlyField(config) { throw EngineError.unsupported(field: field) }
        guard let input = prompt.isEmpty ? config.bosTokenId.map({ [$0] }) : prompt else { throw EngineError.emptyPrompt }
        let prompt = try model.isEncoderDecoder ? EngineRequest.decoderStart(config) : input
        let lengths = try Lengths(
            config, prompt: prompt.count, positions: model.maximumPositions, limit: model.positionLimit)
        let eos = config.eosTokenId ?? []
        var request = ServingRequest(prompt: prompt, maxNewTokens: lengths.maximum - prompt.count)
        request.choices = config.numReturnSequences ?? 1
        request.stopTokens = Set(eos)
        request.root = root
        request.client = client
        var selection = EngineRequest.selection(config)
        selection.bias = bias + EngineRequest.forbidden(config, eos).map { TokenBias(token: $0, value: -.infinity) }
        selection.presencePenalty = presencePenalty
        selection.frequencyPenalty = frequencyPenalty
        if !eos.isEmpty {
            selection.minimumTokens = max(lengths.minimum - prompt.count, 0)
            selection.endTokens = eos
        }
        var submission = Submission(request, selection: selection)
        if model.isEncoderDecoder { submission.encoderInput = input }
        submission.logProbabilities = logProbabilities
        submission.timeLimit = config.maxTime.map { .seconds(min($0, 3.2e9)) }
        return submission
    }

    /// What an encoder-decoder's own sequence begins with.
    package static func decoderStart(_ config: GenerationConfig) throws -> [Int32] {
        guard let start = config.decoderStartTokenId?.first ?? config.bosTokenId else {
            throw GenerationError.missingToken(name: "decoder_start_token_id", purpose: "to begin the decoder's sequence")
        }
        return [start]
    }

    /// The parts of a configuration that have a form on the device.
    private static func selection(_ config: GenerationConfig) -> SlotSelection {
        var selection = SlotSelection()
        selection.repetitionPenalty = Float(config.repetitionPenalty ?? 1)
        selection.seed = config.seed ?? .random(in: 0...UInt64(Int.max))
        guard config.doSample ?? false else { return selection }
        selection.temperature = Float(config.temperature ?? 1)
        selection.topK = config.topK ?? 0
        selection.topP = Float(config.topP ?? 1)
        selection.minP = Float(config.minP ?? 0)
        return selection
    }

    private static func forbidden(_ config: GenerationConfig, _ eos: [Int32]) -> [Int32] {
        let words = (config.badWordsIds ?? []).flatMap { $0 }.filter { !eos.contains($0) }
        return Set(words + (config.suppressTokens ?? [])).sorted()
    }

    /// The first field that asks for what only the host can do, or only `generate` returns.
    private static func hostOnlyField(_ config: GenerationConfig) -> String? {
        let samples = config.doSample ?? false
        let fields: [(name: String, isAsked: Bool)] = [
            ("num_beams", (config.numBeams ?? 1) > 1),
            ("prompt_lookup_num_tokens", config.promptLookupNumTokens != nil),
            ("guidance_scale", (config.guidanceScale ?? 1) != 1),
            ("cache_implementation", config.cacheImplementation == .quantized),
            ("sequence_bias", !(config.sequenceBias ?? []).isEmpty),
            ("bad_words_ids", (config.badWordsIds ?? []).contains { $0.count > 1 }),
            ("encoder_repetition_penalty", (config.encoderRepetitionPenalty ?? 1) != 1),
            ("no_repeat_ngram_size", (config.noRepeatNgramSize ?? 0) > 0),
            ("encoder_no_repeat_ngram_size", (config.encoderNoRepeatNgramSize ?? 0) > 0),
            ("forced_bos_token_id", config.forcedBosTokenId != nil),
            ("forced_eos_token_id", config.forcedEosTokenId != nil),
            ("remove_invalid_values", config.removeInvalidValues ?? false),
            ("exponential_decay_length_penalty", config.exponentialDecayLengthPenalty != nil),
            ("begin_suppress_tokens", !(config.beginSuppressTokens ?? []).isEmpty),
            ("renormalize_logits", config.renormalizeLogits ?? false),
            ("top_h", samples && config.topH != nil),
            ("typical_p", samples && (config.typicalP ?? 1) < 1),
            ("epsilon_cutoff", samples && (config.epsilonCutoff ?? 0) > 0),
            ("eta_cutoff", samples && (config.etaCutoff ?? 0) > 0),
            ("output_scores", config.outputScores ?? false),
            ("output_logits", config.outputLogits ?? false),
        ]
        return fields.first(where: \.isAsked)?.name
    }
}
