import NibbleCore
import NibbleServer
import NibbleTestSupport
import Testing

/// Each format is found by the template's text, and read in plain and in streamed answers.
@Suite struct ToolFormatTests {
    struct Example: Sendable {
        var template: String
        var text: String
        var content: String?
        var arguments: [String]
    }

    static let examples = [
        Example(
            template: "[TOOL_CALLS]", text: #"[TOOL_CALLS][{"name": "weather", "arguments": {"a": 1}}]"#,
            arguments: [#"{"a": 1}"#]),
        Example(template: "[TOOL_CALLS]", text: #"[TOOL_CALLS]weather[ARGS]{"a": 1}"#, arguments: [#"{"a": 1}"#]),
        Example(
            template: "<|python_tag|>", text: #"{"name": "weather", "parameters": {"a": "}"}}"#, arguments: [#"{"a": "}"}"#]),
        Example(template: "<|python_tag|>", text: #"{"a": 1} is an object"#, content: #"{"a": 1} is an object"#, arguments: []),
        Example(
            template: "<|python_tag|>", text: #"{"name": "other", "parameters": {}}"#,
            content: #"{"name": "other", "parameters": {}}"#, arguments: []),
        Example(
            template: "<|tool_call|>",
            text: #"<|tool_call|>[{"name": "weather", "arguments": {}}, {"arguments": {"b":2}, "name": "weather"}]"#,
            arguments: ["{}", #"{"b":2}"#]),
        Example(template: "<tool_call>", text: #"<tool_call>[{"name": "weather"}]</tool_call>"#, arguments: ["{}"]),
        Example(
            template: "<tool_call>", text: #"<tool_call>{"name": "weather", "arguments": "{\"a\": 1}"}</tool_call>"#,
            arguments: [#"{"a": 1}"#]),
        Example(
            template: "<tool_call>", text: "a <tool_call> b <tool_call>{]", content: "a <tool_call> b <tool_call>{]",
            arguments: []),
    ]

    @Test(arguments: examples.indices) func calls(index: Int) async throws {
        let example = Self.examples[index]
        let template = "{# \(example.template) #}" + TestServer.template.replacing("<tool_call>", with: "")
        try await TestServer.with(TestServer.service(example.text), TestServer.configured { $0.chatTemplate = template }) {
            server in
            let choice = try #require(try await server.chat(ToolCallTests.tools).json()["choices"]?[0])
            Self.check(choice, example)
        }
    }

    private static func check(_ choice: JSONValue, _ example: Example) {
        let calls = choice["message"]?["tool_calls"]?.array ?? []
        let arguments = calls.compactMap { $0["function"]?["arguments"]?.string }
        #expect(arguments == example.arguments)
        #expect(choice["message"]?["content"]?.string == example.content)
        guard example.template == "[TOOL_CALLS]" else { return }
        let ids = calls.compactMap { $0["id"]?.string }
        #expect(ids.allSatisfy { $0.count == 9 })
    }
}
