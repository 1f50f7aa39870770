package import Foundation
import NibbleCore
import NibbleLoading

extension PretrainedModel {
    /// What generation_config.json, or the config, of the model in `folder` says. Needs no weights.
    ///
    /// - Throws: `JSONError`, `GenerationError`; `CheckpointError` for a GGUF file that cannot be read.
    package static func generationConfig(of folder: URL) throws -> GenerationConfig {
        guard ModelSource.isGGUF(folder) else { return try GenerationConfig(modelFolder: folder) }
        return try GenerationConfig(modelConfig: .object(ModelSource(folder: folder).config.values), source: folder.path)
    }

    /// A generator over this model and its generation_config.json.
    ///
    /// - Parameter tokenizer: needed for stop strings and grammars.
    package func generator(tokenizer: Tokenizer? = nil) -> Generator {
        guard let tokenizer else { return Generator(model: model, modelConfig: generationConfig, thread: thread) }
        return Generator(
            model: model, modelConfig: generationConfig, tokenBytes: { tokenizer.tokenBytes($0) },
            grammarTokens: tokenizer.grammarTokens, thread: thread)
    }

    /// Continues (or, for an encoder-decoder, answers) each row of `inputs`.
    ///
    /// Rows without a mask are padded on the left where their lengths differ. The work runs on the model's own thread and blocks no
    /// thread of the cooperative pool. Generations that run at the same time take turns, a token each; an ``Engine`` runs requests
    /// side by side.
    /// - Parameters:
    ///   - inputs: token ids, one row for each prompt.
    ///   - config: what the model's generation_config.json and the defaults leave open or should not decide.
    ///   - tokenizer: needed for stop strings.
    ///   - assistant: a smaller model of the same vocabulary that drafts tokens.
    /// - Throws: ``GenerationError``, ``SessionError``, ``ModelError``, ``BackendError``; `CancellationError` soon after the task was
    ///   cancelled.
    public func generate(
        _ inputs: BatchEncoding, _ config: GenerationConfig = GenerationConfig(), tokenizer: Tokenizer? = nil,
        assistant: PretrainedModel? = nil
    ) async throws -> GenerationOutput {
        try await generate(request(inputs, config), tokenizer: tokenizer, assistant: assistant)
    }

    func request(_ inputs: BatchEncoding, _ config: GenerationConfig) -> GenerationRequest {
        var request = GenerationRequest(inputs: inputs.inputIDs, config: config)
        if !inputs.attentionMask.isEmpty { request.attentionMask = inputs.attentionMask }
        if config.forcedBosTokenId == nil { request.config.forcedBosTokenId = inputs.forcedBosTokenId }
        return request
    }

    /// Generates with processors, stopping criteria and whatever else a request can hold.
    ///
    /// - Throws: as ``generate(_:_:tokenizer:assistant:)``; ``LoadError`` for adapters that rows cannot use; what the caller's
    ///   processors and criteria throw.
    public func generate(
        _ request: GenerationRequest, tokenizer: Tokenizer? = nil, assistant: PretrainedModel? = nil
    ) async throws -> GenerationOutput {
        try await generator(tokenizer: tokenizer).output(of: completed(request, assistant))
    }

    /// The request with what this model knows of it.
    func completed(_ request: GenerationRequest, _ assistant: PretrainedModel?) throws -> GenerationRequest {
        var request = request
        if let assistant { request.assistant = assistant.model }
        if let names = request.adapters { request.adapterWeights = try loadedAdapters.withLock { try $0.weights(of: names) } }
        return request
    }
}

extension Tokenizer {
    /// The tokens as grammars see them: special ones stand for no text.
    package var grammarTokens: GrammarTokens {
        GrammarTokens { Int($0) < self.vocabularySize && !self.isSpecial($0) ? self.tokenBytes($0) : [] }
    }
}
