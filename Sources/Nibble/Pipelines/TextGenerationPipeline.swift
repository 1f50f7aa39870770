/// Continues texts and chats: transformers' `text-generation`.
///
/// Where neither the caller nor the model's files say otherwise, up to 256 tokens are sampled at temperature 0.7.
public struct TextGenerationPipeline: TextPipeline {
    /// What a call can say besides how to generate.
    public struct Options: Sendable {
        /// What a result holds.
        public enum Returned: Sendable {
            /// The prompt as it was given and what was added; a chat with the answer.
            case fullText
            /// Only the new text.
            case newText
            /// The whole sequence as `generate` returns it, padding included; the text is the new text.
            case tokenIDs
        }

        /// A long prompt's way to leave room for its answer.
        public enum LongGeneration: String, Sendable {
            /// Only the end of the prompt is kept, so that the new tokens fit into the model's maximum.
            case hole
        }

        /// What a result holds.
        public var returned = Returned.fullText
        /// Put before every prompt; not part of what is returned. Total lengths grow by its tokens. `nil`: the config's.
        public var prefix: String?
        /// Whether special tokens are put around prompts. Chats write their own.
        public var addSpecialTokens = true
        /// Whether prompts are cut to the tokenizer's maximum length.
        public var truncation = Truncation.none
        /// What happens to a prompt that leaves no room for its answer. `nil`: it is used as it is.
        public var handleLongGeneration: LongGeneration?
        /// Texts that end the generation; they are part of what is returned.
        public var stopSequence: [String] = []
        /// Whether special tokens are left out of the text.
        public var skipSpecialTokens = true
        /// `nil`: the tokenizer's choice.
        public var cleanUpTokenizationSpaces: Bool?
        /// Whether a chat's last message is continued. `nil`: if it is the assistant's.
        public var continueFinalMessage: Bool?
        /// Function schemas for the chat template.
        public var tools: [JinjaValue]?
        /// Documents for templates that answer from documents.
        public var documents: [JinjaValue]?
        /// Further variables of the chat template.
        public var templateVariables: [String: JinjaValue] = [:]
        /// Prompts generated side by side, padded on the left. A row's result does not depend on the others.
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
    private let generation: PipelineGeneration
    private let prefix: String?

    /// Makes a pipeline of loaded parts.
    ///
    /// - Parameters:
    ///   - model: a decoder-only model.
    ///   - tokenizer: the tokenizer of `model`.
    ///   - assistant: a smaller model of the same vocabulary that drafts tokens.
    ///   - generation: options for every call; those of the call take precedence.
    /// - Throws: ``AutoModelError/isEncoderDecoder(_:)``
    public init(
        model: PretrainedModel, tokenizer: Tokenizer, assistant: PretrainedModel? = nil, generation: GenerationConfig = .init()
    ) throws {
        guard !model.isEncoderDecoder else { throw AutoModelError.isEncoderDecoder(model.folder.path) }
        self.model = model
        self.tokenizer = tokenizer
        self.assistant = assistant
        self.generation = PipelineGeneration(
            generation, model: model, tokenizer: tokenizer,
            defaults: GenerationConfig(maxNewTokens: 256, doSample: true, temperature: 0.7))
        prefix = try TaskParameters(model: model).prefix
    }

    /// The continuations of one text, as many as `num_return_sequences` asks for.
    public func callAsFunction(
        _ text: String, _ generation: GenerationConfig = .init(), options: Options = .init()
    ) async throws -> [GeneratedText] {
        try await run([.text(text)], generation, options)[0]
    }

    /// The continuations of each text.
    public func callAsFunction(
        _ texts: [String], _ generation: GenerationConfig = .init(), options: Options = .init()
    ) async throws -> [[GeneratedText]] {
        try await run(texts.map(Prompt.text), generation, options)
    }

    /// The answers to one chat.
    public func callAsFunction(
        _ chat: [ChatMessage], _ generation: GenerationConfig = .init(), options: Options = .init()
    ) async throws -> [GeneratedText] {
        try await run([.chat(chat)], generation, options)[0]
    }

    /// The answers to each chat.
    public func callAsFunction(
        _ chats: [[ChatMessage]], _ generation: GenerationConfig = .init(), options: Options = .init()
    ) async throws -> [[GeneratedText]] {
        try await run(chats.map(Prompt.chat), generation, options)
    }

    private func run(
        _ prompts: [Prompt], _ call: GenerationConfig, _ options: Options
    ) async throws -> [[GeneratedText]] {
        let prefix = options.prefix ?? prefix ?? ""
        let prefixLength = prefix.isEmpty ? 0 : tokenizer.encode(prefix, addSpecialTokens: false).count
        let isChat = prompts.contains { if case .chat = $0 { true } else { false } }
        let answers = isChat ? model.answerLength(tokenizer) : GenerationConfig()
        var config = generation.resolved(call, defaultLength: answers, prefixLength: prefixLength)
        if !options.stopSequence.isEmpty { config.stopStrings = options.stopSequence }
        let rows = try prompts.map { try ids(of: $0, prefix: prefix, config, maxLength: call.maxLength, options) }
        var results: [[GeneratedText]] = []
        for range in try batches(prompts.count, of: options.batchSize) {
            let output = try await generate(Array(rows[range]), config)
            let copies = output.sequences.count / range.count
            for (item, index) in range.enumerated() {
                results.append(
                    (item * copies..<(item + 1) * copies).map { row in
                        result(output.sequences[row], prompts[index], promptLength: output.promptLength, options)
                    })
            }
            options.progress?(range.upperBound, prompts.count)
        }
        return results
    }

