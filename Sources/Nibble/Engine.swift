package import Foundation
import NibbleCore
package import NibbleGeneration
import NibbleGrammar
import NibbleModels
package import NibbleServing

/// How large an engine is.
public struct EngineConfiguration: Sendable {
    /// Sequences that run at once.
    public var maxBatch: Int
    /// Tokens that a sequence may hold, prompt included. `nil`: as many as the model was made for and the cache has room for.
    public var context: Int?
    /// Bytes for keys and values on each device. `nil`: what the sequences can fill, at most three quarters of what is free.
    public var cacheBudget: MemoryLimit?
    /// Requests that may wait; further ones are refused.
    package var maxQueue: Int
    /// Tokens that the prompts of waiting requests may have together.
    package var maxQueueTokens = Int.max
    /// Tokens of a step, all sequences together. `nil`: as the model was loaded.
    package var chunkTokens: Int?
    /// How long a step should take while sequences decode. `nil`: 100 ms on the CPU, 30 ms elsewhere.
    package var targetStep: Duration?

    /// The defaults suit one GPU, or a CPU of several cores.
    public init(maxBatch: Int = 16, context: Int? = nil, cacheBudget: MemoryLimit? = nil, maxQueue: Int = 512) {
        self.maxBatch = maxBatch
        self.context = context
        self.cacheBudget = cacheBudget
        self.maxQueue = maxQueue
    }
}

/// Serves many requests side by side with one model.
///
/// ```swift
/// let engine = try await model.engine(EngineConfiguration(maxBatch: 16), tokenizer: tokenizer)
/// let request = EngineRequest(try tokenizer("Once upon a time").inputIDs[0], GenerationConfig(maxNewTokens: 64))
/// for try await event in engine.submit(request) {
///     if case .delta(_, let text, _) = event { print(text, terminator: "") }
/// }
/// ```
/// The tokens of a request do not depend on the others: with a seed they are those of ``PretrainedModel/generate(_:_:tokenizer:assistant:)``.
/// Letting go of the engine stops it.
public final class Engine: Sendable {
    package let tokenEngine: TokenEngine
    package let model: PretrainedModel
    /// The copies, in the order of the engine's executors.
    let models: [LanguageModel]
    private let tokenizer: Tokenizer?
    private let grammarTokens: GrammarTokens?

    init(_ tokenEngine: TokenEngine, _ model: PretrainedModel, _ models: [LanguageModel], _ tokenizer: Tokenizer?) {
        self.tokenEngine = tokenEngine
        self.model = model
        self.models = models
        self.tokenizer = tokenizer
        grammarTokens = tokenizer?.grammarTokens
    }

    /// Takes a request into the queue and delivers what comes of it.
    ///
    /// The events never hold the engine up: whoever reads slowly gets larger pieces. Leaving the loop, or cancelling its task, ends
    /// the request wherever it is.
    /// - Returns: a sequence that throws ``EngineError``, ``GenerationError`` and ``ModelError``: at once for a request that is refused.
    public func submit(_ request: EngineRequest) -> AsyncThrowingStream<EngineEvent, any Error> {
        do {
            let reader = try reader(request)
            return AsyncThrowingStream { try await reader.next() }
        } catch {
            return AsyncThrowingStream { throw error }
        }
    }

    /// Takes a request into the queue; what cannot be taken is refused at once.
    ///
    /// - Throws: ``EngineError``, ``GenerationError``, ``ModelError``.
    package func reader(_ request: EngineRequest) throws -> EngineReader {
        let config = GenerationConfig.resolved(call: request.config, model: model.generationConfig)
        var submission = try request.submission(config, model.model)
        submission.adapters = request.adapters ?? model.model.adapters.active
        let strings = config.stopStrings ?? []
        if !strings.isEmpty, tokenizer == nil {
            throw GenerationError.conflict("stop_strings need the tokenizer, and this engine was made without one")
        }
        submission.masks = try request.grammar.map { try masks($0, ends: config.eosTokenId ?? []) }
        let answers = try tokenEngine.submit(submission)
        return EngineReader(answers, submission, request, strings: strings, tokenizer)
    }

