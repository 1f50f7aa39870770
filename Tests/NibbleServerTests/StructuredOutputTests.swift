import Nibble
import NibbleCore
import NibbleGeneration
import NibbleGrammar
import NibbleModels
import NibbleServer
import NibbleTestSupport
import Testing

/// Grammars over sockets: a real engine, held to what requests say.
@Suite struct StructuredOutputTests {
    static let schema =
        #"{"type":"object","properties":{"name":{"type":"string","maxLength":8},"age":{"type":"integer","minimum":1,"maximum":99}},"#
        + #""required":["name","age"],"additionalProperties":false}"#

    /// Runs `body` beside a server over bloom-stories.
    private func with(_ body: @Sendable @escaping (TestServer) async throws -> Void) async throws {
        try await TestServer.with(RealModel.stories) { server, _ in try await body(server) }
    }

    private static func check(_ text: String) throws {
        let grammar = try Grammar(schema: JSONValue.parse(schema))
        #expect(try grammar.accepts(text.utf8), "\(text)")
    }

    static let forms = [
        #""response_format":{"type":"json_schema","json_schema":{"name":"person","strict":true,"schema":\#(schema)}}"#,
        #""response_format":{"type":"json_schema","schema":\#(schema)}"#,
        #""structured_outputs":{"json":\#(schema)}"#,
        #""structured_outputs":{"json":\#(JSONValue.string(schema).encoded())}"#,
        #""guided_json":\#(schema)"#,
    ]

