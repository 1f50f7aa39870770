package import NibbleModels

/// Generates tokens with a model.
package struct Generator: Sendable {
    package let model: any GenerativeModel
    /// The model's own configuration (generation_config.json), for fields that a call leaves unset.
    package let modelConfig: GenerationConfig
    private let tokenBytes: (@Sendable (Int32) -> [UInt8])?
    private let grammarTokens: GrammarTokens?
    let thread: GenerationThread

    /// - Parameters:
    ///   - tokenBytes: the bytes of a token's text (`Tokenizer.tokenBytes`). Needed for stop strings only.
    ///   - grammarTokens: needed for grammars only.
    ///   - thread: runs what does not run in the calling thread.
    package init(
        model: any GenerativeModel, modelConfig: GenerationConfig = GenerationConfig(),
        tokenBytes: (@Sendable (Int32) -> [UInt8])? = nil, grammarTokens: GrammarTokens? = nil,
        thread: GenerationThread = GenerationThread()
    ) {
        self.model = model
        self.modelConfig = modelConfig
        self.tokenBytes = tokenBytes
        self.grammarTokens = grammarTokens
        self.thread = thread
    }

    /// Generates in the calling thread until every row has ended.
    ///
    /// - Parameter onToken: called with each token as it is chosen, rows of a step in ascending order. An error that it throws
    ///   ends the generation. Not available with beams.
    /// - Throws: ``GenerationError``; what the model, a processor, a criterion or `onToken` throws.
    package func generate(
        _ request: GenerationRequest, onToken: ((GeneratedToken) throws -> Void)? = nil
    ) throws -> GenerationOutput {
        var loop = try loop(request, onToken: onToken)
        while true {
            if let output = try loop.takeStep() { return output }
        }
    }

    /// A generation that has not begun.
    func loop(
        _ request: GenerationRequest, onToken: ((GeneratedToken) throws -> Void)?
    ) throws -> any DecodingLoop {
        let config = config(request)
        let resolved = try ResolvedRequest(
            request, config: config, model: model, tokenBytes: tokenBytes, grammarTokens: grammarTokens,
            onToken: onToken)
        let isAssisted = request.assistant != nil || config.promptLookupNumTokens != nil
        switch config.mode {
        case .greedy where isAssisted, .sampling where isAssisted:
            return try AssistedDecoding(resolved, assistant: request.assistant)
        case .greedy, .sampling:
            return try SamplingLoop(resolved)
        case .beamSearch, .beamSampling:
            guard !isAssisted else {
                throw GenerationError.conflict("assisted decoding and prompt look-up cannot be combined with num_beams above 1")
            }
            guard onToken == nil else { throw GenerationError.conflict("tokens cannot be streamed with num_beams above 1") }
            return try BeamSearch(resolved)
        }
    }

    func config(_ request: GenerationRequest) -> GenerationConfig {
        GenerationConfig.resolved(call: request.config, given: request.baseConfig, model: modelConfig)
    }

    /// ``generate(_:onToken:)`` for the common arguments.
    package func generate(
        inputs: [[Int32]], attentionMask: [[Int32]]? = nil, config: GenerationConfig = GenerationConfig(),
        processors: [any LogitsProcessor] = [], stopping: [StoppingCriterion] = [],
        onToken: ((GeneratedToken) throws -> Void)? = nil
    ) throws -> GenerationOutput {
        var request = GenerationRequest(inputs: inputs, attentionMask: attentionMask, config: config)
        request.processors = processors
        request.stopping = stopping
        return try generate(request, onToken: onToken)
    }
}

/// A generation that runs step by step.
protocol DecodingLoop {
    /// Runs the model once more, and chooses the next token of every row (or several, where they were proposed). Returns the
    /// output when every row has ended.
    mutating func takeStep() throws -> GenerationOutput?
}
