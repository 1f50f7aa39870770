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
            let deltas = try await server.chat(Self.tools + #","stream":true"#).chunks()
                .compactMap { $0["choices"]?[0]?["delta"] }
            let calls = deltas.compactMap { $0["tool_calls"]?[0] }
            let heads = calls.filter { $0["id"] != nil }
            #expect(heads.map { $0["index"] } == [0, 1])
            #expect(heads.allSatisfy { $0["function"] == ["name": "weather", "arguments": ""] && $0["type"] == "function" })
            for index in 0..<2 {
                let pieces = calls.filter { $0["index"]?.int == index }.compactMap { $0["function"]?["arguments"]?.string }
                #expect(pieces.joined() == #"{"city":  "Seoul"}"#)
            }
            #expect(deltas.compactMap { $0["content"]?.string }.joined() == "Sure.")
        }
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
}
