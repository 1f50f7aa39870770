import Foundation
import NibbleCore
import NibbleServer
import NibbleTestSupport
import Testing

/// Ollama's API, as its clients read it.
@Suite struct OllamaTests {
    private static let text = "Once upon a time there was a little girl."

    private static func lines(_ answer: TestServer.Answer) throws -> [JSONValue] {
        try answer.text.split(separator: "\n").map { try JSONValue.parse(String($0)) }
    }

    @Test("chats stream as lines unless they are told not to", arguments: [false, true])
    func chat(streams: Bool) async throws {
        try await TestServer.with(TestServer.service(Self.text)) { server in
            let more = streams ? "" : #","stream":false"#
            let answer = try await server.send(
                "/api/chat", #"{"model":"stories:latest","messages":[{"role":"user","content":"Hi"}],"keep_alive":"5m"\#(more)}"#)
            #expect(answer.status == 200)
            #expect(answer.headers["content-type"] == (streams ? "application/x-ndjson" : "application/json"))
            let lines = try Self.lines(answer)
            #expect(streams ? lines.count > 1 : lines.count == 1)
            #expect(lines.compactMap { $0["message"]?["content"]?.string }.joined() == Self.text)
            #expect(lines.dropLast().allSatisfy { $0["done"] == false && $0["done_reason"] == nil })
            let last = try #require(lines.last)
            #expect(last["done"] == true)
            #expect(last["done_reason"] == "stop")
            #expect(last["model"] == "stories")
            for key in ["total_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"] {
                #expect(last[key]?.int ?? -1 >= 0, "\(key)")
            }
            #expect(last["created_at"]?.string?.wholeMatch(of: /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z/) != nil)
        }
    }

    @Test("options reach the engine; -1 is no limit")
    func options() async throws {
        try await TestServer.with(TestServer.service(Self.text)) { server in
            let options =
                #"{"temperature":0.5,"top_k":9,"top_p":0.5,"min_p":0.25,"seed":3,"repeat_penalty":1.5,"num_predict":4,"stop":["x"],"num_ctx":64}"#
            let answer = try await server.json(
                "/api/generate",
                try JSONValue.parse(#"{"model":"stories","prompt":"A","stream":false,"options":\#(options)}"#))
            #expect(answer["done_reason"] == "length")
            #expect(answer["eval_count"] == 4)
            let job = try #require(server.service.jobs.first)
            #expect(job.selection.temperature == 0.5)
            #expect(job.selection.topK == 9)
            #expect(job.selection.topP == 0.5)
            #expect(job.selection.minP == 0.25)
            #expect(job.selection.seed == 3)
            #expect(job.selection.repetitionPenalty == 1.5)
            #expect(job.stopStrings == ["x"])
            _ = try await server.json(
                "/api/generate",
                try JSONValue.parse(#"{"model":"stories","prompt":"A","stream":false,"options":{"num_predict":-1,"top_k":-1}}"#))
            #expect(server.service.jobs.last?.maxNewTokens ?? 0 > 100)
        }
    }

    @Test("prompts become chats, unless they are raw")
    func prompts() async throws {
        try await TestServer.with(TestServer.service(Self.text)) { server in
            let tokenizer = TestServer.tokenizer
            for (more, text) in [
                (#","raw":true"#, "A b"), ("", "<user>A b<assistant>"), (#","system":"S""#, "<system>S<user>A b<assistant>"),
            ] {
                _ = try await server.json(
                    "/api/generate", try JSONValue.parse(#"{"model":"stories","prompt":"A b","stream":false\#(more)}"#))
                #expect(tokenizer.decode(server.service.jobs.last?.prompt ?? []) == text)
            }
        }
    }

    @Test("a request without a prompt says that the model is there")
    func load() async throws {
        try await TestServer.with(TestServer.service(Self.text)) { server in
            #expect(try await server.json("/api/generate", ["model": "stories"])["done_reason"] == "load")
            let chat = try await server.json("/api/chat", ["model": "stories", "messages": [], "keep_alive": 0])
            #expect(chat["done_reason"] == "unload")
            #expect(server.service.jobs.isEmpty)
        }
    }

    @Test("calls are told as a whole, with arguments as an object", arguments: [false, true])
    func calls(streams: Bool) async throws {
        let call = #"{"name": "weather", "arguments": {"city": "Seoul"}}</tool_call>"#
        let configuration = TestServer.configured {
            $0.chatTemplate = "{{ tools | tojson }}<tool_call></tool_call>{% for m in messages %}{{ m.content }}{% endfor %}"
        }
        try await TestServer.with(TestServer.service("<tool_call>" + call), configuration) { server in
            let tools = #"[{"type":"function","function":{"name":"weather","parameters":{"type":"object","properties":{}}}}]"#
            let answer = try await server.send(
                "/api/chat",
                #"{"model":"stories","messages":[{"role":"user","content":"Hi"}],"tools":\#(tools),"stream":\#(streams)}"#)
            let calls = try Self.lines(answer).compactMap { $0["message"]?["tool_calls"]?.array }.joined()
            #expect(calls.map { $0["function"]?["name"] } == ["weather"])
            #expect(calls.first?["function"]?["arguments"] == ["city": "Seoul"])
        }
    }

    @Test(
        "a body that curl calls a form is read, but not one of a foreign page", arguments: ["/api/generate", "/v1/completions"])
    func forms(path: String) async throws {
        try await TestServer.with(TestServer.service(Self.text)) { server in
            let form = ("Content-Type", "application/x-www-form-urlencoded")
            let body = #"{"model":"stories","prompt":"x","stream":false}"#
            let plain = try await server.send(path, body, headers: [form])
            let foreign = try await server.send(path, body, headers: [form, ("Origin", "http://evil.example")])
            #expect(plain.status == (path == "/api/generate" ? 200 : 415))
            #expect(foreign.status == 415)
        }
    }

    @Test("models are listed")
    func models() async throws {
        try await TestServer.with(RealModel.stories) { server, _ in
            let tag = try #require(try await server.send("/api/tags").json()["models"]?[0])
            #expect(tag["name"] == "stories")
            #expect(tag["details"]?["family"] == "bloom")
            #expect(tag["details"]?["parameter_size"] == "7.4M")
            #expect(tag["size"]?.int ?? 0 > 7_000_000)
            let running = try #require(try await server.send("/api/ps").json()["models"]?[0])
            #expect(running["context_length"] == 512)
            let shown = try await server.json("/api/show", ["model": "stories:latest"])
            #expect(shown["capabilities"] == ["completion", "tools", "embedding"])
            #expect(shown["model_info"]?["bloom.context_length"] == 512)
            #expect(try await server.send("/api/version").json()["version"]?.string?.isEmpty == false)
            #expect(try await server.send("/placement").json()["devices"]?.array?.isEmpty == false)
        }
    }

    @Test(
        "errors are one text",
        arguments: [
            ("/api/chat", #"{"model":"other","messages":[{"role":"user","content":"x"}]}"#, 404),
            ("/api/chat", #"{"messages":[{"role":"user","content":"x"}]}"#, 400),
            ("/api/chat", #"{"model":"stories","messages":[{"role":"user","content":"x","images":["aa"]}]}"#, 400),
            ("/api/generate", #"{"model":"stories","prompt":"x","suffix":"y"}"#, 400),
            ("/api/generate", #"{"model":"stories","prompt":"x","format":7}"#, 400),
            ("/api/show", "{}", 400),
        ])
    func errors(path: String, body: String, status: Int) async throws {
        try await TestServer.with(TestServer.service(Self.text)) { server in
            let answer = try await server.send(path, body)
            #expect(answer.status == status)
            #expect(try answer.json()["error"]?.string?.isEmpty == false)
        }
    }

    @Test("a stream that fails ends with an error")
    func failure() async throws {
        try await TestServer.with(TestServer.service(Self.text, finish: .failed("no token"))) { server in
            let answer = try await server.send(
                "/api/chat", #"{"model":"stories","messages":[{"role":"user","content":"Hi"}]}"#)
            #expect(try Self.lines(answer).last?["error"] == "no token")
        }
    }
}
