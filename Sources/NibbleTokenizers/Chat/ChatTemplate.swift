package import Foundation
import NibbleCore
package import NibbleTemplates

/// A chat template: the Jinja program in `tokenizer_config.json` or `chat_template.jinja` that writes a chat as a prompt.
///
/// Renders as `transformers.apply_chat_template(tokenize=False)` does. The prompt is to be tokenized without adding special
/// tokens.
package struct ChatTemplate: Sendable {
    private let template: JinjaTemplate

    /// - Throws: `JinjaError` with the line: `syntax`, `unsupportedTag`, `limit`.
    package init(source: String, limits: JinjaLimits = JinjaLimits()) throws {
        template = try JinjaTemplate(source: source, limits: limits)
    }

    /// Renders a chat.
    /// - Parameters:
    ///   - messages: a list of dictionaries with `role` and `content`.
    ///   - tools: a list of function schemas; `documents`: a list of dictionaries. Templates see `none` where nil.
    ///   - addGenerationPrompt: whether the prompt ends with the start of an assistant's message.
    ///   - continueFinalMessage: whether the prompt ends within the final message, so that a model goes on with it.
    ///   - specialTokens: `bos_token`, `eos_token` …, by name.
    ///   - extra: further variables, such as `enable_thinking`; they win over special tokens.
    /// - Throws: `JinjaError`; `continuation` if the final message cannot be continued or a generation prompt is asked for too.
    package func render(
        messages: JinjaValue, tools: JinjaValue? = nil, documents: JinjaValue? = nil, addGenerationPrompt: Bool = false,
        continueFinalMessage: Bool = false, specialTokens: [String: String] = [:], extra: [String: JinjaValue] = [:],
        now: Date? = nil
    ) throws -> String {
        var variables = specialTokens.mapValues(JinjaValue.string).merging(extra) { $1 }
        variables["messages"] = messages
        variables["tools"] = tools ?? JinjaValue.null
        variables["documents"] = documents ?? JinjaValue.null
        variables["add_generation_prompt"] = .bool(addGenerationPrompt)
        guard continueFinalMessage else { return try template.render(variables: variables, now: now) }
        guard !addGenerationPrompt else {
            throw JinjaError(.continuation("continuing the final message and adding a generation prompt exclude each other"))
        }
        let (marked, final) = try ChatContinuation.marked(messages, template: template.source)
        variables["messages"] = marked
        return try ChatContinuation.cut(try template.render(variables: variables, now: now), after: final)
    }

    package func render(
        messages: [ChatMessage], tools: JinjaValue? = nil, documents: JinjaValue? = nil, addGenerationPrompt: Bool = false,
        continueFinalMessage: Bool = false, specialTokens: [String: String] = [:], extra: [String: JinjaValue] = [:],
        now: Date? = nil
    ) throws -> String {
        try render(
            messages: .list(messages.map(\.value)), tools: tools, documents: documents, addGenerationPrompt: addGenerationPrompt,
            continueFinalMessage: continueFinalMessage, specialTokens: specialTokens, extra: extra, now: now)
    }
}

/// Ends a rendered chat within its final message, as transformers does: a mark is put after the message's text before
/// rendering, and the text is cut where the mark is found. If the template trimmed the message, so is the cut.
private enum ChatContinuation {
    private static let mark = "CONTINUE_FINAL_MESSAGE_TAG "

    /// The messages with the mark after the final one's text, and that text.
    static func marked(_ messages: JinjaValue, template: String) throws -> (messages: JinjaValue, final: String) {
        guard case .array(let list) = messages, case .object(var message)? = list.last else {
            throw JinjaError(.continuation("there is no final message to continue"))
        }
        guard template.containsBytes("content") else {
            throw JinjaError(.continuation("the template does not use the messages' content"))
        }
        let final: String
        switch message["content"] {
        case .string(let text)?:
            final = text
            message["content"] = .string(text + mark)
        case .array(let parts)?, .tuple(let parts)?:
            let (text, markedParts) = try markedParts(parts.elements)
            final = text
            message["content"] = .list(markedParts)
        default: throw JinjaError(.continuation("the final message has no content to continue"))
        }
        return (.list(list.dropLast() + [.object(message)]), final)
    }

    /// Marks the last part that has text.
    private static func markedParts(_ parts: [JinjaValue]) throws -> (String, [JinjaValue]) {
        for (index, part) in parts.enumerated().reversed() {
            guard case .object(var object) = part, case .string(let text)? = object["text"] else { continue }
            object["text"] = .string(text + mark)
            var result = parts
            result[index] = .object(object)
            return (text, result)
        }
        throw JinjaError(.continuation("the final message has no text to continue"))
    }

    static func cut(_ rendered: String, after final: String) throws -> String {
        let core = PythonText.strip(mark)
        guard rendered.containsBytes(PythonText.strip(final)), let place = rendered.lastByteRange(of: core)?.lowerBound else {
            throw JinjaError(.continuation("the template does not write the final message as it is, so it cannot be continued"))
        }
        let kept = String(rendered[..<place])
        return rendered[place...].hasBytePrefix(mark) ? kept : PythonText.strip(kept, nil, .trailing)
    }
}
