import Nibble
import NibbleCore
import NibbleTemplates
import NibbleTokenizers

/// Writes chats as prompts. Templates are parsed once.
struct PromptRenderer: Sendable {
    private let tokenizer: Tokenizer
    private let specialTokens: [String: String]
    private let plain: Result<ChatTemplate, any Error>
    private let withTools: Result<ChatTemplate, any Error>
    /// Whether messages can be read without a template: an encoder reads plain texts.
    private let readsPlainTexts: Bool
    /// How the model writes calls.
    let toolFormat: ToolFormat

    /// - Parameters:
    ///   - template: its text; `nil`: the model's own.
    ///   - isEncoderDecoder: a model without a template then reads the system message and the last user message.
    init(_ tokenizer: Tokenizer, template: String?, isEncoderDecoder: Bool = false) {
        self.tokenizer = tokenizer
        specialTokens = tokenizer.specialTokens.named.mapValues(\.text)
        plain = Result { try ChatTemplate(source: tokenizer.chatTemplate(template)) }
        let source = try? tokenizer.chatTemplate(template, hasTools: true)
        withTools = source.map { source in Result { try ChatTemplate(source: source) } } ?? plain
        toolFormat = ToolFormat.found(in: source ?? "")
        readsPlainTexts = isEncoderDecoder && (try? plain.get()) == nil
    }

    /// Whether chats can be written with a template.
    var hasTemplate: Bool { (try? plain.get()) != nil }

    struct Prompt: Sendable {
        var text: String
        var tokens: [Int32]
    }

    /// - Throws: ``APIError`` where there is no template; `JinjaError` for a chat that the template refuses.
    func prompt(_ messages: [ChatMessage], tools: [ToolDefinition], _ rendering: ChatRendering) throws -> Prompt {
        if rendering.isPlainText || readsPlainTexts { return try plainPrompt(messages) }
        let template: ChatTemplate
        do {
            template = try (tools.isEmpty ? plain : withTools).get()
        } catch let error as ChatTemplateError {
            throw APIError.invalid("\(error)", param: "messages", code: "no_chat_template")
        }
        let text = try template.render(
            messages: messages, tools: tools.isEmpty ? nil : .list(tools.map(\.description)), documents: rendering.documents,
            addGenerationPrompt: rendering.addsGenerationPrompt, continueFinalMessage: rendering.continuesFinalMessage,
            specialTokens: specialTokens, extra: rendering.variables)
        do {
            return Prompt(text: text, tokens: try tokenizer.encodeCompletely(text, addSpecialTokens: false))
        } catch {
            throw APIError.invalid("\(error)", param: "messages")
        }
    }

    /// The system message and the last user message one after the other, as a text and not as a chat.
    private func plainPrompt(_ messages: [ChatMessage]) throws -> Prompt {
        func text(_ message: ChatMessage?) -> String {
            if case .string(let text)? = message?.content { text } else { "" }
        }
        guard let message = messages.last(where: { $0.role == "user" }) else {
            throw APIError.invalid("this model reads one text: send a user message", param: "messages")
        }
        let text = text(messages.first { $0.role == "system" }) + text(message)
        do {
            return Prompt(text: text, tokens: try tokenizer.encodeCompletely(text, addSpecialTokens: true))
        } catch {
            throw APIError.invalid("\(error)", param: "messages")
        }
    }

    /// Ids of special tokens that mark calls: their text is wanted.
    var toolMarks: Set<Int32> {
        Set((toolFormat.openings + toolFormat.closings + ["[ARGS]"]).compactMap { tokenizer.id(for: $0) })
    }
}
