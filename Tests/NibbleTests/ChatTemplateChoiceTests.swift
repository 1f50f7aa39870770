import Foundation
import Nibble
import NibbleTestSupport
import Testing

/// Which template a tokenizer takes for a chat, and what becomes of it.
@Suite struct ChatTemplateChoiceTests {
    private let hello = [ChatMessage(role: "user", content: "Hello")]

    private func tokenizer(_ files: [String: String]) throws -> Tokenizer {
        let folder = try ExampleModel.folder(of: "bloom-stories", replacing: files)
        defer { try? FileManager.default.removeItem(at: folder) }
        return try AutoTokenizer.from(folder: folder)
    }

    @Test("text and ids, without special tokens but the template's own")
    func ids() throws {
        let tokenizer = try tokenizer(["chat_template.jinja": ExampleModel.chatTemplate])
        let prompt = try tokenizer.applyChatTemplate(messages: hello, addGenerationPrompt: true)
        #expect(prompt.text == "<s>user: Hello\nassistant:")
        #expect(prompt.inputIDs == tokenizer.encode(prompt.text, addSpecialTokens: false))
        #expect(prompt.inputIDs.first == tokenizer.specialTokens.bos?.id)
    }

    @Test("tools take tool_use, a .jinja file wins over the configuration, names and texts can be given")
    func choice() throws {
        let named = """
            {"bos_token": "<s>", "chat_template": [{"name": "default", "template": "default"},
             {"name": "tool_use", "template": "tools: {{ tools | length }}"}, {"name": "rag", "template": "rag {{ style }}"}]}
            """
        let both = try tokenizer(["tokenizer_config.json": named, "chat_template.jinja": "from the file"])
        #expect(try both.applyChatTemplate(messages: hello).text == "from the file")
        let tokenizer = try tokenizer(["tokenizer_config.json": named])
        #expect(try tokenizer.applyChatTemplate(messages: hello).text == "default")
        #expect(try tokenizer.applyChatTemplate(messages: hello, tools: [["type": "function"]]).text == "tools: 1")
        #expect(try tokenizer.applyChatTemplate(messages: hello, template: "rag", extra: ["style": "short"]).text == "rag short")
        #expect(try tokenizer.applyChatTemplate(messages: hello, template: "{{ messages[0].content }}!").text == "Hello!")
    }

    @Test("no template, and none that is taken unnamed, are errors")
    func missing() throws {
        let none = try tokenizer([:])
        #expect(throws: ChatTemplateError.noTemplate) { try none.applyChatTemplate(messages: hello) }
        let rag = try tokenizer(["tokenizer_config.json": "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"\"}]}"])
        #expect(throws: ChatTemplateError.noDefaultTemplate(names: ["rag"])) { try rag.applyChatTemplate(messages: hello) }
    }
}
