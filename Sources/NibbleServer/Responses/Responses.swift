import Hummingbird
import NibbleCore
import NibbleTemplates
import NibbleTokenizers

/// POST /v1/responses, without memory: every request brings its whole conversation.
struct ResponsesEndpoint: Sendable {
    let core: ServerCore

    private static let form = StreamForm(contentType: "text/event-stream", ping: ": ping\n\n") { error in
        let event: JSONValue = [
            "type": "error", "code": error.code.map(JSONValue.string) ?? .null, "message": .string(error.message), "param": .null,
        ]
        return "event: error\ndata: \(event.encoded())\n\n"
    }

    func respond(_ body: JSONField, _ context: ServerContext, client: String) async throws -> Response {
        let request = try ResponsesRequest.chat(body, vocabulary: core.vocabulary)
        try core.checkModel(request.model)
        let run = try await ChatRun.start(request, core, context, client: client)
        let record = ResponseRecord(model: request.model ?? core.configuration.modelName)
        guard request.stream.isOn else {
            defer { run.source.close() }
            var writer = ResponseWriter(record)
            var stream: StreamWriter?
            let usage = try await run.read {
                writer.take($0, &stream)
            } flush: { _ in
            }
            return .json(record.json(writer.status, writer.output, usage, writer.incompleteReason))
        }
        return run.source.response(Self.form, core.configuration) { stream in
            var writer = ResponseWriter(record)
            var output: StreamWriter? = stream
            for name in ["created", "in_progress"] {
                writer.send("response.\(name)", [("response", record.json("in_progress", [], nil, nil))], &output)
            }
            let usage = try await run.read { event in
                if case .silence = event { output?.text(Self.form.ping) }
                writer.take(event, &output)
            } flush: { _ in
                try await output?.flush()
            }
            let whole = record.json(writer.status, writer.output, usage, writer.incompleteReason)
            writer.send("response.\(writer.status)", [("response", whole)], &output)
            if let output { stream = output }
        }
    }
}

/// Reads a body of /v1/responses as a chat.
enum ResponsesRequest {
    static func chat(_ body: JSONField, vocabulary: Int) throws -> ChatRequest {
        for key in ["previous_response_id", "conversation"] where body.child(key) != nil {
            throw APIError.invalid(
                "field '\(key)': this server keeps no responses: send the whole conversation as input", param: key,
                code: "unsupported_value")
        }
        var messages: [ChatMessage] = []
        if let text = try body.child("instructions")?.string() { messages.append(ChatMessage(role: "system", content: text)) }
        let input = try body.required("input")
        if let text = input.value.string {
            messages.append(ChatMessage(role: "user", content: text))
        } else {
            for item in try input.elements() { if let message = try message(item) { messages.append(message) } }
        }
        guard !messages.isEmpty else { throw input.unexpected("at least one message") }
        var request = ChatRequest(model: try body.child("model")?.string(), messages: messages)
        for tool in try body.child("tools")?.elements() ?? [] {
            guard try tool.text("type") == "function" else { throw try tool.required("type").unexpected("'function'") }
            let parameters = tool.child("parameters")?.value ?? .object(["type": "object"])
            var definition = ToolDefinition(
                name: try tool.text("name"), description: try tool.child("description")?.string(), parameters: parameters)
            definition.isStrict = try tool.flag("strict", default: false)
            request.tools.append(definition)
        }
        if let choice = body.child("tool_choice"), choice.value.object != nil {
            let name = try choice.text("name")
            guard request.tools.contains(where: { $0.name == name }) else {
                throw try choice.required("name").unexpected("the name of one of the tools")
            }
            request.toolChoice = .named(name)
        } else {
            request.toolChoice = try ToolChoice(body, tools: request.tools)
        }
        request.allowsParallelCalls = try body.flag("parallel_tool_calls", default: true)
        request.sampling = try SamplingFields(body, vocabulary: vocabulary)
        request.sampling.choices = 1
        request.sampling.maxTokens = try body.child("max_output_tokens")?.integer(in: 1...Int(Int32.max))
        request.stream.isOn = try body.flag("stream", default: false)
        request.form = try body.child("text")?.child("format").flatMap { try OutputForm.responseFormat($0) }
        return request
    }

    private static func message(_ item: JSONField) throws -> ChatMessage? {
        switch try item.child("type")?.string() ?? "message" {
        case "message": return try ChatRequest.message(item)
        case "reasoning": return nil
        case "function_call":
            let arguments = try item.text("arguments")
            let function = JinjaObject([
                ("name", .string(try item.text("name"))),
                ("arguments", (try? JSONValue.parse(arguments)).map { JinjaValue($0) } ?? .string(arguments)),
            ])
            let call = JinjaObject([
                ("id", .string(try item.text("call_id"))), ("type", .string("function")), ("function", .object(function)),
            ])
            return ChatMessage(role: "assistant", content: "", fields: JinjaObject([("tool_calls", .list([.object(call)]))]))
        case "function_call_output":
            return ChatMessage(
                role: "tool", content: try MessageContent.text(item.child("output")),
                fields: JinjaObject([("tool_call_id", .string(try item.text("call_id")))]))
        default: throw try item.required("type").unexpected("message, function_call or function_call_output")
        }
    }
}

