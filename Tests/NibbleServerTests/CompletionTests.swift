import NibbleCore
import NibbleServer
import NibbleTestSupport
import Testing

@Suite struct CompletionTests {
    static let text = "Once upon a time"

    @Test(arguments: [#""A""#, #"["A","B"]"#, "[5,6]", "[[5,6],[7]]"]) func prompts(prompt: String) async throws {
        try await TestServer.with(TestServer.service(Self.text)) { server in
            let json = try await server.send("/v1/completions", #"{"prompt":\#(prompt),"n":2}"#).json()
            let choices = try #require(json["choices"]?.array)
            let count = prompt.contains("],") || prompt.contains("\",") ? 4 : 2
            #expect(choices.map { $0["index"]?.int } == Array(0..<count))
            #expect(choices.allSatisfy { $0["text"]?.string == Self.text })
        }
    }

    @Test func limitsEchoAndProbabilities() async throws {
        try await TestServer.with(TestServer.service(String(repeating: "word ", count: 40))) { server in
            let json = try await server.send("/v1/completions", #"{"prompt":"A"}"#).json()
            #expect(json["usage"]?["completion_tokens"] == 16)
            #expect(json["choices"]?[0]?["finish_reason"] == "length")
            let echo = try await server.send("/v1/completions", #"{"prompt":"A","echo":true,"max_tokens":0}"#).json()
            #expect(echo["choices"]?[0]?["text"] == "A")
            let scored = try await server.send("/v1/completions", #"{"prompt":"A","logprobs":2,"max_tokens":3}"#).json()
            let scores = try #require(scored["choices"]?[0]?["logprobs"])
            #expect(scores["tokens"]?.array?.count == 3)
            #expect(scores["token_logprobs"]?.array?.count == 3)
            #expect(scores["text_offset"]?[0] == 0)
        }
    }

    @Test func streams() async throws {
        try await TestServer.with(TestServer.service(Self.text)) { server in
            let body = #"{"prompt":"A","stream":true,"stream_options":{"include_usage":true}}"#
            let answer = try await server.send("/v1/completions", body)
            var chunks = try answer.chunks()
            #expect(chunks.removeLast()["choices"] == [])
            #expect(chunks.compactMap { $0["choices"]?[0]?["text"]?.string }.joined() == Self.text)
            #expect(answer.frames.last == "[DONE]")
        }
    }

    @Test func tokens() async throws {
        try await TestServer.with(TestServer.service(Self.text)) { server in
            let json = try await server.send("/tokenize", #"{"prompt":"Once upon"}"#).json()
            let tokens = try #require(json["tokens"])
            #expect(json["count"]?.int == tokens.array?.count)
            let back = try await server.send("/detokenize", #"{"tokens":\#(tokens.encoded())}"#).json()
            #expect(back["prompt"] == "Once upon")
            #expect(back["content"] == back["prompt"])
        }
    }
}
