import Hummingbird
import NibbleCore
import NibbleTemplates
import NibbleTokenizers

/// POST /v1/messages and /v1/messages/count_tokens: Anthropic's form of a chat.
struct Messages: Sendable {
    let core: ServerCore

    /// An error in the form that Anthropic's clients read.
    static func json(_ error: APIError) -> JSONValue {
        let type =
            switch error.status.code {
            case 401: "authentication_error"
            case 404: "not_found_error"
            case 413: "request_too_large"
            case 429: "rate_limit_error"
            case 503, 529: "overloaded_error"
            case 400..<500: "invalid_request_error"
            default: "api_error"
            }
        return ["type": "error", "error": ["type": .string(type), "message": .string(error.message)]]
    }

    private static let form = StreamForm(
        contentType: "text/event-stream", ping: "event: ping\ndata: {\"type\": \"ping\"}\n\n"
    ) { "event: error\ndata: \(json($0).encoded())\n\n" }

    func countTokens(_ body: JSONField) throws -> Response {
        let request = try MessagesRequest.chat(body, vocabulary: core.vocabulary, countsOnly: true)
        try core.checkModel(request.model)
        let shown = request.toolChoice.shown(of: request.tools)
        let prompt = try core.renderer.prompt(request.messages, tools: shown, request.rendering)
        return .json(["input_tokens": .int(prompt.tokens.count)])
    }

    func respond(_ body: JSONField, _ context: ServerContext, client: String) async throws -> Response {
        let request = try MessagesRequest.chat(body, vocabulary: core.vocabulary, countsOnly: false)
        try core.checkModel(request.model)
        let run = try await ChatRun.start(request, core, context, client: client)
        let id = "msg_" + Identifiers.random(24)
        let model = request.model ?? core.configuration.modelName
        guard request.stream.isOn else { return try await plain(run, id, model) }
        return run.source.response(Self.form, core.configuration) { stream in
            var blocks = MessageBlocks()
            var output = stream
            let opening: JSONValue = [
                "type": "message_start",
                "message": Self.message(
                    id, model, content: [], stop: .null, sequence: .null, TokenUsage(prompt: run.source.promptTokens)),
            ]
            output.event("message_start", opening.encoded())
            var ending: (reason: String, sequence: JSONValue) = ("end_turn", .null)
            let usage = try await run.read { event in
                switch event {
                case .silence: output.text(Self.form.ping)
                case .delta(_, let delta, _): blocks.write(delta, to: &output)
                case .tokens: break
                case .finished(_, let choice, let end): ending = Self.ending(choice, end)
                }
            } flush: { _ in
                try await output.flush()
            }
            blocks.close(&output)
            let delta: JSONValue = [
                "type": "message_delta", "delta": ["stop_reason": .string(ending.reason), "stop_sequence": ending.sequence],
                "usage": ["output_tokens": .int(usage.completion)],
            ]
            output.event("message_delta", delta.encoded())
            output.event("message_stop", "{\"type\":\"message_stop\"}")
            stream = output
        }
    }

    private func plain(_ run: ChatRun, _ id: String, _ model: String) async throws -> Response {
        defer { run.source.close() }
        var answer: (choice: ChatChoice, end: AnswerEnd)?
        let usage = try await run.read { event in
            if case .finished(_, let choice, let end) = event { answer = (choice, end) }
        } flush: { _ in
        }
        guard let answer else { throw APIError.server("there is no answer") }
        var content: [JSONValue] = []
        if !answer.choice.content.isEmpty { content.append(["type": "text", "text": .string(answer.choice.content)]) }
        for call in answer.choice.calls {
            let input = (try? JSONValue.parse(call.arguments)) ?? .object([:])
            content.append(["type": "tool_use", "id": .string(call.id), "name": .string(call.name), "input": input])
        }
        let ending = Self.ending(answer.choice, answer.end)
        return .json(
            Self.message(id, model, content: content, stop: .string(ending.reason), sequence: ending.sequence, usage))
    }

    private static func ending(_ choice: ChatChoice, _ end: AnswerEnd) -> (reason: String, sequence: JSONValue) {
        switch end {
        case .length: ("max_tokens", .null)
        case .stop where !choice.calls.isEmpty: ("tool_use", .null)
        case .stop(let text?): ("stop_sequence", .string(text))
        case .stop(nil): ("end_turn", .null)
        }
    }

    private static func message(
        _ id: String, _ model: String, content: [JSONValue], stop: JSONValue, sequence: JSONValue, _ usage: TokenUsage
    ) -> JSONValue {
        [
            "id": .string(id), "type": "message", "role": "assistant", "model": .string(model), "content": .array(content),
            "stop_reason": stop, "stop_sequence": sequence,
            "usage": [
                "input_tokens": .int(usage.prompt), "output_tokens": .int(usage.completion),
                "cache_read_input_tokens": .int(usage.cached), "cache_creation_input_tokens": 0,
            ],
        ]
    }
}

/// Writes the content blocks of a streamed message.
private struct MessageBlocks {
    private var index = -1
    private var isText = false
    private var isOpen = false

    mutating func write(_ delta: ChatDelta, to stream: inout StreamWriter) {
        switch delta {
        case .content(let text):
            if !isOpen || !isText { open(["type": "text", "text": ""], isText: true, &stream) }
            write(["type": "text_delta", "text": .string(text)], &stream)
        case .call(_, let id, let name):
            let block: JSONValue = ["type": "tool_use", "id": .string(id), "name": .string(name), "input": .object([:])]
            open(block, isText: false, &stream)
        case .arguments(_, let text): write(["type": "input_json_delta", "partial_json": .string(text)], &stream)
        }
    }