    /// Makes what holds the answers to a request to a grammar, for ``Submission/masks``.
    ///
    /// - Parameters:
    ///   - ends: tokens that end a text. They are allowed exactly where the text is complete.
    ///   - marks: special tokens that stand for text in this grammar.
    /// - Throws: ``GenerationError`` for an engine without a tokenizer.
    package func masks(
        _ grammar: GenerationGrammar, ends: [Int32], marks: [Int32: [UInt8]] = [:]
    ) throws -> @Sendable (_ choice: Int) -> any TokenMaskProvider {
        guard let grammarTokens else {
            throw GenerationError.conflict("a grammar needs the tokenizer, and this engine was made without one")
        }
        let vocabulary = grammarTokens.vocabulary(tokenEngine.vocabularySize, ends: ends, marks: marks)
        return { _ in GrammarMask(grammar.grammar, vocabulary) }
    }

    /// Takes no new requests from now on. Those that are here run to their end.
    package func drain() { tokenEngine.drain() }

    /// Drains, and after `timeout` ends what is left with ``EngineError/stopped``.
    public func shutdown(timeout: Duration) async { await tokenEngine.shutdown(timeout: timeout) }
}

extension PretrainedModel {
    /// Makes an engine, which holds its memory for as long as it lives.
    ///
    /// - Parameters:
    ///   - configuration: how many sequences run at once, and how much memory their keys and values may take.
    ///   - tokenizer: decodes tokens and finds stop strings. Without it events have no text.
    ///   - replicas: further copies of the model, each on a device of its own. The sizes are those of each; a request goes to
    ///     the copy that has the least to do.
    /// - Throws: ``ModelError`` for sizes that are impossible, ``MemoryLimitError``, ``BackendError``.
    public func engine(
        _ configuration: EngineConfiguration = EngineConfiguration(), tokenizer: Tokenizer? = nil,
        replicas: [PretrainedModel] = []
    ) async throws -> Engine {
        let size = ExecutorSize(
            slots: configuration.maxBatch, context: configuration.context,
            cacheBytes: try configuration.cacheBudget?.bytes(), chunkTokens: configuration.chunkTokens)
        let isOnCPU = deviceMap.devices.allSatisfy { $0 == .cpu || $0 == .disk }
        var options = EngineOptions()
        options.queuedRequests = configuration.maxQueue
        options.queuedTokens = configuration.maxQueueTokens
        options.targetStep = configuration.targetStep ?? .milliseconds(isOnCPU ? 100 : 30)
        options.secondsPerToken = isOnCPU ? 2e-3 : 1e-4
        let models = ([self] + replicas).map(\.model)
        let makers = models.map { model in
            { @Sendable in try model.makeExecutor(size) } as TokenEngine.ExecutorMaker
        }
        return Engine(try await TokenEngine.start(options, makeExecutors: makers), self, models, tokenizer)
    }

    /// Loads `count` copies of a model, the first on the first GPU, and so on.
    /// - Throws: as ``load(folder:_:)``, and ``EngineError/tooFewGPUs(replicas:found:)``.
    package static func load(folder: URL, _ configuration: LoadConfiguration, copies count: Int) throws -> [PretrainedModel] {
        guard count > 1 else { return [try load(folder: folder, configuration)] }
        let present = try configuration.machine().count { $0.device.isGPU }
        guard present >= count else { throw EngineError.tooFewGPUs(replicas: count, found: present) }
        return try (0..<count).map { number in
            var configuration = configuration
            configuration.deviceMap = .device(.cuda(number))
            return try load(folder: folder, configuration)
        }
    }
}

/// Grammars over tokens are masks of an engine's answers.
extension GrammarMask: TokenMaskProvider {}