    /// One batch: rows of different length are padded on the left.
    private func generate(_ rows: [[Int32]], _ config: GenerationConfig) async throws -> GenerationOutput {
        var rows = rows
        // Padding would hide an empty prompt from generation, which begins it with bos.
        if rows.contains(where: { !$0.isEmpty }), let bos = config.bosTokenId { rows = rows.map { $0.isEmpty ? [bos] : $0 } }
        var request = GenerationRequest(inputs: rows, config: config)
        let width = rows.map(\.count).max() ?? 0
        if width > 0, let pad = tokenizer.specialTokens.pad?.id ?? config.padTokenId ?? config.eosTokenId?.first {
            request.inputs = rows.map { Array(repeating: pad, count: width - $0.count) + $0 }
            request.attentionMask = rows.map { row in (0..<width).map { $0 < width - row.count ? 0 : 1 } }
        }
        request.assistant = assistant?.model
        return try await model.generate(request, tokenizer: tokenizer)
    }
}

extension TextGenerationPipeline {
    enum Prompt: Sendable {
        case text(String)
        case chat([ChatMessage])
    }

    private func ids(
        of prompt: Prompt, prefix: String, _ config: GenerationConfig, maxLength: Int?, _ options: Options
    ) throws -> [Int32] {
        var ids: [Int32]
        switch prompt {
        case .text(let text):
            ids = try tokenizer.encoding(
                prefix + text, pair: nil, truncation: options.truncation, maxLength: maxLength,
                addSpecialTokens: options.addSpecialTokens
            ).ids
        case .chat(let messages):
            guard let last = messages.last else { throw PipelineError.emptyChat }
            let continues = options.continueFinalMessage ?? (last.role == "assistant")
            ids = try tokenizer.applyChatTemplate(
                messages: messages, tools: options.tools, documents: options.documents, addGenerationPrompt: !continues,
                continueFinalMessage: continues, extra: options.templateVariables
            ).inputIDs
        }
        if options.handleLongGeneration == .hole { ids = try cut(ids, config) }
        return ids
    }

    /// Keeps the end of a prompt that would leave no room for the new tokens.
    private func cut(_ ids: [Int32], _ config: GenerationConfig) throws -> [Int32] {
        guard let limit = tokenizer.modelMaxLength else { throw PipelineError.noModelMaxLength }
        let length = ids.count
        guard let newTokens = config.maxNewTokens ?? config.maxLength.map({ $0 - length }), newTokens >= 0 else {
            throw PipelineError.unknownNewTokens(promptLength: length, maxLength: config.maxLength)
        }
        guard length > limit || newTokens > limit - length else { return ids }
        guard newTokens < limit else { throw PipelineError.noRoomForPrompt(newTokens: newTokens, modelMaxLength: limit) }
        return ids.suffix(limit - newTokens)
    }

    private func result(
        _ sequence: [Int32], _ prompt: Prompt, promptLength: Int, _ options: Options
    ) -> GeneratedText {
        let new = tokenizer.decode(
            Array(sequence[promptLength...]), skipSpecialTokens: options.skipSpecialTokens,
            cleanUpTokenizationSpaces: options.cleanUpTokenizationSpaces)
        switch (options.returned, prompt) {
        case (.tokenIDs, _): return GeneratedText(generatedText: new, generatedTokenIDs: sequence)
        case (.newText, _): return GeneratedText(generatedText: new)
        // The prompt's own text, not its tokens decoded again.
        case (.fullText, .text(let text)): return GeneratedText(generatedText: text + new)
        case (.fullText, .chat(let messages)):
            return GeneratedText(generatedText: new, generatedChat: answered(messages, new, options))
        }
    }

    private func answered(_ messages: [ChatMessage], _ new: String, _ options: Options) -> [ChatMessage] {
        guard var last = messages.last, options.continueFinalMessage ?? (last.role == "assistant") else {
            return messages + [ChatMessage(role: "assistant", content: new)]
        }
        switch last.content {
        case .string(let text): last.content = .string(text + new)
        case .array(let parts): last.content = .list(parts.elements + [["type": "text", "text": .string(new)]])
        default: last.content = .string(new)
        }
        return messages.dropLast() + [last]
    }
}

/// One result of a pipeline.
public struct GeneratedText: Sendable, Equatable {
    /// What was asked for: prompt and new text, or the new text alone. For chats always the new text.
    public var generatedText: String
    /// For chats, if the full text was asked for: the messages and the answer, or the last message continued.
    public var generatedChat: [ChatMessage]?
    /// If ids were asked for: the whole sequence.
    public var generatedTokenIDs: [Int32]?

    /// A result with these parts.
    public init(generatedText: String, generatedChat: [ChatMessage]? = nil, generatedTokenIDs: [Int32]? = nil) {
        self.generatedText = generatedText
        self.generatedChat = generatedChat
        self.generatedTokenIDs = generatedTokenIDs
    }
}