    mutating func close(_ stream: inout StreamWriter) {
        guard isOpen else { return }
        isOpen = false
        stream.event("content_block_stop", "{\"type\":\"content_block_stop\",\"index\":\(index)}")
    }

    private mutating func open(_ block: JSONValue, isText: Bool, _ stream: inout StreamWriter) {
        close(&stream)
        index += 1
        isOpen = true
        self.isText = isText
        let event: JSONValue = ["type": "content_block_start", "index": .int(index), "content_block": block]
        stream.event("content_block_start", event.encoded())
    }

    private func write(_ delta: JSONValue, _ stream: inout StreamWriter) {
        let event: JSONValue = ["type": "content_block_delta", "index": .int(index), "delta": delta]
        stream.event("content_block_delta", event.encoded())
    }
}

/// Reads a body of /v1/messages as a chat.
enum MessagesRequest {
    /// - Throws: `JSONError`, ``APIError``: each names the field.
    static func chat(_ body: JSONField, vocabulary: Int, countsOnly: Bool) throws -> ChatRequest {
        let field = try body.required("messages")
        var messages: [ChatMessage] = []
        if let system = body.child("system") {
            messages.append(ChatMessage(role: "system", content: try MessageContent.text(system)))
        }
        for message in try field.elements() { messages += try self.messages(message) }
        guard !messages.isEmpty else { throw field.unexpected("at least one message") }
        var request = ChatRequest(model: try body.child("model")?.string(), messages: messages)
        for tool in try body.child("tools")?.elements() ?? [] {
            let schema = try tool.required("input_schema").value
            var definition = ToolDefinition(
                name: try tool.text("name"), description: try tool.child("description")?.string(), parameters: schema)
            definition.isStrict = try tool.flag("strict", default: false)
            request.tools.append(definition)
        }
        try readChoice(body, &request)
        var sampling = SamplingFields()
        sampling.temperature = try body.number("temperature", in: 0...100)
        sampling.topP = try body.number("top_p", in: 0...1)
        sampling.topK = try body.child("top_k")?.integer(in: -1...Int(Int32.max))
        sampling.stop = try SamplingFields.texts(body.child("stop_sequences"))
        sampling.client = try body.child("metadata")?.child("user_id")?.string()
        if !countsOnly { sampling.maxTokens = try body.required("max_tokens").integer(in: 1...Int(Int32.max)) }
        request.sampling = sampling
        request.stream.isOn = try body.flag("stream", default: false)
        let format = body.child("output_config")?.child("format") ?? body.child("output_format")
        request.form = try format.flatMap { try OutputForm.responseFormat($0) }
        return request
    }

    private static func readChoice(_ body: JSONField, _ request: inout ChatRequest) throws {
        guard let choice = body.child("tool_choice") else { return }
        let type = try choice.text("type")
        switch type {
        case "auto": request.toolChoice = .auto
        case "any":
            guard !request.tools.isEmpty else { throw choice.unexpected("tools beside it") }
            request.toolChoice = .required
        case "none": request.toolChoice = .none
        case "tool":
            let name = try choice.text("name")
            guard request.tools.contains(where: { $0.name == name }) else {
                throw try choice.required("name").unexpected("the name of one of the tools")
            }
            request.toolChoice = .named(name)
        default: throw try choice.required("type").unexpected("auto, any, tool or none")
        }
        if try choice.flag("disable_parallel_tool_use", default: false) { request.allowsParallelCalls = false }
    }

    /// One message may hold the results of several calls beside text.
    private static func messages(_ field: JSONField) throws -> [ChatMessage] {
        let role = try field.text("role")
        guard role == "user" || role == "assistant" else { throw try field.required("role").unexpected("user or assistant") }
        let content = try field.required("content")
        if let text = content.value.string { return [ChatMessage(role: role, content: text)] }
        var results: [ChatMessage] = []
        var texts: [String] = []
        var calls: [JinjaValue] = []
        for block in try content.elements() {
            let type = try block.text("type")
            switch type {
            case "text": texts.append(try block.text("text"))
            case "thinking", "redacted_thinking": continue
            case "tool_use":
                let function = JinjaObject([
                    ("name", .string(try block.text("name"))),
                    ("arguments", JinjaValue(block.child("input")?.value ?? .object([:]))),
                ])
                calls.append(
                    .object(
                        JinjaObject([
                            ("id", .string(try block.text("id"))), ("type", .string("function")), ("function", .object(function)),
                        ])))
            case "tool_result":
                var result = ChatMessage(role: "tool", content: try MessageContent.text(block.child("content")))
                result.fields["tool_call_id"] = .string(try block.text("tool_use_id"))
                results.append(result)
            default:
                throw APIError.invalid(
                    "field '\(block.path).type': this server reads text only, found '\(type.prefix(40))'",
                    param: "\(block.path).type")
            }
        }
        // A message of nothing but results is no turn of its own.
        guard !texts.isEmpty || !calls.isEmpty || results.isEmpty else { return results }
        var message = ChatMessage(role: role, content: texts.joined(separator: "\n"))
        if !calls.isEmpty { message.fields["tool_calls"] = .list(calls) }
        return results + [message]
    }
}
