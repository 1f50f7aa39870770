import NibbleCore
import NibbleServer
import NibbleTestSupport
import Testing

/// Bodies as OpenAI's clients read them, over a socket.
@Suite struct ChatCompletionTests {
    static let text = "Once upon a time there was a little girl."

    @Test func plainAnswer() async throws {
        try await TestServer.with(TestServer.service(Self.text)) { server in
            let answer = try await server.chat()
            #expect(answer.status == 200)
            #expect(answer.headers["x-request-id"]?.hasPrefix("req_") == true)
            let json = try answer.json()
            #expect(json["object"] == "chat.completion")
            #expect(json["id"]?.string?.hasPrefix("chatcmpl-") == true)
            let choice = try #require(json["choices"]?[0])
            #expect(choice["message"] == ["role": "assistant", "content": .string(Self.text), "refusal": nil])
            #expect(choice["finish_reason"] == "stop")
            #expect(choice["logprobs"] == .null)
            let usage = try #require(json["usage"])
            #expect(usage["total_tokens"]?.int == (usage["prompt_tokens"]?.int ?? 0) + (usage["completion_tokens"]?.int ?? 0))
        }
    }

    @Test(arguments: [false, true]) func streamedAnswer(includesUsage: Bool) async throws {
        try await TestServer.with(TestServer.service(Self.text)) { server in
            let more = includesUsage ? #","stream":true,"stream_options":{"include_usage":true}"# : #","stream":true"#
            let answer = try await server.chat(more)
            #expect(answer.headers["content-type"] == "text/event-stream")
            #expect(answer.headers["cache-control"] == "no-cache")
            #expect(answer.headers["x-accel-buffering"] == "no")
            #expect(answer.frames.last == "[DONE]")
            var chunks = try answer.chunks()
            if includesUsage {
                let last = chunks.removeLast()
                #expect(last["choices"] == [])
                #expect(last["usage"]?["completion_tokens"]?.int ?? 0 > 0)
                #expect(chunks.allSatisfy { $0["usage"] == .null })
            } else {
                #expect(chunks.allSatisfy { $0["usage"] == nil })
            }
            #expect(chunks.first?["choices"]?[0]?["delta"] == ["role": "assistant", "content": ""])
            #expect(chunks.last?["choices"]?[0]?["delta"] == .object([:]))
            #expect(chunks.last?["choices"]?[0]?["finish_reason"] == "stop")
            #expect(Set(chunks.compactMap { $0["id"]?.string }).count == 1)
            let text = chunks.compactMap { $0["choices"]?[0]?["delta"]?["content"]?.string }.joined()
            #expect(text == Self.text)
        }
    }

