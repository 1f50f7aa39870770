import NibbleCore
import NibbleServer
import NibbleTestSupport
import Testing

/// Calls of functions in the form of tagged templates; arguments as the model wrote them.
@Suite struct ToolCallTests {
    static let tools = #","tools":[{"type":"function","function":{"name":"weather","parameters":{"type":"object"}}}]"#
    static let call = #"<tool_call>{"name": "weather", "arguments": {"city":  "Seoul"}}</tool_call>"#

    @Test func plainCall() async throws {
        try await TestServer.with(TestServer.service(Self.call)) { server in
            let choice = try #require(try await server.chat(Self.tools).json()["choices"]?[0])
            #expect(choice["finish_reason"] == "tool_calls")
            #expect(choice["message"]?["content"] == .null)
            let call = try #require(choice["message"]?["tool_calls"]?[0])
            #expect(call["function"] == ["name": "weather", "arguments": #"{"city":  "Seoul"}"#])
            #expect(call["id"]?.string?.hasPrefix("call_") == true)
        }
    }

    @Test func streamedCalls() async throws {
        try await TestServer.with(TestServer.service("Sure." + Self.call + "\n" + Self.call)) { server in
            let chunks = try await server.chat(Self.tools + #","stream":true"#).chunks()
            Self.check(chunks.compactMap { $0["choices"]?[0]?["delta"] })
        }
    }

    private static func check(_ deltas: [JSONValue]) {
        let calls = deltas.compactMap { $0["tool_calls"]?[0] }
        let heads = calls.filter { $0["id"] != nil }
        #expect(heads.compactMap { $0["index"]?.int } == [0, 1])
        for head in heads {
            #expect(head["type"]?.string == "function")
            #expect(head["function"]?["arguments"]?.string == "")
        }
        for index in 0..<2 {
            let own = calls.filter { $0["index"]?.int == index }
            let pieces = own.compactMap { $0["function"]?["arguments"]?.string }
            #expect(pieces.joined() == #"{"city":  "Seoul"}"#)
        }
        let content = deltas.compactMap { $0["content"]?.string }
        #expect(content.joined() == "Sure.")
    }

    @Test func oneCallOnly() async throws {
        try await TestServer.with(TestServer.service(Self.call + "\n" + Self.call)) { server in
            let json = try await server.chat(Self.tools + #","parallel_tool_calls":false"#).json()
            #expect(json["choices"]?[0]?["message"]?["tool_calls"]?.array?.count == 1)
        }
    }

    @Test(arguments: ["<tool_call>not a call</tool_call>", #"<tool_call>{"nam": 1}</tool_call>"#, "a { b } <tool"])
    func noCallIsContent(text: String) async throws {
        try await TestServer.with(TestServer.service(text)) { server in
            let choice = try #require(try await server.chat(Self.tools).json()["choices"]?[0])
            #expect(choice["message"]?["content"]?.string == text)
            #expect(choice["finish_reason"] == "stop")
        }
    }

    @Test func demandedCall() async throws {
        try await TestServer.with(TestServer.service("No.")) { server in
            let answer = try await server.chat(Self.tools + #","tool_choice":"required""#)
            #expect(answer.status == 500)
            #expect(try answer.json()["error"]?["code"] == "tool_choice_not_met")
        }
    }

    @Test func anthropicForm() async throws {
        try await TestServer.with(TestServer.service("Sure." + Self.call)) { server in
            let body = #"""
                {"model":"stories","max_tokens":100,"messages":[{"role":"user","content":"Hi"}],
                "tools":[{"name":"weather","input_schema":{"type":"object"}}]
                """#
            let json = try await server.send("/v1/messages?beta=true", body + "}").json()
            #expect(json["stop_reason"] == "tool_use")
            #expect(json["content"]?[0] == ["type": "text", "text": "Sure."])
            #expect(json["content"]?[1]?["input"] == ["city": "Seoul"])
            let streamed = try await server.send("/v1/messages", body + #","stream":true}"#)
            let types = try streamed.chunks().compactMap { $0["type"]?.string }
            #expect(types.first == "message_start")
            #expect(types.suffix(2) == ["message_delta", "message_stop"])
            #expect(types.filter { $0 == "content_block_start" }.count == 2)
            let count = try await server.send(
                "/v1/messages/count_tokens", #"{"messages":[{"role":"user","content":"Hi"}]}"#)
            #expect(try count.json()["input_tokens"]?.int ?? 0 > 0)
        }
    }

    @Test("a call that nothing allows is a 400, a turn of no blocks is a turn")
    func anthropicEdges() async throws {
        try await TestServer.with(TestServer.service("Sure.")) { server in
            let body = #"{"max_tokens":9,"messages":[{"role":"user","content":[]}]"#
            #expect(try await server.send("/v1/messages", body + "}").status == 200)
            let answer = try await server.send("/v1/messages", body + #","tools":[],"tool_choice":{"type":"any"}}"#)
            #expect(answer.status == 400)
            #expect(try answer.json()["error"]?["message"]?.string?.contains("tool_choice") == true)
        }
    }
}

/// /v1/responses without memory.
@Suite struct ResponsesTests {
    @Test func plainAndStreamed() async throws {
        try await TestServer.with(TestServer.service("Sure." + ToolCallTests.call)) { server in
            let tools = #""tools":[{"type":"function","name":"weather","parameters":{"type":"object"}}]"#
            let body = #"{"model":"stories","instructions":"Be short.","input":"Hi",\#(tools)"#
            let json = try await server.send("/v1/responses", body + "}").json()
            #expect(json["status"] == "completed")
            #expect(json["output"]?[0]?["content"]?[0]?["text"] == "Sure.")
            #expect(json["output"]?[1]?["arguments"] == #"{"city":  "Seoul"}"#)
            let events = try await server.send("/v1/responses", body + #","stream":true}"#).chunks()
            #expect(events.compactMap { $0["sequence_number"]?.int } == Array(0..<events.count))
            let types = events.compactMap { $0["type"]?.string }
            #expect(types.prefix(3) == ["response.created", "response.in_progress", "response.output_item.added"])
            #expect(types.last == "response.completed")
            #expect(events.last?["response"]?["output"]?.array?.count == 2)
        }
    }

    @Test(arguments: ["previous_response_id", "conversation"]) func keepsNothing(field: String) async throws {
        try await TestServer.with(TestServer.service("Hello")) { server in
            let answer = try await server.send("/v1/responses", #"{"input":"Hi","\#(field)":"resp_1"}"#)
            #expect(answer.status == 400)
            #expect(try answer.json()["error"]?["param"]?.string == field)
        }
    }

    @Test func documentNamesEveryPath() async throws {
        try await TestServer.with(TestServer.service("Hello")) { server in
            let document = try await server.send("/openapi.json").json()
            #expect(document["components"]?["schemas"]?["Token"]?["maximum"]?.int ?? 0 > 0)
            let paths = try #require(document["paths"]?.object)
            for (path, _) in paths where !path.contains("{") {
                let answer = try await server.send(path, paths[path]?["post"] == nil ? nil : "{}")
                #expect(answer.status == 200 || answer.status == 400, "\(path)")
            }
        }
    }
}
