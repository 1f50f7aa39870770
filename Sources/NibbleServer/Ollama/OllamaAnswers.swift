import Foundation
import Hummingbird
import NibbleCore

/// POST /api/chat and /api/generate: Ollama's forms of an answer, streamed as one JSON object a line.
struct OllamaAnswers: Sendable {
    let core: ServerCore

    func respond(
        _ body: JSONField, _ form: OllamaRequest.Form, _ context: ServerContext, client: String
    ) async throws -> Response {
        let name = try OllamaRequest.model(body, served: core.modelNames)
        try core.checkModel(name)
        let writer = OllamaWriter(model: name, form: form)
        guard try !OllamaRequest.isEmpty(body, form) else { return .json(writer.loaded(isUnloading: Self.unloads(body))) }
        var request =
            switch form {
            case .chat: try OllamaRequest.chat(body, vocabulary: core.vocabulary)
            case .generate:
                try OllamaRequest.generate(body, vocabulary: core.vocabulary, hasTemplate: core.renderer.hasTemplate)
            }
        request.model = name
        let run = try await ChatRun.start(request, core, context, client: client)
        let probabilities = request.logProbabilities == nil ? nil : ChatLogProbabilities(tokenizer: core.model.tokenizer)
        guard request.stream.isOn else { return try await plain(run, writer, probabilities) }
        return run.source.response(Self.stream(writer), core.configuration) { stream in
            var output = stream
            var end = AnswerEnd.stop(nil)
            let usage = try await run.read { event in
                switch event {
                case .silence: output.line(writer.piece(""))
                case .delta(_, .content(let text), let tokens): output.line(writer.piece(text, probabilities?.entries(tokens)))
                case .tokens(_, let tokens):
                    if let probabilities { output.line(writer.piece("", probabilities.entries(tokens))) }
                // A call is told as a whole.
                case .delta: break
                case .finished(_, let choice, let reason):
                    if !choice.calls.isEmpty { output.line(writer.calls(choice.calls)) }
                    end = reason
                }
            } flush: { _ in
                try await output.flush()
            }
            output.line(writer.end(end, usage, run.source))
            stream = output
        }
    }

    private static func stream(_ writer: OllamaWriter) -> StreamForm {
        StreamForm(contentType: "application/x-ndjson", ping: writer.piece("").encoded() + "\n") { error in
            json(error).encoded() + "\n"
        }
    }

    static func json(_ error: APIError) -> JSONValue { ["error": .string(error.message)] }

    /// keep_alive of 0 asks to unload the model, which stays all the same.
    private static func unloads(_ body: JSONField) -> Bool {
        guard let value = body.child("keep_alive")?.value else { return false }
        return value.int == 0 || ["0", "0s", "0m"].contains(value.string)
    }

    private func plain(_ run: ChatRun, _ writer: OllamaWriter, _ probabilities: ChatLogProbabilities?) async throws -> Response {
        defer { run.source.close() }
        var answer: (choice: ChatChoice, end: AnswerEnd)?
        var scored: [AnswerToken] = []
        let usage = try await run.read { event in
            switch event {
            case .delta(_, _, let tokens), .tokens(_, let tokens): scored += tokens
            case .finished(_, let choice, let end): answer = (choice, end)
            case .silence: break
            }
        } flush: { _ in
        }
        guard let answer else { throw APIError.server("there is no answer") }
        return .json(
            writer.end(
                answer.end, usage, run.source, text: answer.choice.content, calls: answer.choice.calls,
                probabilities: probabilities?.entries(scored)))
    }
}

/// Writes answers in Ollama's form.
struct OllamaWriter: Sendable {
    let model: String
    let form: OllamaRequest.Form

    func piece(_ text: String, _ probabilities: JSONValue? = nil) -> JSONValue {
        object(text, calls: [], [("done", false)] + (probabilities.map { [("logprobs", $0)] } ?? []))
    }

    func calls(_ calls: [AnsweredCall]) -> JSONValue { object("", calls: calls, [("done", false)]) }

    /// The model is there before anybody asks for it.
    func loaded(isUnloading: Bool) -> JSONValue {
        object("", calls: [], [("done", true), ("done_reason", isUnloading ? "unload" : "load")])
    }

    func end(
        _ end: AnswerEnd, _ usage: TokenUsage, _ source: AnswerSource, text: String = "", calls: [AnsweredCall] = [],
        probabilities: JSONValue? = nil
    ) -> JSONValue {
        let times = source.choiceTimes[0]
        let first = times.firstToken ?? .now
        func nanoseconds(_ duration: Duration) -> JSONValue { .int(Int(duration / .nanoseconds(1))) }
        return object(
            text, calls: calls,
            [
                ("done", true), ("done_reason", end == .length ? "length" : "stop"),
                ("total_duration", nanoseconds(.now - source.started)), ("load_duration", 0),
                ("prompt_eval_count", .int(usage.prompt)),
                ("prompt_eval_duration", nanoseconds(first - (times.began ?? source.started))),
                ("eval_count", .int(usage.completion)), ("eval_duration", nanoseconds((times.lastToken ?? first) - first)),
            ] + (probabilities.map { [("logprobs", $0)] } ?? []))
    }

    private func object(_ text: String, calls: [AnsweredCall], _ more: [(String, JSONValue)]) -> JSONValue {
        let answer: (String, JSONValue)
        switch form {
        case .generate: answer = ("response", .string(text))
        case .chat:
            var message: JSONObject = ["role": "assistant", "content": .string(text)]
            if !calls.isEmpty { message["tool_calls"] = .array(calls.map(Self.json)) }
            answer = ("message", .object(message))
        }
        return .object(
            JSONObject([("model", .string(model)), ("created_at", .string(Clock.text(Date()))), answer] + more))
    }

    private static func json(_ call: AnsweredCall) -> JSONValue {
        let arguments = (try? JSONValue.parse(call.arguments)) ?? .object([:])
        return ["id": .string(call.id), "function": ["name": .string(call.name), "arguments": arguments]]
    }
}

extension StreamWriter {
    /// One JSON object on a line of its own.
    mutating func line(_ value: JSONValue) { text(value.encoded() + "\n") }
}

extension ChatLogProbabilities {
    /// The tokens without anything around them.
    func entries(_ tokens: [AnswerToken]) -> JSONValue { json(tokens)["content"] ?? [] }
}