    @Test(arguments: [#","stop":" little""#, #","stop":["zzz"," little"]"#], [false, true])
    func stopStringNeverLeaks(stop: String, streams: Bool) async throws {
        try await TestServer.with(TestServer.service(Self.text)) { server in
            let answer = try await server.chat(stop + (streams ? #","stream":true"# : ""))
            let text =
                streams
                ? try answer.chunks().compactMap { $0["choices"]?[0]?["delta"]?["content"]?.string }.joined()
                : try answer.json()["choices"]?[0]?["message"]?["content"]?.string
            #expect(text == "Once upon a time there was a")
        }
    }

    @Test func charactersAreNeverCut() async throws {
        let text = "안녕하세요 👋🏽 세계"
        try await TestServer.with(TestServer.service(text)) { server in
            let chunks = try await server.chat(#","stream":true"#).chunks()
            let pieces = chunks.compactMap { $0["choices"]?[0]?["delta"]?["content"]?.string }
            #expect(!pieces.contains { $0.contains("\u{FFFD}") })
            let whole = TestServer.tokenizer.decode(TestServer.tokenizer.encode(text, addSpecialTokens: false))
            #expect(pieces.joined() == whole)
        }
    }

    @Test func choicesLengthAndProbabilities() async throws {
        try await TestServer.with(TestServer.service(Self.text)) { server in
            let json = try await server.chat(#","n":2,"max_tokens":9,"max_completion_tokens":3,"logprobs":true,"top_logprobs":2"#)
                .json()
            let choices = try #require(json["choices"]?.array)
            #expect(choices.compactMap { $0["index"]?.int } == [0, 1])
            for choice in choices {
                #expect(choice["finish_reason"] == "length")
                let content = try #require(choice["logprobs"]?["content"]?.array)
                #expect(content.count == 3)
                #expect(content[0]["top_logprobs"]?.array?.count == 2)
                #expect(content[0]["bytes"]?.array?.isEmpty == false)
            }
            #expect(json["usage"]?["completion_tokens"] == 6)
        }
    }

    @Test func settingsReachTheEngine() async throws {
        let service = TestServer.service(Self.text)
        try await TestServer.with(service) { server in
            let more = #"""
                ,"temperature":0.25,"top_p":0.5,"top_k":7,"min_p":0.125,"seed":-1,"presence_penalty":1,"frequency_penalty":-1,
                "repetition_penalty":1.5,"logit_bias":{"5":-100,"6":2.5},"stop_token_ids":[9],"min_tokens":4,"unknown":{"a":1},
                "seed":null,"store":true,"user":"me"
                """#
            #expect(try await server.chat(more).status == 200)
            _ = try await server.chat()
            let job = try #require(server.service.jobs.first)
            #expect(job.selection.temperature == 0.25)
            #expect(job.selection.topP == 0.5)
            #expect(job.selection.topK == 7)
            #expect(job.selection.minP == 0.125)
            #expect(job.selection.presencePenalty == 1)
            #expect(job.selection.frequencyPenalty == -1)
            #expect(job.selection.repetitionPenalty == 1.5)
            #expect(job.selection.bias.map(\.value) == [-.infinity, 2.5])
            #expect(job.selection.minimumTokens == 4)
            #expect(job.endTokens.contains(9))
            #expect(job.client == "me")
            // OpenAI's defaults, not transformers'.
            let plain = try #require(server.service.jobs.last)
            #expect(plain.selection.temperature == 1)
            #expect(plain.selection.topK == 0)
            #expect(plain.maxNewTokens == 256 - plain.prompt.count)
        }
    }

    @Test func developerPartsAndNulls() async throws {
        try await TestServer.with(TestServer.service(Self.text)) { server in
            let body = #"""
                {"messages":[{"role":"developer","content":"Be short."},
                {"role":"user","content":[{"type":"text","text":"A"},{"type":"text","text":"B"}]},
                {"role":"assistant","content":null}]}
                """#
            let answer = try await server.send("/apply-template", body)
            #expect(try answer.json()["prompt"] == "<system>Be short.<user>A\nB<assistant><assistant>")
        }
    }

    @Test(arguments: [
        (#"{"messages":[]}"#, "messages"), ("{}", "messages"), (#"{"messages":[{"content":"x"}]}"#, "messages[0].role"),
        (#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#, "messages[0].content[0].type"),
        (#"{"messages":[{"role":"user","content":"x"}],"temperature":"hot"}"#, "temperature"),
        (#"{"messages":[{"role":"user","content":"x"}],"n":0}"#, "n"),
        (#"{"messages":[{"role":"user","content":"x"}],"logit_bias":{"-1":1}}"#, "logit_bias"),
        (#"{"messages":[{"role":"user","content":"x"}],"top_logprobs":21,"logprobs":true}"#, "top_logprobs"),
        (#"{"messages":[{"role":"user","content":"x"}],"response_format":{"type":"yaml"}}"#, "response_format.type"),
    ])
    func errorsNameTheField(body: String, param: String) async throws {
        try await TestServer.with(TestServer.service(Self.text)) { server in
            let answer = try await server.send("/v1/chat/completions", body)
            #expect(answer.status == 400)
            let error = try #require(try answer.json()["error"])
            #expect(error["param"]?.string == param)
            #expect(error["type"] == "invalid_request_error")
        }
    }

    @Test func longPromptSaysBothNumbers() async throws {
        try await TestServer.with(TestServer.service(Self.text, context: 16)) { server in
            let words = String(repeating: "word ", count: 100)
            let answer = try await server.send(
                "/v1/chat/completions", #"{"messages":[{"role":"user","content":"\#(words)"}]}"#)
            #expect(answer.status == 400)
            let error = try #require(try answer.json()["error"])
            #expect(error["code"] == "context_length_exceeded")
            #expect(error["message"]?.string?.contains("16") == true)
        }
    }

    @Test func failureOfAStreamIsAnEvent() async throws {
        try await TestServer.with(TestServer.service(Self.text, finish: .failed("no token"))) { server in
            let answer = try await server.chat(#","stream":true"#)
            #expect(answer.frames.last == "[DONE]")
            let error = try JSONValue.parse(try #require(answer.frames.dropLast().last))
            #expect(error["error"]?["message"] == "no token")
            #expect(try await server.chat().status == 500)
        }
    }
}
