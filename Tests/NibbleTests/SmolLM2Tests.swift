import Foundation
import Nibble
import NibbleCore
import NibbleTestSupport
import Testing

/// SmolLM2-135M-Instruct against what the reference recorded of it. Runs where NIBBLE_SMOLLM2 names the model's folder.
@Suite(.enabled(if: SmolLM2.isThere, "NIBBLE_SMOLLM2 names no folder with the model"))
struct SmolLM2Tests {
    private let model: PretrainedModel
    private let tokenizer: Tokenizer
    private let expected: JSONValue

    init() throws {
        (model, tokenizer) = try SmolLM2.loaded.get()
        expected = try JSONValue(contentsOf: Fixtures.url("fixtures/smollm2/expected.json"))
    }

    @Test("prompts and their ids")
    func prompts() throws {
        let prompts = expected["prompts"]?.array ?? []
        try #require(!prompts.isEmpty)
        for prompt in prompts {
            let ids = prompt["prompt_ids"]?.ids
            if let messages = prompt["messages"]?.messages {
                let made = try tokenizer.applyChatTemplate(messages: messages, addGenerationPrompt: true)
                #expect(made.text == prompt["prompt_text"]?.string)
                #expect(made.inputIDs == ids)
            } else {
                #expect(tokenizer.encode(prompt["text"]?.string ?? "") == ids)
            }
        }
    }

    @Test("chat renderings")
    func chat() throws {
        let cases = expected["chat"]?.array ?? []
        try #require(!cases.isEmpty)
        for item in cases {
            let made = try tokenizer.applyChatTemplate(
                messages: item["messages"]?.messages ?? [], addGenerationPrompt: item["add_generation_prompt"]?.bool ?? false)
            #expect(made.text == item["text"]?.string)
        }
    }

    @Test("the text-generation pipeline's answers")
    func pipeline() async throws {
        let generate = try TextGenerationPipeline(model: model, tokenizer: tokenizer)
        let cases = expected["pipeline"]?.array ?? []
        try #require(!cases.isEmpty)
        for item in cases {
            var members = item["kwargs"]?.object ?? JSONObject()
            var options = TextGenerationPipeline.Options()
            if members["return_full_text"]?.bool == false { options.returned = .newText }
            members["return_full_text"] = nil
            let config = try GenerationConfig(options: .object(members))
            let output = item["output"]?[0]?["generated_text"]
            if let text = item["input"]?.string {
                #expect(try await generate(text, config, options: options).map(\.generatedText) == [output?.string])
            } else {
                let result = try await generate(item["input"]?.messages ?? [], config, options: options)
                #expect(result.map(\.generatedChat) == [output?.messages])
            }
        }
    }

    @Test("generate()'s answers")
    func generation() async throws {
        let cases = expected["generation"]?.array ?? []
        try #require(!cases.isEmpty)
        for item in cases {
            let texts = item["texts"]?.array?.compactMap(\.string) ?? []
            let config = try GenerationConfig(options: item["kwargs"] ?? .null)
            let inputs = try tokenizer(texts, padding: .longest, paddingSide: .left)
            #expect(inputs.inputIDs == item["input_ids"]?.rows)
            #expect(inputs.attentionMask == item["attention_mask"]?.rows)
            let output = try await model.generate(inputs, config, tokenizer: tokenizer)
            let name = item["name"]?.string ?? ""
            #expect(output.sequences == item["output_ids"]?.rows, "\(name)")
            #expect(
                tokenizer.batchDecode(output.sequences, skipSpecialTokens: true) == item["decoded"]?.array?.compactMap(\.string),
                "\(name)")
        }
    }
}

enum SmolLM2 {
    static let folder = ProcessInfo.processInfo.environment["NIBBLE_SMOLLM2"].flatMap { $0.isEmpty ? nil : URL(filePath: $0) }
    static let isThere = folder != nil && Fixtures.exists("fixtures/smollm2/expected.json")

    /// float32, as recorded.
    static let loaded = Result { try ExampleModel.load(folder ?? URL(filePath: "")) }
}

extension JSONValue {
    fileprivate var ids: [Int32]? { array?.compactMap { $0.int.flatMap(Int32.init(exactly:)) } }
    fileprivate var rows: [[Int32]]? { array?.compactMap(\.ids) }
    fileprivate var messages: [ChatMessage]? {
        array?.compactMap { message in
            guard let role = message["role"]?.string, let content = message["content"]?.string else { return nil }
            return ChatMessage(role: role, content: content)
        }
    }
}
