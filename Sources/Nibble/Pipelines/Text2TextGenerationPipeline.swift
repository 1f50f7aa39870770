/// Answers texts with an encoder-decoder: transformers 4's `text2text-generation`, `summarization` and `translation`.
///
/// Where neither the caller nor the model's files say otherwise, up to 256 tokens are found with 4 beams. The task's name picks a
/// prefix (`summarize: `) and options from the config's `task_specific_params`.
public struct Text2TextGenerationPipeline: TextPipeline {
    /// What a call can say besides how to generate.
    public struct Options: Sendable {
        /// Whether the ids that `generate` returned are wanted, too.
        public var returnTensors = false
        /// Whether prompts are cut to the tokenizer's maximum length.
        public var truncation = Truncation.none
        /// Ends the generation. Only its first token counts.
        public var stopSequence: String?
        /// Whether the space that some vocabularies put before punctuation is removed.
        public var cleanUpTokenizationSpaces = false
        /// Translations: the languages of the texts and of the answers as the tokenizer names them (`eng_Latn`); `nil`: the pipeline's.
        public var srcLang, tgtLang: String?
        /// Texts answered side by side. A row's result does not depend on the others.
        public var batchSize = 1
        /// Called with the number of inputs that are done and their total.
        public var progress: (@Sendable (_ done: Int, _ total: Int) -> Void)?

        /// The defaults.
        public init() {}
    }

    /// The model that generates.
    public let model: PretrainedModel
    /// The tokenizer of ``model``.
    public let tokenizer: Tokenizer
    /// A smaller model of the same vocabulary that drafts tokens, if one was given.
    public let assistant: PretrainedModel?
    /// `text2text-generation`, `summarization`, `translation`, `translation_en_to_de` …
    public let task: String
    /// Put before every text.
    public let prefix: String
    private let generation: PipelineGeneration
    private let languages: (source: String?, target: String?)

    /// Makes a pipeline of loaded parts.
    ///
    /// - Parameters:
    ///   - model: an encoder-decoder.
    ///   - tokenizer: the tokenizer of `model`.
    ///   - task: picks a prefix and options from the `task_specific_params` of config.json.
    ///   - assistant: a smaller model of the same vocabulary that drafts tokens.
    ///   - generation: options for every call; those of the call take precedence.
    ///   - srcLang: translations: the texts' language as the tokenizer names it.
    ///   - tgtLang: translations: the answers' language.
    /// - Throws: ``AutoModelError/isDecoderOnly(_:)``; `GenerationError` for options in config.json that cannot be read.
    public init(
        model: PretrainedModel, tokenizer: Tokenizer, task: String = "text2text-generation", assistant: PretrainedModel? = nil,
        generation: GenerationConfig = .init(), srcLang: String? = nil, tgtLang: String? = nil
    ) throws {
        guard model.isEncoderDecoder else { throw AutoModelError.isDecoderOnly(model.folder.path) }
        self.model = model
        self.tokenizer = tokenizer
        self.assistant = assistant
        self.task = task
        let parameters = try TaskParameters(model: model, task: task)
        prefix = parameters.prefix ?? ""
        // Drafting works on one sequence.
        let beams = assistant == nil ? 4 : 1
        var options = PipelineGeneration(
            generation, model: model, tokenizer: tokenizer, defaults: GenerationConfig(maxNewTokens: 256, numBeams: beams))
        options.task = parameters.generation
        self.generation = options
        languages = (srcLang, tgtLang)
    }

    /// The answers to one text, as many as `num_return_sequences` asks for.
    public func callAsFunction(
        _ text: String, _ generation: GenerationConfig = .init(), options: Options = .init()
    ) async throws -> [GeneratedText] {
        try await self([text], generation, options: options)[0]
    }

    /// The answers to each text.
    public func callAsFunction(
        _ texts: [String], _ generation: GenerationConfig = .init(), options: Options = .init()
    ) async throws -> [[GeneratedText]] {
        var config = self.generation.resolved(generation)
        if let sequence = options.stopSequence {
            guard let token = tokenizer.encode(sequence, addSpecialTokens: false).first else {
                throw PipelineError.emptyStopSequence
            }
            config.eosTokenId = [token]
        }
        let tokenizer = try translator(options)
        var results: [[GeneratedText]] = []
        for range in try batches(texts.count, of: options.batchSize) {
            let inputs = try tokenizer(
                texts[range].map { prefix + $0 }, padding: range.count > 1 ? .longest : .none, truncation: options.truncation)
            var request = GenerationRequest(inputs: inputs.inputIDs, attentionMask: inputs.attentionMask, config: config)
            request.assistant = assistant?.model
            request.config.forcedBosTokenId = generation.forcedBosTokenId ?? inputs.forcedBosTokenId ?? config.forcedBosTokenId
            let output = try await model.generate(request, tokenizer: tokenizer)
            let copies = output.sequences.count / range.count
            for item in 0..<range.count {
                results.append(output.sequences[item * copies..<(item + 1) * copies].map { result($0, options) })
            }
            options.progress?(range.upperBound, texts.count)
        }
        return results
    }

    /// The tokenizer that marks the languages of a call. Models that know no languages by token, such as T5, find them in the task's name.
    private func translator(_ options: Options) throws -> Tokenizer {
        let isAsked = options.srcLang != nil || options.tgtLang != nil
        guard isAsked || !tokenizer.languages.isEmpty else { return tokenizer }
        let target = options.tgtLang ?? languages.target
        if target == nil, task.hasPrefix("translation"), tokenizer.needsTargetLanguage {
            throw PipelineError.noTargetLanguage
        }
        return try tokenizer.translating(from: options.srcLang ?? languages.source, to: target)
    }

    private func result(_ sequence: [Int32], _ options: Options) -> GeneratedText {
        let text = tokenizer.decode(
            sequence, skipSpecialTokens: true, cleanUpTokenizationSpaces: options.cleanUpTokenizationSpaces)
        return GeneratedText(generatedText: text, generatedTokenIDs: options.returnTensors ? sequence : nil)
    }
}