    @Test("a schema holds plain and streamed answers", arguments: forms, [false, true])
    func schemas(form: String, streams: Bool) async throws {
        try await with { server in
            let answer = try await server.chat(
                #","max_tokens":200,"seed":3,"stream":\#(streams),"n":2,"user":null,\#(form)"#)
            #expect(answer.status == 200, "\(answer.text)")
            for choice in 0..<2 {
                if streams {
                    let own = try answer.chunks().compactMap { $0["choices"]?[0] }.filter { $0["index"]?.int == choice }
                    try Self.check(own.compactMap { $0["delta"]?["content"]?.string }.joined())
                    #expect(own.last?["finish_reason"] == "stop")
                } else {
                    let own = try #require(try answer.json()["choices"]?[choice])
                    try Self.check(own["message"]?["content"]?.string ?? "")
                    #expect(own["finish_reason"] == "stop")
                }
            }
        }
    }

    @Test(
        "other forms hold answers",
        arguments: [
            (#""structured_outputs":{"regex":"[ab]{3}-[0-9]{2}"}"#, "[ab]{3}-[0-9]{2}"),
            (#""structured_outputs":{"choice":["red","deep blue","a+b"]}"#, #"red|deep blue|a\+b"#),
            (#""structured_outputs":{"grammar":"root ::= \"(\" [xy]+ \")\""}"#, #"\([xy]+\)"#),
            (#""guided_regex":"yes|no""#, "yes|no"), (#""guided_choice":["yes","no"]"#, "yes|no"),
            (#""guided_grammar":"root ::= [0-9] [0-9]""#, "[0-9]{2}"),
        ])
    func others(form: String, pattern: String) async throws {
        try await with { server in
            let grammar = try Grammar(regex: pattern)
            let chat = try await server.chat(#","max_tokens":200,"seed":3,\#(form)"#).json()["choices"]?[0]
            let text = try #require(chat?["message"]?["content"]?.string)
            #expect(try grammar.accepts(text.utf8), "\(text)")
            let body = #"{"prompt":["Once","The dog"],"max_tokens":200,"seed":3,\#(form)}"#
            let completion = try await server.send("/v1/completions", body).json()
            for index in 0..<2 {
                let text = try #require(completion["choices"]?[index]?["text"]?.string)
                #expect(try grammar.accepts(text.utf8), "\(text)")
                #expect(completion["choices"]?[index]?["finish_reason"] == "stop")
            }
        }
    }

    @Test("an object of any members, unless the answer is too long")
    func anyObject() async throws {
        try await with { server in
            for seed in 0..<4 {
                let more = #","max_tokens":300,"seed":\#(seed),"response_format":{"type":"json_object"}"#
                let choice = try #require(try await server.chat(more).json()["choices"]?[0])
                let text = try #require(choice["message"]?["content"]?.string)
                #expect(text.hasPrefix("{"))
                if choice["finish_reason"] == "stop" { #expect(try JSONValue.parse(text).object != nil) }
            }
        }
    }

    @Test("a schema in the forms of Anthropic's and OpenAI's other API")
    func otherAPIs() async throws {
        try await with { server in
            let format = #"{"type":"json_schema","name":"person","schema":\#(Self.schema)}"#
            let message = #"{"max_tokens":200,"messages":[{"role":"user","content":"Hi"}],"output_config":{"format":\#(format)}}"#
            let answer = try await server.send("/v1/messages", message).json()
            try Self.check(answer["content"]?[0]?["text"]?.string ?? "")
            let body = #"{"input":"Hi","max_output_tokens":200,"text":{"format":\#(format)}}"#
            let response = try await server.send("/v1/responses", body).json()
            try Self.check(response["output"]?[0]?["content"]?[0]?["text"]?.string ?? "")
        }
    }

    static let tools = #"""
        ,"tools":[{"type":"function","function":{"name":"paint","strict":true,"parameters":{"type":"object","properties":
        {"color":{"enum":["red","blue"]},"coats":{"type":"integer","minimum":1,"maximum":9}},"required":["color","coats"],
        "additionalProperties":false}}},{"type":"function","function":{"name":"wash"}}]
        """#

    @Test(
        "demanded calls are calls, and their arguments satisfy the schema",
        arguments: [#""required""#, #"{"type":"function","function":{"name":"paint"}}"#], [false, true])
    func demandedCalls(choice: String, streams: Bool) async throws {
        try await with { server in
            let more = #","max_tokens":300,"seed":1,"parallel_tool_calls":false,"tool_choice":\#(choice),"stream":\#(streams)"#
            let answer = try await server.chat(Self.tools + more)
            var calls: [(name: String, arguments: String)] = []
            if streams {
                for chunk in try answer.chunks() {
                    guard let call = chunk["choices"]?[0]?["delta"]?["tool_calls"]?[0]?["function"] else { continue }
                    if let name = call["name"]?.string { calls.append((name, "")) }
                    calls[calls.count - 1].arguments += call["arguments"]?.string ?? ""
                }
            } else {
                let message = try #require(try answer.json()["choices"]?[0]?["message"])
                #expect(message["content"] == .null)
                calls = (message["tool_calls"]?.array ?? []).compactMap { call in
                    guard let name = call["function"]?["name"]?.string else { return nil }
                    return (name, call["function"]?["arguments"]?.string ?? "")
                }
            }
            let call = try #require(calls.first)
            #expect(calls.count == 1)
            let arguments = try #require(try JSONValue.parse(call.arguments).object)
            if call.name == "paint" {
                #expect(["red", "blue"].contains(arguments["color"]?.string))
                #expect((1...9).contains(arguments["coats"]?.int ?? 0))
            } else {
                #expect(call.name == "wash" && arguments.isEmpty && choice.contains("required"))
            }
        }
    }

    @Test(
        "what cannot be enforced is refused by keyword and place",
        arguments: [
            (
                #""response_format":{"type":"json_schema","json_schema":{"schema":{"properties":{"a":{"uniqueItems":true}}}}}"#,
                "response_format.json_schema.schema", ["uniqueItems", "/properties/a"]
            ),
            (#""structured_outputs":{"json":{"type":"objekt"}}"#, "structured_outputs.json", ["type"]),
            (#""structured_outputs":{"regex":"(a"}"#, "structured_outputs.regex", ["(a"]),
            (#""guided_grammar":"root ::= other""#, "guided_grammar", ["other"]),
            (#""response_format":{"type":"yaml"}"#, "response_format.type", ["yaml"]),
            (#""response_format":{"type":"json_schema","json_schema":{}}"#, "response_format.json_schema.schema", ["missing"]),
            (#""structured_outputs":{}"#, "structured_outputs", ["choice"]),
            (
                #""structured_outputs":{"regex":"a"},"response_format":{"type":"json_object"}"#, "structured_outputs.regex",
                ["exclude"]
            ),
        ])
    func refusals(form: String, field: String, words: [String]) async throws {
        try await TestServer.with(TestServer.service("Hello")) { server in
            for answer in [
                try await server.chat("," + form), try await server.send("/v1/completions", #"{"prompt":"Hi",\#(form)}"#),
            ] {
                #expect(answer.status == 400)
                let error = try #require(try answer.json()["error"])
                #expect(error["param"]?.string == field)
                for word in words { #expect(error["message"]?.string?.contains(word) == true, "\(error)") }
            }
            #expect(server.service.jobs.isEmpty)
        }
    }

    @Test("a schema that need not be strict is enforced as far as it can be")
    func lenient() async throws {
        try await TestServer.with(TestServer.service("Hello")) { server in
            let schema = #"{"properties":{"a":{"uniqueItems":true}}}"#
            let format = #","response_format":{"type":"json_schema","json_schema":{"strict":false,"schema":\#(schema)}}"#
            let answer = try await server.chat(format)
            #expect(answer.status == 200)
            #expect(server.service.jobs.first?.grammar != nil)
        }
    }

    /// What answers may be in the format of a template, by what the request says.
    struct FormatCase: Sendable, CustomTestStringConvertible {
        var template: String
        var more: String
        var texts: [String]
        var others: [String]
        var testDescription: String { template + more }
    }

    static let paint = #""arguments": {"color":"red","coats":2}}"#
    static let formats: [FormatCase] = [
        FormatCase(
            template: "<tool_call>", more: #","tool_choice":"required""#,
            texts: [
                "<tool_call>\n{\"name\": \"paint\", \(paint)\n</tool_call>",
                "<tool_call>\n{\"name\": \"wash\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"paint\", \(paint)\n</tool_call>",
            ],
            others: [
                "", "Hi", "<tool_call>\n{\"name\": \"paint\", \"arguments\": {\"color\":\"green\",\"coats\":2}}\n</tool_call>",
                "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>",
            ]),
        FormatCase(
            template: "<tool_call>", more: "",
            texts: [
                "", "Hello {1}", "<tool", "Let me see.<tool_call>\n{\"name\": \"paint\", \(paint)\n</tool_call>",
                "<tool_call>\n{\"name\": \"wash\", \"arguments\": {}}\n</tool_call>",
            ],
            others: [
                "a <tool_call> b", "<tool_call>\n{\"name\": \"paint\", \"arguments\": {\"color\":\"red\"}}\n</tool_call>",
            ]),
        FormatCase(
            template: "[TOOL_CALLS]", more: #","tool_choice":"required""#,
            texts: [
                "[TOOL_CALLS][{\"name\": \"paint\", \(paint)]",
                "[TOOL_CALLS] [{\"name\": \"wash\", \"arguments\": {}}, {\"name\": \"paint\", \(paint)]",
            ],
            others: ["[TOOL_CALLS]{\"name\": \"paint\", \(paint)", "[TOOL_CALLS][]"]),
        FormatCase(
            template: "[TOOL_CALLS][ARGS]", more: #","tool_choice":{"type":"function","function":{"name":"paint"}}"#,
            texts: [#"[TOOL_CALLS]paint[ARGS]{"color":"red","coats":2}"#],
            others: [#"[TOOL_CALLS]wash[ARGS]{}"#, #"[TOOL_CALLS]paint[ARGS]{"color":"red","coats":20}"#]),
        FormatCase(
            template: "<|python_tag|>", more: "",
            texts: ["Hi", #"{"name": "paint", "parameters": {"color":"blue","coats":9}}"#],
            others: [#"{"name": "paint"}"#, #"{"a": 1}"#, "<|python_tag|>x"]),
        FormatCase(
            template: "<tool_call>", more: #","response_format":{"type":"json_object"}"#,
            texts: ["{}", #"{"a": [1]}"#, "<tool_call>\n{\"name\": \"paint\", \(paint)\n</tool_call>"], others: ["Hi", "[]"]),
    ]

    @Test("calls are held to the format of the model's template", arguments: formats)
    func callFormats(test: FormatCase) async throws {
        let configuration = TestServer.configured { $0.chatTemplate = "{{ messages[0].content }}\(test.template)" }
        try await TestServer.with(TestServer.service("x"), configuration) { server in
            _ = try await server.chat(Self.tools + test.more)
            let grammar = try #require(server.service.jobs.first?.grammar?.grammar.grammar)
            for text in test.texts { #expect(try grammar.accepts(text.utf8), "\(text)") }
            for text in test.others { #expect(try !grammar.accepts(text.utf8), "\(text)") }
        }
    }

    @Test("a tool that is not strict is held to what can be enforced; a strict one is refused")
    func unenforceableTool() async throws {
        try await TestServer.with(TestServer.service("x")) { server in
            func tools(_ isStrict: Bool) -> String {
                #","tool_choice":"required","tools":[{"type":"function","function":{"name":"f","strict":\#(isStrict),"#
                    + #""parameters":{"type":"object","properties":{"a":{"type":"array","uniqueItems":true}}}}}]"#
            }
            let refused = try await server.chat(tools(true))
            #expect(refused.status == 400)
            let message = try refused.json()["error"]?["message"]?.string ?? ""
            #expect(message.contains("uniqueItems") && message.contains("/properties/a"))
            _ = try await server.chat(tools(false))
            let grammar = try #require(server.service.jobs.first?.grammar?.grammar.grammar)
            #expect(try grammar.accepts("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\":[1]}}\n</tool_call>".utf8))
            #expect(try !grammar.accepts("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\":1}}\n</tool_call>".utf8))
        }
    }
}
