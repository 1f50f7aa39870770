/// A chat written as a prompt.
public struct ChatPrompt: Sendable, Equatable {
    /// What the template rendered.
    public var text: String
    /// Its tokens. No special tokens were added: the template has written those it wants.
    public var inputIDs: [Int32]
}

extension Tokenizer {
    /// Renders a chat with the model's chat template, as transformers' `apply_chat_template` does.
    ///
    /// - Parameters:
    ///   - messages: the chat, oldest message first.
    ///   - tools: function schemas the model may call. Their presence picks the template `tool_use`, where there is one.
    ///   - documents: texts for templates that answer from documents.
    ///   - template: the name of one of the model's templates, or the text of one to use instead.
    ///   - addGenerationPrompt: whether the prompt ends with the start of an assistant's message.
    ///   - continueFinalMessage: whether the prompt ends within the final message, so that the model continues it.
    ///   - extra: further variables, such as `enable_thinking`.
    /// - Throws: ``ChatTemplateError`` if there is no template; `JinjaError` if it cannot be parsed or refuses the chat.
    public func applyChatTemplate(
        messages: [ChatMessage], tools: [JinjaValue]? = nil, documents: [JinjaValue]? = nil, template: String? = nil,
        addGenerationPrompt: Bool = false, continueFinalMessage: Bool = false, extra: [String: JinjaValue] = [:]
    ) throws -> ChatPrompt {
        let parsed = try ChatTemplate(source: try chatTemplate(template, hasTools: tools != nil))
        let text = try parsed.render(
            messages: messages, tools: tools.map(JinjaValue.list), documents: documents.map(JinjaValue.list),
            addGenerationPrompt: addGenerationPrompt, continueFinalMessage: continueFinalMessage,
            specialTokens: specialTokens.named.mapValues(\.text), extra: extra)
        return ChatPrompt(text: text, inputIDs: try encodeCompletely(text, addSpecialTokens: false))
    }

    /// Finds out whether chats can be rendered, without one.
    /// - Throws: ``ChatTemplateError`` if there is no template; `JinjaError` if it cannot be parsed.
    package func checkChatTemplate(_ name: String? = nil) throws { _ = try ChatTemplate(source: chatTemplate(name)) }

    /// The text of the template for a chat: the one named `name`, `name` itself where it names none, else `tool_use` if there
    /// are tools, else `default`.
    /// - Throws: ``ChatTemplateError``
    public func chatTemplate(_ name: String? = nil, hasTools: Bool = false) throws -> String {
        let templates = configuration.chatTemplates
        if let name { return templates[name] ?? name }
        if hasTools, let template = templates["tool_use"] { return template }
        if let template = templates["default"] { return template }
        throw templates.isEmpty ? ChatTemplateError.noTemplate : .noDefaultTemplate(names: templates.keys.map(\.text).sorted())
    }
}

/// Why no chat template could be chosen.
public enum ChatTemplateError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The tokenizer has no template.
    case noTemplate
    /// There are templates, but none of them is the default.
    case noDefaultTemplate(names: [String])

    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .noTemplate:
            "the tokenizer has no chat template (looked for chat_template in tokenizer_config.json and for chat_template.jinja): "
                + "give one with --chat-template, or use a model made for chats"
        case .noDefaultTemplate(let names):
            "the tokenizer has no default chat template: name one of \(names.joined(separator: ", "))"
        }
    }
}
