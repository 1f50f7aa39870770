/// How to generate: lengths, decoding strategy, processors, special tokens and outputs.
///
/// Names and meanings are those of `transformers`' GenerationConfig. Every field is optional; `nil` means "not said", so that
/// configurations can be layered with ``filling(from:)``: what a call says, over a configuration it was given, over the
/// model's generation_config.json, over ``defaults``. Fields without an entry in ``defaults`` stay off until set.
public struct GenerationConfig: Sendable, Equatable {
    // MARK: Lengths and stopping

    /// Longest sequence, prompt included. Yields to ``maxNewTokens``.
    public var maxLength: Int?
    /// The most tokens to add. Wins over ``maxLength``.
    public var maxNewTokens: Int?
    /// The shortest sequence, prompt included: eos is forbidden before.
    public var minLength: Int?
    /// The fewest tokens to add: eos is forbidden before.
    public var minNewTokens: Int?
    /// When beam search ends.
    public var earlyStopping: EarlyStopping?
    /// Seconds; the step in which it runs out is finished.
    public var maxTime: Double?
    /// Texts that end a row; a tokenizer must be passed.
    public var stopStrings: [String]?

    // MARK: Strategy

    /// Draws tokens at random instead of taking the best.
    public var doSample: Bool?
    /// Beams for each item; 1 turns beam search off.
    public var numBeams: Int?
    /// Sequences to return for each item.
    public var numReturnSequences: Int?
    /// Only the speed depends on it in the reference; Nibble always keeps a cache.
    package var useCache: Bool?
    /// How keys and values are kept. Only ``CacheImplementation/quantized`` has an effect.
    public var cacheImplementation: CacheImplementation?
    /// Counts with ``CacheImplementation/quantized``.
    public var cacheConfig: QuantizedCacheConfig?
    /// Seed of the random numbers, see `RandomStream`. Unset: a fresh one each time, reported in the output.
    public var seed: UInt64?

    // MARK: Logits

    /// Divides the logits; below 1 sharpens the distribution.
    public var temperature: Double?
    /// Samples from the k best tokens; 0 is off.
    public var topK: Int?
    /// Samples from the fewest tokens whose probabilities sum to p; 1 is off.
    public var topP: Double?
    /// Samples from tokens with at least this share of the best one's probability.
    public var minP: Double?
    /// Samples from the tokens that keep this share of the distribution's entropy.
    public var topH: Double?
    /// Samples from the most typical tokens up to this mass; 1 is off.
    public var typicalP: Double?
    /// Drops tokens below this probability; 0 is off.
    public var epsilonCutoff: Double?
    /// Drops tokens below a probability that depends on the entropy; 0 is off.
    public var etaCutoff: Double?
    /// Lowers the score of tokens that occurred; 1 is off.
    public var repetitionPenalty: Double?
    /// Raises the score of tokens that occur in the encoder's input; 1 is off.
    public var encoderRepetitionPenalty: Double?
    /// Beams: exponent of the length that divides a score; above 0 favours long sequences.
    public var lengthPenalty: Double?
    /// Forbids repeating n-grams of this size; 0 is off.
    public var noRepeatNgramSize: Int?
    /// Forbids n-grams of the encoder's input; 0 is off.
    public var encoderNoRepeatNgramSize: Int?
    /// Token sequences that may not be completed.
    public var badWordsIds: [[Int32]]?
    /// Numbers added to the scores of tokens that complete a sequence.
    public var sequenceBias: [SequenceBias]?
    /// Strength of classifier-free guidance; 1 is off. See ``GenerationRequest/negativePrompt``.
    public var guidanceScale: Double?
    /// Makes the processed scores log-probabilities again.
    public var renormalizeLogits: Bool?
    /// Replaces NaN and infinities among the scores.
    public var removeInvalidValues: Bool?
    /// Raises the score of eos with the length.
    public var exponentialDecayLengthPenalty: ExponentialDecay?
    /// Tokens that are never chosen.
    public var suppressTokens: [Int32]?
    /// Tokens that are not chosen first.
    public var beginSuppressTokens: [Int32]?
    /// The first new token of an encoder-decoder.
    public var forcedBosTokenId: Int32?
    /// The token that is chosen when the maximum length is reached.
    public var forcedEosTokenId: [Int32]?

    // MARK: Special tokens

    /// Begins a sequence.
    public var bosTokenId: Int32?
    /// Any of these ends a row.
    public var eosTokenId: [Int32]?
    /// Fills rows that ended early.
    public var padTokenId: Int32?
    /// One id, or one for each item of the batch.
    public var decoderStartTokenId: [Int32]?

    // MARK: Assisted decoding

    /// Tokens the assistant drafts before they are checked.
    public var numAssistantTokens: Int?
    /// How ``numAssistantTokens`` changes with what was accepted.
    public var numAssistantTokensSchedule: AssistantSchedule?
    /// The assistant stops drafting below this probability.
    public var assistantConfidenceThreshold: Double?
    /// Drafts this many tokens from the prompt's own text, without an assistant.
    public var promptLookupNumTokens: Int?
    /// Longest n-gram that prompt look-up matches.
    public var maxMatchingNgramSize: Int?

    // MARK: Outputs

