import NibbleCore

/// Reads bodies of Ollama's API by rewriting them as bodies of chat completions, so that every field is checked in one place.
enum OllamaRequest {
    /// What an answer is wrapped in.
    enum Form: Sendable {
        case chat
        case generate
    }

    /// A body of /api/chat.
    /// - Throws: `JSONError`, ``APIError``.
    static func chat(_ body: JSONField, vocabulary: Int) throws -> ChatRequest {
        var chat = try common(body)
        let messages = try body.required("messages").elements().map { try message($0) }
        chat["messages"] = .array(messages)
        if let tools = body.child("tools")?.value, tools.array?.isEmpty == false { chat["tools"] = tools }
        return try ChatRequest(JSONField(.object(chat), file: "body"), vocabulary: vocabulary)
    }

    /// A body of /api/generate.
    /// - Parameter hasTemplate: whether prompts become chats.
    /// - Throws: `JSONError`, ``APIError``.
    static func generate(_ body: JSONField, vocabulary: Int, hasTemplate: Bool) throws -> ChatRequest {
        if let suffix = try body.child("suffix")?.string(), !suffix.isEmpty {
            throw APIError.invalid("field 'suffix': this server completes at the end only", param: "suffix")
        }
        if let context = body.child("context"), try !context.elements().isEmpty {
            throw APIError.invalid(
                "field 'context': this server keeps no conversations: use /api/chat", param: "context")
        }
        try refuseImages(body)
        var chat = try common(body)
        var messages: [JSONValue] = []
        if let system = try body.child("system")?.string(), !system.isEmpty {
            messages.append(["role": "system", "content": .string(system)])
        }
        messages.append(["role": "user", "content": .string(try body.text("prompt"))])
        chat["messages"] = .array(messages)
        var request = try ChatRequest(JSONField(.object(chat), file: "body"), vocabulary: vocabulary)
        request.rendering.isPlainText = try body.flag("raw", default: false) || !hasTemplate
        return request
    }

    /// Whether a request only asks that the model be loaded: the prompt is empty or missing.
    static func isEmpty(_ body: JSONField, _ form: Form) throws -> Bool {
        switch form {
        case .chat: try body.child("messages").map { try $0.elements().isEmpty } ?? true
        case .generate: try body.child("prompt")?.string().isEmpty ?? true
        }
    }

    /// `name:latest` is `name`.
    static func model(_ body: JSONField, served: [String]) throws -> String {
        let key = body.child("model") == nil && body.child("name") != nil ? "name" : "model"
        let name = try body.text(key)
        guard !served.contains(name), name.hasSuffix(":latest") else { return name }
        return String(name.dropLast(":latest".count))
    }

    /// Options, by their names in chat completions.
    private static let options = [
        ("temperature", "temperature"), ("top_p", "top_p"), ("min_p", "min_p"), ("seed", "seed"),
        ("repeat_penalty", "repetition_penalty"), ("presence_penalty", "presence_penalty"),
        ("frequency_penalty", "frequency_penalty"), ("stop", "stop"),
    ]

    private static func common(_ body: JSONField) throws -> JSONObject {
        var chat: JSONObject = ["stream": .bool(try body.flag("stream", default: true))]
        if let options = body.child("options") {
            _ = try options.members()
            for (key, name) in Self.options {
                if let value = options.child(key)?.value { chat[name] = value }
            }
            // 0 and -1 are Ollama's ways to say: no limit.
            if let count = try options.child("top_k")?.integer(in: -1...Int(Int32.max)), count > 0 { chat["top_k"] = .int(count) }
            if let count = try options.child("num_predict")?.integer(in: -2...Int(Int32.max)), count > 0 {
                chat["max_tokens"] = .int(count)
            }
        }
        if let format = body.child("format"), format.value.string != "" { chat["response_format"] = try self.format(format) }
        if let think = body.child("think")?.value.bool { chat["chat_template_kwargs"] = ["enable_thinking": .bool(think)] }
        if let top = try body.child("top_logprobs")?.integer(in: 0...20) { chat["top_logprobs"] = .int(top) }
        if try body.flag("logprobs", default: false) { chat["logprobs"] = true }
        return chat
    }

    private static func format(_ field: JSONField) throws -> JSONValue {
        if field.value.string == "json" { return ["type": "json_object"] }
        guard field.value.object != nil else { throw field.unexpected("'json' or a JSON schema") }
        return ["type": "json_schema", "json_schema": ["name": "format", "schema": field.value]]
    }

    private static func refuseImages(_ field: JSONField) throws {
        guard let images = field.child("images"), try !images.elements().isEmpty else { return }
        throw APIError.invalid("field '\(images.path)': this server reads text only", param: images.path)
    }

    private static func message(_ field: JSONField) throws -> JSONValue {
        try refuseImages(field)
        var message: JSONObject = ["role": .string(try field.text("role"))]
        message["content"] = field.child("content")?.value
        if let thinking = field.child("thinking")?.value { message["reasoning_content"] = thinking }
        if let name = field.child("tool_name")?.value { message["name"] = name }
        if let id = field.child("tool_call_id")?.value { message["tool_call_id"] = id }
        if let calls = field.child("tool_calls"), try !calls.elements().isEmpty { message["tool_calls"] = calls.value }
        return .object(message)
    }
}
