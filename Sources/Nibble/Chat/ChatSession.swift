/// A conversation with a model: its messages, and the KV cache of what the model has read.
///
/// For each answer the model reads only what follows the text that it has read before.
public final class ChatSession {
    /// The model that answers.
    public let model: PretrainedModel
    /// The tokenizer whose chat template renders the messages.
    public let tokenizer: Tokenizer
    /// How to generate. What is not set comes from the model's generation_config.json.
    public var generation: GenerationConfig
    /// The name or the text of the template; `nil`: the model's own.
    public let template: String?
    /// Goes before all messages; `nil`: whatever the template does without one.
    public var system: String?
    /// What each answer must look like; `nil`: anything.
    public var grammar: GenerationGrammar?
    /// The messages so far, oldest first, without the system text. They may be changed between answers: the model then reads
    /// again from the first message that differs.
    public var messages: [ChatMessage] = []
    private let generator: Generator
    private let keptSession = KeptSession()

    /// How answers are sampled where neither the call nor the model's generation_config.json says. Greedy answers of small models
    /// repeat themselves.
    package static let defaults = GenerationConfig(doSample: true, temperature: 0.7, topP: 0.9)

    /// Begins a chat without messages.
    ///
    /// - Parameters:
    ///   - model: a decoder-only model.
    ///   - tokenizer: the tokenizer of `model`.
    ///   - system: a text before all messages.
    ///   - template: the name or the text of a template. `nil`: the model's own.
    ///   - generation: how to generate. Fields that are `nil` come from the model's generation_config.json.
    /// - Throws: ``AutoModelError/isEncoderDecoder(_:)``; ``ChatTemplateError``; ``JinjaError`` for a template that cannot be parsed.
    public init(
        model: PretrainedModel, tokenizer: Tokenizer, system: String? = nil, template: String? = nil,
        generation: GenerationConfig = .init()
    ) throws {
        guard !model.isEncoderDecoder else { throw AutoModelError.isEncoderDecoder(model.folder.path) }
        try tokenizer.checkChatTemplate(template)
        self.model = model
        self.tokenizer = tokenizer
        self.system = system
        self.template = template
        self.generation = generation
        generator = model.generator(tokenizer: tokenizer)
    }

    /// Forgets all messages. The system text stays.
    public func reset() { messages = [] }

    /// Answers `text` and remembers both.
    ///
    /// - Parameters:
    ///   - text: the user's message.
    ///   - shouldStop: asked after each token. An answer that was stopped is remembered as far as it came.
    ///   - isolation: the caller's, where `onText` is called.
    ///   - onText: receives the answer piece by piece, never a part of a character.
    /// - Throws: ``JinjaError``, ``GenerationError``, ``BackendError``; `CancellationError`. The chat is then as it was before.
    @discardableResult
    public func answer(
        _ text: String, shouldStop: @escaping @Sendable () -> Bool = { false },
        isolation: isolated (any Actor)? = #isolation, onText: (String) -> Void
    ) async throws -> ChatAnswer {
        let asked = messages + [ChatMessage(role: "user", content: text)]
        let opening = system.map { [ChatMessage(role: "system", content: $0)] } ?? []
        let prompt = try tokenizer.applyChatTemplate(
            messages: opening + asked, template: template, addGenerationPrompt: true)
        var request = GenerationRequest(inputs: [prompt.inputIDs])
        // A template may render nothing: the answer then begins with bos.
        if !prompt.inputIDs.isEmpty { request.attentionMask = [prompt.inputIDs.map { _ in 1 }] }
        request.config = config(promptLength: prompt.inputIDs.count)
        request.grammar = grammar
        request.stopping = [{ _ in shouldStop() }]
        request.keptSession = keptSession

        var decoder = TokenStreamDecoder(tokenizer, skipSpecialTokens: true)
        var answer = ChatAnswer(text: "", promptTokens: prompt.inputIDs.count, newTokens: 0)
        func add(_ piece: String) {
            guard !piece.isEmpty else { return }
            answer.text += piece
            onText(piece)
        }
        for try await event in generator.stream(request) {
            switch event {
            case .token(let token):
                answer.newTokens += 1
                add(decoder.push(token.id))
            case .finished(let output):
                answer.finishReason = output.finishReasons.first ?? nil
                answer.warnings = output.warnings
                answer.cachedTokens = output.cachedTokens
            }
        }
        // A stream whose reader was cancelled between two events ends without an error.
        try Task.checkCancellation()
        add(decoder.finish())
        messages = asked + [ChatMessage(role: "assistant", content: answer.text)]
        return answer
    }

    /// One sequence, as long as the model's positions allow.
    private func config(promptLength: Int) -> GenerationConfig {
        var config = Self.resolved(generation, model: model.generationConfig)
        if config.maxNewTokens == nil, config.maxLength == nil {
            config = config.filling(from: model.answerLength(tokenizer, promptLength: promptLength))
        }
        return config
    }

    /// What a chat generates with: `generation`, over the model's configuration, over ``defaults``; always one sequence.
    package static func resolved(_ generation: GenerationConfig, model: GenerationConfig) -> GenerationConfig {
        var config = generation.filling(from: model)
        config.numBeams = 1
        config.numReturnSequences = 1
        if config.doSample ?? true { config = config.filling(from: defaults) }
        return config
    }
}

/// One answer of a chat, with the counts that describe its cost.
public struct ChatAnswer: Sendable {
    /// The answer, without special tokens.
    public var text: String
    /// Tokens of the whole chat before the answer.
    public var promptTokens: Int
    /// Of these, tokens that were known from earlier answers and not fed again.
    public var cachedTokens = 0
    /// Tokens of the answer.
    public var newTokens: Int
    /// Why the answer ended.
    public var finishReason: FinishReason?
    /// What generation noticed about the options.
    public var warnings: [GenerationWarning] = []
}