    /// Returns the processed scores of each step.
    public var outputScores: Bool?
    /// Returns the unprocessed scores of each step.
    public var outputLogits: Bool?
    package var returnDictInGenerate: Bool?

    // MARK: Unsupported modes, refused by name

    package var penaltyAlpha: Double?
    package var numBeamGroups: Int?
    package var diversityPenalty: Double?
    package var constraints: OpaqueOption?
    package var forceWordsIds: OpaqueOption?
    package var dolaLayers: OpaqueOption?
    package var watermarkingConfig: OpaqueOption?
    package var assistantEarlyExit: Int?

    /// The options that are used most; all others can be set afterwards.
    public init(
        maxNewTokens: Int? = nil, maxLength: Int? = nil, minNewTokens: Int? = nil, doSample: Bool? = nil,
        temperature: Double? = nil, topK: Int? = nil, topP: Double? = nil, minP: Double? = nil,
        repetitionPenalty: Double? = nil, numBeams: Int? = nil, numReturnSequences: Int? = nil, seed: UInt64? = nil
    ) {
        self.maxNewTokens = maxNewTokens
        self.maxLength = maxLength
        self.minNewTokens = minNewTokens
        self.doSample = doSample
        self.temperature = temperature
        self.topK = topK
        self.topP = topP
        self.minP = minP
        self.repetitionPenalty = repetitionPenalty
        self.numBeams = numBeams
        self.numReturnSequences = numReturnSequences
        self.seed = seed
    }
}

extension GenerationConfig {
    /// What counts where nobody said anything. Lengths are missing on purpose: without any, 20 new tokens are generated.
    public static let defaults: GenerationConfig = {
        var config = GenerationConfig(
            doSample: false, temperature: 1, topK: 50, topP: 1, repetitionPenalty: 1, numBeams: 1, numReturnSequences: 1)
        config.minLength = 0
        config.earlyStopping = .heuristic
        config.useCache = true
        config.typicalP = 1
        config.epsilonCutoff = 0
        config.etaCutoff = 0
        config.encoderRepetitionPenalty = 1
        config.lengthPenalty = 1
        config.noRepeatNgramSize = 0
        config.encoderNoRepeatNgramSize = 0
        config.renormalizeLogits = false
        config.removeInvalidValues = false
        config.numAssistantTokens = 20
        config.numAssistantTokensSchedule = .constant
        config.assistantConfidenceThreshold = 0.4
        config.maxMatchingNgramSize = 2
        config.outputScores = false
        config.outputLogits = false
        config.returnDictInGenerate = false
        return config
    }()

    /// New tokens where no length is given anywhere.
    package static let defaultNewTokens = 20

    /// The effective values: those of the call, else of the configuration given to it, else of the model's file, else of
    /// ``defaults``.
    package static func resolved(
        call: GenerationConfig = GenerationConfig(), given: GenerationConfig? = nil, model: GenerationConfig? = nil
    ) -> GenerationConfig {
        var config = call
        for layer in [given, model, defaults] {
            if let layer { config = config.filling(from: layer) }
        }
        return config
    }
}

/// When beam search ends.
public enum EarlyStopping: Sendable, Equatable {
    /// As soon as every beam has a finished hypothesis (`true`).
    case whenAllBeamsAreDone
    /// When improvement is unlikely (`false`).
    case heuristic
    /// Only when no improvement is possible (`"never"`).
    case never
}

/// The kinds of cache that transformers names.
public enum CacheImplementation: String, Sendable, CaseIterable {
    /// All kinds but `quantized` select Nibble's own cache of blocks.
    case dynamic, `static`, offloaded, quantized, hybrid
    /// As `dynamic`.
    case offloadedStatic = "offloaded_static"
    /// As `dynamic`.
    case slidingWindow = "sliding_window"
    /// As `dynamic`.
    case hybridChunked = "hybrid_chunked"
}

/// How the number of drafted tokens changes.
public enum AssistantSchedule: String, Sendable, CaseIterable {
    /// `constant` keeps the number; `heuristic` raises it when all drafts were accepted and lowers it otherwise.
    case constant, heuristic
    /// As `heuristic`, beginning anew in each call.
    case heuristicTransient = "heuristic_transient"
}

/// A number added to the score of the last token of `tokens` wherever the others stand before it.
public struct SequenceBias: Sendable, Equatable {
    /// The sequence; its last token gets the bias.
    public var tokens: [Int32]
    /// The number that is added, negative to discourage.
    public var bias: Double

    /// A bias for one sequence of tokens.
    public init(tokens: [Int32], bias: Double) {
        self.tokens = tokens
        self.bias = bias
    }
}

/// Raises the score of eos by `factor` to the power of the tokens beyond `start` new ones.
public struct ExponentialDecay: Sendable, Equatable {
    /// New tokens before the score begins to rise.
    public var start: Int
    /// The base of the power.
    public var factor: Double

    /// A rise that begins after `start` new tokens.
    public init(start: Int, factor: Double) {
        self.start = start
        self.factor = factor
    }
}

/// The value of an option that is only refused: its JSON text.
package struct OpaqueOption: Sendable, Equatable {
    package var text: String

    package init(text: String) { self.text = text }
}
