import Foundation
import NIOCore
import NIOPosix
import Nibble
import NibbleCore
import NibbleServer
import NibbleTestSupport
import Testing

/// The server over an engine: what clients read is what `generate()` gives.
@Suite struct EngineServerTests {
    private static let prompts = ["Once upon a time", "The dog", "Lily went to the park with her mom."]

    private static func body(_ prompt: String, _ more: JSONObject = [:]) -> JSONValue {
        var body: JSONObject = ["model": "stories", "prompt": .string(prompt), "max_tokens": 40, "temperature": 0]
        for (key, value) in more.members { body[key] = value }
        return .object(body)
    }

    @Test("greedy completions, whole and streamed, are generate's", arguments: prompts)
    func greedy(prompt: String) async throws {
        let expected = try await RealModel.stories.generated(prompt, GenerationConfig(maxNewTokens: 40, doSample: false))[0]
        try await TestServer.with(RealModel.stories) { server, _ in
            let json = try await server.json("/v1/completions", Self.body(prompt))
            #expect(json["choices"]?[0]?["text"]?.string == expected.text)
            #expect(json["usage"]?["completion_tokens"]?.int == expected.tokens.count)
            let answer = try await server.send("/v1/completions", Self.body(prompt, ["stream": true]).encoded())
            let chunks = try answer.chunks()
            #expect(chunks.compactMap { $0["choices"]?[0]?["text"]?.string }.joined() == expected.text)
            #expect(chunks.last?["choices"]?[0]?["finish_reason"] == json["choices"]?[0]?["finish_reason"])
            #expect(answer.frames.last == "[DONE]")
        }
    }

    @Test("a seed gives generate's text, for every choice")
    func seeds() async throws {
        let prompt = Self.prompts[0]
        var config = GenerationConfig(
            maxNewTokens: 30, doSample: true, temperature: 0.9, topP: 0.95, numReturnSequences: 3, seed: 17)
        config.topK = 0
        let expected = try await RealModel.stories.generated(prompt, config).map(\.text)
        #expect(Set(expected).count == 3)
        let sampling: JSONObject = ["max_tokens": 30, "temperature": 0.9, "top_p": 0.95, "n": 3, "seed": 17]
        try await TestServer.with(RealModel.stories) { server, _ in
            let json = try await server.json("/v1/completions", Self.body(prompt, sampling))
            #expect(json["choices"]?.array?.compactMap { $0["text"]?.string } == expected)
        }
    }

