/// How to generate: lengths, decoding strategy, processors, special tokens and outputs.
///
/// Names and meanings are those of `transformers`' GenerationConfig. Every field is optional; `nil` means "not said", so that
/// configurations can be layered with ``filling(from:)``: what a call says, over a configuration it was given, over the
/// model's generation_config.json, over ``defaults``. Fields without an entry in ``defaults`` stay off until set.
public struct GenerationConfig: Sendable, Equatable {
    // MARK: Lengths and stopping

    /// Longest sequence, prompt included. Yields to ``maxNewTokens``.
    public var maxLength: Int?
    public var maxNewTokens: Int?
    public var minLength: Int?
    public var minNewTokens: Int?
    public var earlyStopping: EarlyStopping?
    /// Seconds; the step in which it runs out is finished.
    public var maxTime: Double?
    public var stopStrings: [String]?

    // MARK: Strategy

    public var doSample: Bool?
    public var numBeams: Int?
    public var numReturnSequences: Int?
    /// Only the speed depends on it in the reference; Nibble always keeps a cache.
    public var useCache: Bool?
    public var cacheImplementation: CacheImplementation?
    /// Counts with ``CacheImplementation/quantized``.
    public var cacheConfig: QuantizedCacheConfig?
    /// Seed of the random numbers, see `RandomStream`. Unset: a fresh one each time, reported in the output.
    public var seed: UInt64?

    // MARK: Logits

    public var temperature: Double?
    public var topK: Int?
    public var topP: Double?
    public var minP: Double?
    public var topH: Double?
    public var typicalP: Double?
    public var epsilonCutoff: Double?
    public var etaCutoff: Double?
    public var repetitionPenalty: Double?
    public var encoderRepetitionPenalty: Double?
    public var lengthPenalty: Double?
    public var noRepeatNgramSize: Int?
    public var encoderNoRepeatNgramSize: Int?
    public var badWordsIds: [[Int32]]?
    public var sequenceBias: [SequenceBias]?
    public var guidanceScale: Double?
    public var renormalizeLogits: Bool?
    public var removeInvalidValues: Bool?
    public var exponentialDecayLengthPenalty: ExponentialDecay?
    public var suppressTokens: [Int32]?
    public var beginSuppressTokens: [Int32]?
    public var forcedBosTokenId: Int32?
    public var forcedEosTokenId: [Int32]?

    // MARK: Special tokens

    public var bosTokenId: Int32?
    public var eosTokenId: [Int32]?
    public var padTokenId: Int32?
    /// One id, or one for each item of the batch.
    public var decoderStartTokenId: [Int32]?

    // MARK: Assisted decoding

    public var numAssistantTokens: Int?
    public var numAssistantTokensSchedule: AssistantSchedule?
    public var assistantConfidenceThreshold: Double?
    public var promptLookupNumTokens: Int?
    public var maxMatchingNgramSize: Int?

    // MARK: Outputs

    public var outputScores: Bool?
    public var outputLogits: Bool?
    public var returnDictInGenerate: Bool?

    // MARK: Modes that are refused by name

    public var penaltyAlpha: Double?
    public var numBeamGroups: Int?
    public var diversityPenalty: Double?
    public var constraints: OpaqueOption?
    public var forceWordsIds: OpaqueOption?
    public var dolaLayers: OpaqueOption?
    public var watermarkingConfig: OpaqueOption?
    public var assistantEarlyExit: Int?

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
    public static let defaultNewTokens = 20

    /// The values that count: those of the call, else of the configuration it was given, else of the model's file, else
    /// the defaults.
    public static func resolved(
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

public enum CacheImplementation: String, Sendable, CaseIterable {
    case dynamic, `static`, offloaded, quantized, hybrid
    case offloadedStatic = "offloaded_static"
    case slidingWindow = "sliding_window"
    case hybridChunked = "hybrid_chunked"
}

public enum AssistantSchedule: String, Sendable, CaseIterable {
    case constant, heuristic
    case heuristicTransient = "heuristic_transient"
}

/// A number added to the score of the last token of `tokens` wherever the others stand before it.
public struct SequenceBias: Sendable, Equatable {
    public var tokens: [Int32]
    public var bias: Double

    public init(tokens: [Int32], bias: Double) {
        self.tokens = tokens
        self.bias = bias
    }
}

/// Raises the score of eos by `factor` to the power of the tokens beyond `start` new ones.
public struct ExponentialDecay: Sendable, Equatable {
    public var start: Int
    public var factor: Double

    public init(start: Int, factor: Double) {
        self.start = start
        self.factor = factor
    }
}

/// The value of an option that is known, but only to be refused: its JSON text.
public struct OpaqueOption: Sendable, Equatable {
    public var text: String

    public init(text: String) { self.text = text }
}
