import Hummingbird
import NibbleCore

/// POST /v1/chat/completions
struct ChatCompletions: Sendable {
    let core: ServerCore

    func respond(_ body: JSONField, _ context: ServerContext, client: String) async throws -> Response {
        let request = try ChatRequest(body, vocabulary: core.vocabulary)
        try core.checkModel(request.model)
        let run = try await ChatRun.start(request, core, context, client: client)
        let identity = AnswerIdentity(prefix: "chatcmpl-", model: request.model ?? core.configuration.modelName)
        guard request.stream.isOn else {
            return try await plain(run, identity, wantsProbabilities: request.logProbabilities != nil)
        }
        let chunks = ChatChunks(
            identity, choices: run.source.choices, includesUsage: request.stream.includesUsage,
            wantsProbabilities: request.logProbabilities != nil,
            probabilities: ChatLogProbabilities(tokenizer: core.model.tokenizer))
        return run.source.response(.openAI, core.configuration) { stream in
            for index in 0..<run.source.choices { stream.data(chunks.opening(index)) }
            try await stream.flush()
            var output = stream
            let usage = try await run.read { event in
                switch event {
                case .silence: output.text(StreamForm.openAI.ping)
                case .delta(let index, let delta, let tokens): chunks.write(delta, tokens, index, to: &output)
                case .tokens(let index, let tokens):
                    if chunks.wantsProbabilities { chunks.write(.content(""), tokens, index, to: &output) }
                case .finished(let index, let choice, let end): output.data(chunks.end(index, choice.finishReason(end)))
                }
            } flush: { _ in
                try await output.flush()
            }
            if chunks.includesUsage { output.data(chunks.usage(usage)) }
            output.text("data: [DONE]\n\n")
            stream = output
        }
    }

    private func plain(_ run: ChatRun, _ identity: AnswerIdentity, wantsProbabilities: Bool) async throws -> Response {
        defer { run.source.close() }
        var tokens: [Int: [AnswerToken]] = [:]
        var answers: [Int: JSONValue] = [:]
        let probabilities = ChatLogProbabilities(tokenizer: core.model.tokenizer)
        let usage = try await run.read { event in
            switch event {
            case .silence: break
            case .delta(let index, _, let new), .tokens(let index, let new): tokens[index, default: []] += new
            case .finished(let index, let choice, let end):
                answers[index] = [
                    "index": .int(index), "message": .object(choice.message),
                    "logprobs": wantsProbabilities ? probabilities.json(tokens[index] ?? []) : .null,
                    "finish_reason": .string(choice.finishReason(end)),
                ]
            }
        } flush: { _ in
        }
        let choices = (0..<run.source.choices).compactMap { answers[$0] }
        return .json(identity.object("chat.completion", [("choices", .array(choices)), ("usage", usage.json)]))
    }
}

extension ChatChoice {
    /// The whole answer as a message.
    var message: JSONObject {
        var message: JSONObject = [
            "role": "assistant", "content": content.isEmpty && !calls.isEmpty ? .null : .string(content), "refusal": .null,
        ]
        if !calls.isEmpty {
            message["tool_calls"] = .array(
                calls.map { call in
                    [
                        "id": .string(call.id), "type": "function",
                        "function": ["name": .string(call.name), "arguments": .string(call.arguments)],
                    ]
                })
        }
        return message
    }
}

/// What all parts of an answer have in common.
struct AnswerIdentity: Sendable {
    let id: String
    let created: Int
    let model: String

    init(prefix: String, model: String) {
        id = prefix + Identifiers.random(24)
        created = Int(Clock.seconds)
        self.model = model
    }

    func object(_ kind: String, _ more: [(String, JSONValue)]) -> JSONValue {
        .object(
            JSONObject(
                [("id", .string(id)), ("object", .string(kind)), ("created", .int(created)), ("model", .string(model))] + more))
    }
}

/// Writes the chunks of a streamed chat. What all have in common is written once.
struct ChatChunks: Sendable {
    let includesUsage: Bool
    let wantsProbabilities: Bool
    private let probabilities: ChatLogProbabilities
    private let opening: String
    private let closing: String
    /// What stands before the content of each choice, and after it.
    private let contentOpenings: [String]
    private let contentClosing: String

    init(
        _ identity: AnswerIdentity, choices: Int, includesUsage: Bool, wantsProbabilities: Bool,
        probabilities: ChatLogProbabilities
    ) {
        self.includesUsage = includesUsage
        self.wantsProbabilities = wantsProbabilities
        self.probabilities = probabilities
        opening = identity.object("chat.completion.chunk", []).encoded().dropLast() + ",\"choices\":["
        closing = includesUsage ? "],\"usage\":null}" : "]}"
        contentOpenings = (0..<choices).map { [opening] in "\(opening){\"index\":\($0),\"delta\":{\"content\":" }
        contentClosing = "},\"logprobs\":null,\"finish_reason\":null}" + closing
    }

    private func chunk(_ index: Int, delta: String, tokens: [AnswerToken] = [], finish: String = "null") -> String {
        let scores = wantsProbabilities && !tokens.isEmpty ? probabilities.json(tokens).encoded() : "null"
        return "\(opening){\"index\":\(index),\"delta\":\(delta),\"logprobs\":\(scores),\"finish_reason\":\(finish)}\(closing)"
    }

    func opening(_ index: Int) -> String { chunk(index, delta: "{\"role\":\"assistant\",\"content\":\"\"}") }

    func write(_ delta: ChatDelta, _ tokens: [AnswerToken], _ index: Int, to stream: inout StreamWriter) {
        if case .content(let text) = delta, !wantsProbabilities {
            stream.data(contentOpenings[index], text: text, contentClosing)
        } else {
            stream.data(chunk(index, delta: Self.json(delta), tokens: tokens))
        }
    }

    private static func json(_ delta: ChatDelta) -> String {
        switch delta {
        case .content(let text): return "{\"content\":\(JSONValue.string(text).encoded())}"
        case .call(let index, let id, let name):
            let call: JSONValue = [
                "index": .int(index), "id": .string(id), "type": "function",
                "function": ["name": .string(name), "arguments": ""],
            ]
            return "{\"tool_calls\":[\(call.encoded())]}"
        case .arguments(let index, let text):
            let call: JSONValue = ["index": .int(index), "function": ["arguments": .string(text)]]
            return "{\"tool_calls\":[\(call.encoded())]}"
        }
    }

    func end(_ index: Int, _ reason: String) -> String { chunk(index, delta: "{}", finish: "\"\(reason)\"") }

    /// The only chunk without choices, and only for those who asked.
    func usage(_ usage: TokenUsage) -> String { "\(opening)],\"usage\":\(usage.json.encoded())}" }
}
