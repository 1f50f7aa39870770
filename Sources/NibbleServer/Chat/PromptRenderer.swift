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
    /// How the model writes calls.
    let toolFormat: ToolFormat

    /// - Parameter template: its text; `nil`: the model's own.
    init(_ tokenizer: Tokenizer, template: String?) {
        self.tokenizer = tokenizer
        specialTokens = tokenizer.specialTokens.named.mapValues(\.text)
        plain = Result { try ChatTemplate(source: tokenizer.chatTemplate(template)) }
        let source = try? tokenizer.chatTemplate(template, hasTools: true)
        withTools = source.map { source in Result { try ChatTemplate(source: source) } } ?? plain
        toolFormat = ToolFormat.found(in: source ?? "")
    }

    struct Prompt: Sendable {
        var text: String
        var tokens: [Int32]
    }

    /// - Throws: ``APIError`` where there is no template; `JinjaError` for a chat that the template refuses.
    func prompt(_ messages: [ChatMessage], tools: [ToolDefinition], _ rendering: ChatRendering) throws -> Prompt {
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

    /// Ids of special tokens that mark calls: their text is wanted.
    var toolMarks: Set<Int32> {
        Set((toolFormat.openings + toolFormat.closings + ["[ARGS]"]).compactMap { tokenizer.id(for: $0) })
    }
}