    @Test("requests side by side get the texts that they get alone")
    func sideBySide() async throws {
        let config = GenerationConfig(maxNewTokens: 40, doSample: false)
        var expected: [String] = []
        for prompt in Self.prompts { expected.append(try await RealModel.stories.generated(prompt, config)[0].text) }
        let texts = expected
        try await TestServer.with(RealModel.stories) { server, _ in
            try await withThrowingTaskGroup { group in
                for index in 0..<9 {
                    group.addTask {
                        let json = try await server.json("/v1/completions", Self.body(Self.prompts[index % 3]))
                        return (index % 3, json["choices"]?[0]?["text"]?.string)
                    }
                }
                for try await (index, text) in group { #expect(text == texts[index]) }
            }
        }
    }

    @Test("a stop string ends the text before it and frees the slot", arguments: [false, true])
    func stop(streams: Bool) async throws {
        let whole = try await RealModel.stories.generated(
            Self.prompts[0], GenerationConfig(maxNewTokens: 40, doSample: false))[0].text
        let stop = String(whole.dropFirst(20).prefix(5))
        let expected = try #require(whole.range(of: stop).map { String(whole[..<$0.lowerBound]) })
        try await TestServer.with(RealModel.stories) { server, service in
            let fields: JSONObject = ["stop": .string(stop), "stream": .bool(streams), "max_tokens": 400]
            let answer = try await server.send("/v1/completions", Self.body(Self.prompts[0], fields).encoded())
            let chunks = streams ? try answer.chunks() : [try answer.json()]
            #expect(chunks.compactMap { $0["choices"]?[0]?["text"]?.string }.joined() == expected)
            #expect(chunks.last?["choices"]?[0]?["finish_reason"] == "stop")
            try await Self.idle(service)
        }
    }

    /// Waits until no sequence holds anything.
    static func idle(_ service: EngineService) async throws {
        try await wait { service.counts().running == 0 && service.counts().blocksInUse == 0 }
    }

    @Test("log probabilities are the log softmax of the model's logits, whatever the sampling")
    func logProbabilities() async throws {
        let real = try RealModel.stories
        let ids = try real.tokenizer(Self.prompts[0]).inputIDs[0]
        let logits = try real.model.forward(inputIDs: [ids]).logits
        let row = withExtendedLifetime(logits) {
            logits.hostElements(Float.self).suffix(real.model.vocabularySize).map(Double.init)
        }
        let largest = try #require(row.max())
        let sum = largest + log(row.reduce(0) { $0 + exp($1 - largest) })
        let best = try #require(row.firstIndex(of: largest))
        try await TestServer.with(real) { server, _ in
            let fields: JSONObject = ["logprobs": 3, "temperature": 0.3, "top_k": 1, "max_tokens": 1, "frequency_penalty": 1]
            let scores = try await server.json("/v1/completions", Self.body(Self.prompts[0], fields))["choices"]?[0]?["logprobs"]
            let chosen = try #require(scores?["token_logprobs"]?[0]?.double)
            #expect(abs(chosen - (largest - sum)) < 1e-3)
            #expect(scores?["tokens"]?[0]?.string == String(decoding: real.tokenizer.tokenBytes(Int32(best)), as: UTF8.self))
            #expect(scores?["top_logprobs"]?[0]?.object?.members.count == 3)
        }
    }

    @Test("a prompt that does not fit is refused with both numbers")
    func tooLong() async throws {
        try await TestServer.with(RealModel.stories, EngineConfiguration(maxBatch: 1, context: 64)) { server, _ in
            let prompt = String(repeating: "word ", count: 100)
            let count = try await server.json("/tokenize", ["prompt": .string(prompt)])["count"]?.int ?? 0
            let answer = try await server.send("/v1/completions", Self.body(prompt).encoded())
            #expect(answer.status == 400)
            let error = try #require(try answer.json()["error"])
            #expect(error["code"] == "context_length_exceeded")
            let message = try #require(error["message"]?.string)
            #expect(message.contains("\(count) tokens") && message.contains("64"))
        }
    }

    @Test("a client that goes frees its slot long before its answer would have ended", arguments: [false, true])
    func disconnect(streams: Bool) async throws {
        let limit = 8000
        try await TestServer.with(RealModel.stories, EngineConfiguration(maxBatch: 2, context: limit + 100)) {
            server, service in
            let fields: JSONObject = ["max_tokens": .int(limit), "ignore_eos": true, "stream": .bool(streams)]
            let body = Self.body("The dog", fields).encoded()
            let head =
                "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                + "Content-Length: \(body.utf8.count)\r\n\r\n"
            let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connect(host: "127.0.0.1", port: server.port).get()
            try await channel.writeAndFlush(ByteBuffer(string: head + body))
            try await wait { service.counts().steps >= 5 }
            #expect(service.counts().running == 1)
            try await channel.close()
            try await Self.idle(service)
            #expect(service.counts().steps < limit / 2)
        }
    }

    @Test("requests for which no slot is free wait, and a gone client's request is never run")
    func disconnectInTheQueue() async throws {
        try await TestServer.with(RealModel.stories, EngineConfiguration(maxBatch: 1, context: 60_000)) { server, service in
            let long = Self.body("The dog", ["max_tokens": 50_000, "ignore_eos": true]).encoded()
            let first = Task { try await server.send("/v1/completions", long) }
            try await wait { service.counts().running > 0 }
            let second = Task { try await server.send("/v1/completions", long) }
            try await wait { service.counts().waiting > 0 }
            second.cancel()
            try await wait { service.counts().waiting == 0 }
            #expect(service.counts().running == 1)
            first.cancel()
            try await Self.idle(service)
        }
    }

    @Test("chat, messages and responses answer with one text")
    func chats() async throws {
        try await TestServer.with(RealModel.stories) { server, _ in
            let messages: JSONValue = [["role": "user", "content": "Tell me of a dog."]]
            let chat = try await server.json(
                "/v1/chat/completions", ["messages": messages, "max_tokens": 12, "temperature": 0])
            let text = try #require(chat["choices"]?[0]?["message"]?["content"]?.string)
            #expect(!text.isEmpty)
            let message = try await server.json("/v1/messages", ["messages": messages, "max_tokens": 12, "temperature": 0])
            #expect(message["content"]?[0]?["text"]?.string == text)
            let response = try await server.json(
                "/v1/responses", ["input": messages, "max_output_tokens": 12, "temperature": 0])
            #expect(response["output"]?[0]?["content"]?[0]?["text"]?.string == text)
        }
    }
}

/// Encoder-decoders: the prompt is the encoder's input.
@Suite struct EncoderDecoderServerTests {
    private static let sentences = [
        "fix spelling: I relly like the hous.", "fix spelling: Teh dog runs.", "fix spelling: She wnt home yesterdy.",
    ]

