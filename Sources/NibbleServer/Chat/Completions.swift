import Hummingbird
import NibbleCore
import NibbleTokenizers

/// POST /v1/completions
struct Completions: Sendable {
    let core: ServerCore

    func respond(_ body: JSONField, _ context: ServerContext, client: String) async throws -> Response {
        let request = try CompletionRequest(body, vocabulary: core.vocabulary)
        try core.checkModel(request.model)
        let prompts = try request.prompts.map { prompt in
            switch prompt {
            case .text(let text): try core.encode(text, addSpecialTokens: request.addsSpecialTokens, param: "prompt")
            case .tokens(let ids): ids
            }
        }
        let echoes = zip(request.prompts, prompts).map { prompt, ids in
            if case .text(let text) = prompt { text } else { core.model.tokenizer.decode(ids, skipSpecialTokens: true) }
        }
        let identity = AnswerIdentity(prefix: "cmpl-", model: request.model ?? core.configuration.modelName)
        guard request.sampling.maxTokens != 0 else { return onlyEcho(request, echoes, prompts, identity) }
        let grammar: JobGrammar?
        if let form = request.form { grammar = try await core.grammar(form, request.sampling) } else { grammar = nil }
        let jobs = try prompts.map { ids in
            var job = try core.job(ids, request.sampling, model: request.model, client: client, param: "prompt")
            job.logProbabilities = request.logProbabilities
            job.grammar = grammar
            return job
        }
        let source = try await core.start(jobs, context)
        let run = CompletionRun(core: core, source: source, request: request, echoes: echoes, endTokens: jobs[0].endTokens)
        return request.stream.isOn ? run.streamed(identity) : try await run.plain(identity)
    }

    private func onlyEcho(
        _ request: CompletionRequest, _ echoes: [String], _ prompts: [[Int32]], _ identity: AnswerIdentity
    ) -> Response {
        let texts = echoes.flatMap { Array(repeating: $0, count: request.sampling.choices) }
        let choices = texts.enumerated().map { CompletionRun.choice($0, $1, .null, "length") }
        let usage = TokenUsage(prompt: prompts.reduce(0) { $0 + $1.count })
        guard request.stream.isOn else {
            return .json(identity.object("text_completion", [("choices", .array(choices)), ("usage", usage.json)]))
        }
        let frames = choices.map { "data: \(identity.object("text_completion", [("choices", [$0])]).encoded())\n\n" }
        return .text(frames.joined() + "data: [DONE]\n\n", type: "text/event-stream")
    }
}

/// The answers of one request to /v1/completions.
struct CompletionRun: Sendable {
    let core: ServerCore
    let source: AnswerSource
    let request: CompletionRequest
    let echoes: [String]
    let endTokens: [Int32]

    private func reader() -> AnswerReader {
        let text = AnswerText(
            core.model.tokenizer, endTokens: endTokens, stop: request.sampling.stop,
            skipsSpecialTokens: request.sampling.skipsSpecialTokens, includesStop: request.sampling.includesStop)
        return AnswerReader(source, text: text, core.metrics)
    }

    private func echo(_ choice: Int) -> String { request.echoes ? echoes[choice / source.choicesPerPrompt] : "" }

    static func choice(_ index: Int, _ text: String, _ scores: JSONValue, _ finish: String?) -> JSONValue {
        [
            "index": .int(index), "text": .string(text), "logprobs": scores,
            "finish_reason": finish.map(JSONValue.string) ?? .null,
        ]
    }

    func plain(_ identity: AnswerIdentity) async throws -> Response {
        defer { source.close() }
        var reader = reader()
        var texts = (0..<source.choices).map(echo)
        var tokens: [[AnswerToken]] = Array(repeating: [], count: source.choices)
        var ends: [AnswerEnd?] = Array(repeating: nil, count: source.choices)
        while !reader.isOver {
            for event in try await reader.next() {
                switch event {
                case .piece(let index, let piece):
                    texts[index] += piece.text
                    tokens[index] += piece.tokens
                case .finished(let index, let end): ends[index] = end
                }
            }
        }
        let choices = texts.indices.map { Self.choice($0, texts[$0], scores(tokens[$0]), reason(ends[$0])) }
        return .json(identity.object("text_completion", [("choices", .array(choices)), ("usage", reader.usage.json)]))
    }

    func streamed(_ identity: AnswerIdentity) -> Response {
        let includesUsage = request.stream.includesUsage
        // What all chunks have in common is written once.
        let opening = identity.object("text_completion", []).encoded().dropLast() + ",\"choices\":["
        let closing = includesUsage ? "],\"usage\":null}" : "]}"
        @Sendable func chunk(_ choice: JSONValue) -> String { opening + choice.encoded() + closing }
        let textOpenings = (0..<source.choices).map { "\(opening){\"index\":\($0),\"text\":" }
        let textClosing = ",\"logprobs\":null,\"finish_reason\":null}" + closing
        return source.response(.openAI, core.configuration) { stream in
            var reader = reader()
            if request.echoes {
                for index in 0..<source.choices { stream.data(chunk(Self.choice(index, echo(index), .null, nil))) }
                try await stream.flush()
            }
            while !reader.isOver {
                let events = try await reader.next()
                if events.isEmpty { stream.text(StreamForm.openAI.ping) }
                for event in events {
                    switch event {
                    case .piece(let index, let piece):
                        if request.logProbabilities != nil {
                            stream.data(chunk(Self.choice(index, piece.text, scores(piece.tokens), nil)))
                        } else if !piece.text.isEmpty {
                            stream.data(textOpenings[index], text: piece.text, textClosing)
                        }
                    case .finished(let index, let end): stream.data(chunk(Self.choice(index, "", .null, reason(end))))
                    }
                }
                try await stream.flush()
            }
            if includesUsage {
                stream.data(identity.object("text_completion", [("choices", []), ("usage", reader.usage.json)]).encoded())
            }
            stream.text("data: [DONE]\n\n")
        }
    }

    private func reason(_ end: AnswerEnd?) -> String { end == .length ? "length" : "stop" }

    /// Log probabilities in the older form: parallel lists.
    private func scores(_ tokens: [AnswerToken]) -> JSONValue {
        guard let count = request.logProbabilities else { return .null }
        func text(_ id: Int32) -> String { String(decoding: core.model.tokenizer.tokenBytes(id), as: UTF8.self) }
        func value(_ number: Float?) -> JSONValue { .double(ChatLogProbabilities.finite(number)) }
        let tops = tokens.map { token -> JSONValue in
            guard count > 0 else { return .null }
            let top = token.scores?.top ?? []
            return .object(JSONObject(top.map { (text($0.token), value($0.logProbability)) }))
        }
        return [
            "tokens": .array(tokens.map { .string(text($0.id)) }),
            "token_logprobs": .array(tokens.map { value($0.scores?.chosen) }),
            "top_logprobs": count > 0 ? .array(tops) : .null,
            "text_offset": .array(tokens.map { .int($0.offset) }),
        ]
    }
}
