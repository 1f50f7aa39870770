import NibbleCore
import NibbleTemplates
import NibbleTokenizers

/// A body of /v1/chat/completions.
struct ChatRequest: Sendable {
    var model: String?
    var messages: [ChatMessage]
    var tools: [ToolDefinition] = []
    var toolChoice = ToolChoice.auto
    var allowsParallelCalls = true
    var sampling = SamplingFields()
    /// Alternatives beside each token; `nil`: no log probabilities.
    var logProbabilities: Int?
    var stream = StreamOptions()
    var rendering = ChatRendering()
    /// What the text of answers must look like.
    var form: OutputForm?
}

/// Whether an answer is streamed, and with what.
struct StreamOptions: Sendable {
    var isOn = false
    var includesUsage = false

    init() {}

    init(_ body: JSONField) throws {
        isOn = try body.flag("stream", default: false)
        includesUsage = try body.child("stream_options")?.flag("include_usage", default: false) ?? false
    }
}

/// How messages become a prompt.
struct ChatRendering: Sendable {
    var addsGenerationPrompt = true
    var continuesFinalMessage = false
    /// Variables for the template.
    var variables: [String: JinjaValue] = [:]
    var documents: JinjaValue?
    /// The messages are a text to be continued, not a chat.
    var isPlainText = false

    init() {}

    init(_ body: JSONField) throws {
        continuesFinalMessage = try body.flag("continue_final_message", default: false)
        addsGenerationPrompt = try body.flag("add_generation_prompt", default: !continuesFinalMessage)
        if continuesFinalMessage, addsGenerationPrompt {
            throw APIError.invalid(
                "continue_final_message and add_generation_prompt exclude each other", param: "continue_final_message")
        }
        for (key, field) in try body.child("chat_template_kwargs")?.members() ?? [] { variables[key] = JinjaValue(field.value) }
        if let effort = body.child("reasoning_effort") { variables["reasoning_effort"] = .string(try effort.string()) }
        documents = body.child("documents").map { JinjaValue($0.value) }
    }
}

extension ChatRequest {
    /// - Throws: `JSONError`, ``APIError``: each names the field.
    init(_ body: JSONField, vocabulary: Int) throws {
        model = try body.child("model")?.string()
        messages = try ChatRequest.messages(body)
        tools = try body.child("tools")?.elements().map { try ToolDefinition($0) } ?? []
        toolChoice = try ToolChoice(body, tools: tools)
        allowsParallelCalls = try body.flag("parallel_tool_calls", default: true)
        sampling = try SamplingFields(body, vocabulary: vocabulary)
        sampling.maxTokens =
            try body.child("max_completion_tokens")?.integer(in: 1...Int(Int32.max))
            ?? body.child("max_tokens")?.integer(in: 1...Int(Int32.max))
        let wantsProbabilities = try body.flag("logprobs", default: false)
        let top = try body.child("top_logprobs")?.integer(in: 0...20)
        if let top, !wantsProbabilities, top > 0 {
            throw APIError.invalid("top_logprobs needs logprobs: true", param: "top_logprobs")
        }
        logProbabilities = wantsProbabilities ? top ?? 0 : nil
        stream = try StreamOptions(body)
        rendering = try ChatRendering(body)
        form = try OutputForm(body)
    }

    static func messages(_ body: JSONField) throws -> [ChatMessage] {
        let field = try body.required("messages")
        let messages = try field.elements().map { try message($0) }
        guard !messages.isEmpty else { throw field.unexpected("at least one message") }
        return messages
    }

    static func message(_ field: JSONField) throws -> ChatMessage {
        var role = try field.text("role")
        if role == "developer" { role = "system" }
        guard ["system", "user", "assistant", "tool", "function", "ipython"].contains(role) else {
            throw try field.required("role").unexpected("system, developer, user, assistant or tool")
        }
        var message = ChatMessage(role: role, content: try MessageContent.text(field.child("content")))
        for key in ["name", "tool_call_id", "reasoning_content"] {
            if let text = try field.child(key)?.string() { message.fields[key] = .string(text) }
        }
        if let calls = field.child("tool_calls") {
            message.fields["tool_calls"] = .list(try calls.elements().map { try toolCall($0) })
        }
        return message
    }

    /// Templates want the arguments as an object; clients send them as the text of one.
    private static func toolCall(_ field: JSONField) throws -> JinjaValue {
        let function = try field.required("function")
        var arguments = JinjaValue.object(JinjaObject())
        if let given = function.child("arguments") {
            if let text = given.value.string {
                let parsed = try? JSONValue.parse(text)
                arguments = parsed.map { JinjaValue($0) } ?? .string(text)
            } else {
                arguments = JinjaValue(given.value)
            }
        }
        var call = JinjaObject()
        if let id = try field.child("id")?.string() { call["id"] = .string(id) }
        call["type"] = .string("function")
        call["function"] = .object(
            JinjaObject([("name", .string(try function.text("name"))), ("arguments", arguments)]))
        return .object(call)
    }
}

/// The content of a message: a text, or parts of text.
enum MessageContent {
    static func text(_ field: JSONField?) throws -> String {
        guard let field else { return "" }
        if let text = field.value.string { return text }
        guard field.value.array != nil else { throw field.unexpected("a string or an array of parts") }
        return try field.elements().map { part in
            let type = try part.text("type")
            switch type {
            case "text", "input_text", "output_text": return try part.text("text")
            case "refusal": return try part.text("refusal")
            default:
                throw APIError.invalid(
                    "field '\(part.path).type': this server reads text only, found '\(type.prefix(40))'",
                    param: "\(part.path).type")
            }
        }.joined(separator: "\n")
    }
}