/// What all forms of one response have in common.
struct ResponseRecord: Sendable {
    let id = "resp_" + Identifiers.random(24)
    let created = Int(Clock.seconds)
    let model: String

    init(model: String) { self.model = model }

    func json(_ status: String, _ output: [JSONValue], _ usage: TokenUsage?, _ incomplete: String?) -> JSONValue {
        [
            "id": .string(id), "object": "response", "created_at": .int(created), "model": .string(model),
            "status": .string(status), "output": .array(output), "error": .null,
            "incomplete_details": incomplete.map { ["reason": .string($0)] } ?? .null, "instructions": .null,
            "metadata": .object([:]), "parallel_tool_calls": true, "temperature": .null, "tool_choice": "auto", "tools": [],
            "top_p": .null, "store": false,
            "usage": usage.map { usage in
                [
                    "input_tokens": .int(usage.prompt), "output_tokens": .int(usage.completion),
                    "total_tokens": .int(usage.prompt + usage.completion),
                    "input_tokens_details": ["cached_tokens": .int(usage.cached)],
                    "output_tokens_details": ["reasoning_tokens": 0],
                ]
            } ?? .null,
        ]
    }
}

/// Makes output items of the events of a chat, and the frames that tell of them.
struct ResponseWriter {
    private(set) var output: [JSONValue] = []
    private(set) var status = "completed"
    private(set) var incompleteReason: String?
    private var sequence = 0
    private var item: Item?

    private struct Item {
        var id: String
        var callID: String?
        var name = ""
        var text = ""

        func json(_ status: String) -> JSONValue {
            guard let callID else {
                let content: [JSONValue] =
                    status == "in_progress" ? [] : [["type": "output_text", "text": .string(text), "annotations": []]]
                return [
                    "id": .string(id), "type": "message", "role": "assistant", "status": .string(status),
                    "content": .array(content),
                ]
            }
            return [
                "id": .string(id), "type": "function_call", "call_id": .string(callID), "name": .string(name),
                "arguments": .string(text), "status": .string(status),
            ]
        }
    }

    init(_ record: ResponseRecord) {}

    mutating func send(_ type: String, _ more: [(String, JSONValue)], _ stream: inout StreamWriter?) {
        let event = JSONObject([("type", .string(type)), ("sequence_number", .int(sequence))] + more)
        sequence += 1
        stream?.event(type, JSONValue.object(event).encoded())
    }

    mutating func take(_ event: ChatRun.Event, _ stream: inout StreamWriter?) {
        switch event {
        case .silence, .tokens: break
        case .delta(_, .content(let text), _):
            if item == nil || item?.callID != nil { open(Item(id: "msg_" + Identifiers.random(24)), &stream) }
            item?.text += text
            send(
                "response.output_text.delta", place + [("content_index", 0), ("delta", .string(text)), ("logprobs", [])], &stream)
        case .delta(_, .call(_, let id, let name), _):
            open(Item(id: "fc_" + Identifiers.random(24), callID: id, name: name), &stream)
        case .delta(_, .arguments(_, let text), _):
            item?.text += text
            send("response.function_call_arguments.delta", place + [("delta", .string(text))], &stream)
        case .finished(_, _, let end):
            if end == .length {
                status = "incomplete"
                incompleteReason = "max_output_tokens"
            }
            close(&stream)
        }
    }

    private var place: [(String, JSONValue)] {
        [("item_id", .string(item?.id ?? "")), ("output_index", .int(output.count))]
    }

    private mutating func open(_ new: Item, _ stream: inout StreamWriter?) {
        close(&stream)
        item = new
        send("response.output_item.added", [("output_index", .int(output.count)), ("item", new.json("in_progress"))], &stream)
        guard new.callID == nil else { return }
        let part: JSONValue = ["type": "output_text", "text": "", "annotations": []]
        send("response.content_part.added", place + [("content_index", 0), ("part", part)], &stream)
    }

    private mutating func close(_ stream: inout StreamWriter?) {
        guard let item else { return }
        if item.callID == nil {
            let text = JSONValue.string(item.text)
            send("response.output_text.done", place + [("content_index", 0), ("text", text), ("logprobs", [])], &stream)
            let part: JSONValue = ["type": "output_text", "text": text, "annotations": []]
            send("response.content_part.done", place + [("content_index", 0), ("part", part)], &stream)
        } else {
            send(
                "response.function_call_arguments.done",
                place + [("name", .string(item.name)), ("arguments", .string(item.text))], &stream)
        }
        let whole = item.json(incompleteReason == nil ? "completed" : "incomplete")
        send("response.output_item.done", [("output_index", .int(output.count)), ("item", whole)], &stream)
        output.append(whole)
        self.item = nil
    }
}