    private func expected(_ sentence: String) async throws -> String {
        try await RealModel.spelling.generated(sentence, GenerationConfig(maxNewTokens: 40, doSample: false))[0].text
    }

    @Test("completions are generate's, whole, streamed and side by side")
    func completions() async throws {
        var texts: [String] = []
        for sentence in Self.sentences { texts.append(try await expected(sentence)) }
        let wanted = texts
        try await TestServer.with(RealModel.spelling) { server, _ in
            let body: JSONValue = [
                "prompt": .array(Self.sentences.map { .string($0) }), "max_tokens": 40, "temperature": 0,
            ]
            let json = try await server.json("/v1/completions", body)
            #expect(json["choices"]?.array?.compactMap { $0["text"]?.string } == wanted)
            let answer = try await server.send(
                "/v1/completions",
                #"{"prompt":"\#(Self.sentences[0])","max_tokens":40,"temperature":0,"stream":true}"#)
            #expect(try answer.chunks().compactMap { $0["choices"]?[0]?["text"]?.string }.joined() == wanted[0])
        }
    }

    @Test("a chat without a template is the system message and the last user message")
    func chat() async throws {
        let wanted = try await expected(Self.sentences[0])
        try await TestServer.with(RealModel.spelling, EngineConfiguration(maxBatch: 2, context: 256), Self.plain) {
            server, _ in
            let messages: JSONValue = [
                ["role": "system", "content": "fix spelling: "], ["role": "user", "content": "Teh dog runs."],
                ["role": "assistant", "content": "The dog runs."], ["role": "user", "content": "I relly like the hous."],
            ]
            let json = try await server.json(
                "/v1/chat/completions", ["messages": messages, "max_tokens": 40, "temperature": 0])
            #expect(json["choices"]?[0]?["message"]?["content"]?.string == wanted)
        }
    }

    private static let plain = TestServer.configured { $0.chatTemplate = nil }

    @Test("an input beyond the encoder's limit is refused with both numbers")
    func tooLong() async throws {
        try await TestServer.with(RealModel.spelling, EngineConfiguration(maxBatch: 1, context: 32)) { server, _ in
            let prompt = String(repeating: "word ", count: 100)
            let count = try await server.json("/tokenize", ["prompt": .string(prompt)])["count"]?.int ?? 0
            let answer = try await server.send("/v1/completions", #"{"prompt":"\#(prompt)"}"#)
            #expect(answer.status == 400)
            let error = try #require(try answer.json()["error"])
            #expect(error["code"] == "context_length_exceeded")
            let message = try #require(error["message"]?.string)
            #expect(message.contains("\(count) tokens") && message.contains("32"))
        }
    }
}
