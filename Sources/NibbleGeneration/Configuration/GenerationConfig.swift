/// How to generate: lengths, decoding strategy, processors, special tokens and outputs.
///
/// Names and meanings are those of `transformers`' GenerationConfig. Every field is optional; `nil` means "not said", so that
/// configurations can be layered with ``filling(from:)``: what a call says, over a configuration it was given, over the
/// model's generation_config.json, over ``defaults``. Fields without an entry in ``defaults`` stay off until set.
package struct GenerationConfig: Sendable, Equatable {
    // MARK: Lengths and stopping

    /// Longest sequence, prompt included. Yields to ``maxNewTokens``.
    package var maxLength: Int?
    package var maxNewTokens: Int?
    package var minLength: Int?
    package var minNewTokens: Int?
    package var earlyStopping: EarlyStopping?
    /// Seconds; the step in which it runs out is finished.
    package var maxTime: Double?
    package var stopStrings: [String]?

    // MARK: Strategy

    package var doSample: Bool?
    package var numBeams: Int?
    package var numReturnSequences: Int?
    /// Only the speed depends on it in the reference; Nibble always keeps a cache.
    package var useCache: Bool?
    package var cacheImplementation: CacheImplementation?
    /// Counts with ``CacheImplementation/quantized``.
    package var cacheConfig: QuantizedCacheConfig?
    /// Seed of the random numbers, see `RandomStream`. Unset: a fresh one each time, reported in the output.
    package var seed: UInt64?

    // MARK: Logits

    package var temperature: Double?
    package var topK: Int?
    package var topP: Double?
    package var minP: Double?
    package var topH: Double?
    package var typicalP: Double?
    package var epsilonCutoff: Double?
    package var etaCutoff: Double?
    package var repetitionPenalty: Double?
    package var encoderRepetitionPenalty: Double?
    package var lengthPenalty: Double?
    package var noRepeatNgramSize: Int?
    package var encoderNoRepeatNgramSize: Int?
    package var badWordsIds: [[Int32]]?
    package var sequenceBias: [SequenceBias]?
    package var guidanceScale: Double?
    package var renormalizeLogits: Bool?
    package var removeInvalidValues: Bool?
    package var exponentialDecayLengthPenalty: ExponentialDecay?
    package var suppressTokens: [Int32]?
    package var beginSuppressTokens: [Int32]?
    package var forcedBosTokenId: Int32?
    package var forcedEosTokenId: [Int32]?

    // MARK: Special tokens

    package var bosTokenId: Int32?
    package var eosTokenId: [Int32]?
    package var padTokenId: Int32?
    /// One id, or one for each item of the batch.
    package var decoderStartTokenId: [Int32]?

    // MARK: Assisted decoding

    package var numAssistantTokens: Int?
    package var numAssistantTokensSchedule: AssistantSchedule?
    package var assistantConfidenceThreshold: Double?
    package var promptLookupNumTokens: Int?
    package var maxMatchingNgramSize: Int?

    // MARK: Outputs

    package var outputScores: Bool?
    package var outputLogits: Bool?
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

    package init(
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
    package static let defaults: GenerationConfig = {
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
package enum EarlyStopping: Sendable, Equatable {
    /// As soon as every beam has a finished hypothesis (`true`).
    case whenAllBeamsAreDone
    /// When improvement is unlikely (`false`).
    case heuristic
    /// Only when no improvement is possible (`"never"`).
    case never
}

package enum CacheImplementation: String, Sendable, CaseIterable {
    case dynamic, `static`, offloaded, quantized, hybrid
    case offloadedStatic = "offloaded_static"
    case slidingWindow = "sliding_window"
    case hybridChunked = "hybrid_chunked"
}

package enum AssistantSchedule: String, Sendable, CaseIterable {
    case constant, heuristic
    case heuristicTransient = "heuristic_transient"
}

/// A number added to the score of the last token of `tokens` wherever the others stand before it.
package struct SequenceBias: Sendable, Equatable {
    package var tokens: [Int32]
    package var bias: Double

    package init(tokens: [Int32], bias: Double) {
        self.tokens = tokens
        self.bias = bias
    }
}

/// Raises the score of eos by `factor` to the power of the tokens beyond `start` new ones.
package struct ExponentialDecay: Sendable, Equatable {
    package var start: Int
    package var factor: Double

    package init(start: Int, factor: Double) {
        self.start = start
        self.factor = factor
    }
}

/// The value of an option that is only refused: its JSON text.
package struct OpaqueOption: Sendable, Equatable {
    package var text: String

    package init(text: String) { self.text = text }
}
