import Foundation
import Nibble
import NibbleTestSupport
import Testing

/// `text-generation` on the shipped story model.
@Suite struct TextGenerationPipelineTests {
    private let greedy = GenerationConfig(maxNewTokens: 12, doSample: false)
    private let texts = ["Once upon a time", "The dog", "One sunny day, a little girl named Lily went to"]
    private let stories: (model: PretrainedModel, tokenizer: Tokenizer)
    private let generate: TextGenerationPipeline

    init() throws {
        stories = try ExampleModel.stories.get()
        generate = try TextGenerationPipeline(model: stories.model, tokenizer: stories.tokenizer)
    }

    private func directly(_ text: String, _ config: GenerationConfig) async throws -> GenerationOutput {
        try await stories.model.generate(try stories.tokenizer(text), config, tokenizer: stories.tokenizer)
    }

    @Test("the full text is the prompt as given and the new text")
    func texts() async throws {
        let output = try await directly(texts[0], greedy)
        let new = stories.tokenizer.decode(Array(output.newTokens(row: 0)), skipSpecialTokens: true)
        var options = TextGenerationPipeline.Options()
        #expect(try await generate(texts[0], greedy) == [GeneratedText(generatedText: texts[0] + new)])
        options.returned = .newText
        #expect(try await generate(texts[0], greedy, options: options) == [GeneratedText(generatedText: new)])
        options.returned = .tokenIDs
        #expect(try await generate(texts[0], greedy, options: options)[0].generatedTokenIDs == output.sequences[0])
    }

    @Test("results do not depend on the batch", arguments: [2, 3, 8])
    func batching(size: Int) async throws {
        var options = TextGenerationPipeline.Options()
        options.batchSize = size
        let together = try await generate(texts, greedy, options: options)
        for (text, results) in zip(texts, together) { #expect(try await generate(text, greedy) == results) }
        options.batchSize = 0
        await #expect(throws: PipelineError.batchSize(0)) { try await generate(texts, greedy, options: options) }
    }

    @Test("ids of a batch come with their padding on the left")
    func padding() async throws {
        var options = TextGenerationPipeline.Options()
        options.batchSize = 3
        options.returned = .tokenIDs
        let rows = try await generate(texts, greedy, options: options).map { $0[0].generatedTokenIDs ?? [] }
        let pad = try #require(stories.tokenizer.specialTokens.pad).id
        #expect(Set(rows.map(\.count)).count == 1)
        #expect(rows[1].first == pad && rows[2].first != pad)
    }

    @Test("left alone it samples up to 256 tokens at temperature 0.7")
    func defaults() async throws {
        let given = GenerationConfig(maxNewTokens: 256, doSample: true, temperature: 0.7, seed: 7)
        let output = try await directly(texts[0], given)
        let expected = texts[0] + stories.tokenizer.decode(Array(output.newTokens(row: 0)), skipSpecialTokens: true)
        #expect(try await generate(texts[0], GenerationConfig(seed: 7))[0].generatedText == expected)
    }

    @Test("what was given at construction counts where the call says nothing; any max_length beats the default of new tokens")
    func priorities() async throws {
        let made = try TextGenerationPipeline(
            model: stories.model, tokenizer: stories.tokenizer, generation: GenerationConfig(maxNewTokens: 3, doSample: false))
        var options = TextGenerationPipeline.Options()
        options.returned = .tokenIDs
        let prompt = stories.tokenizer.encode(texts[0]).count
        #expect(try await made(texts[0], options: options)[0].generatedTokenIDs?.count == prompt + 3)
        let longer = GenerationConfig(maxNewTokens: 5)
        #expect(try await made(texts[0], longer, options: options)[0].generatedTokenIDs?.count == prompt + 5)
        let total = GenerationConfig(maxLength: prompt + 2, doSample: false)
        #expect(try await generate(texts[0], total, options: options)[0].generatedTokenIDs?.count == prompt + 2)
    }

    @Test("a prefix stands before the prompt, is not returned, and lengthens a total length")
    func prefix() async throws {
        var options = TextGenerationPipeline.Options()
        options.prefix = "It was a sunny day. "
        let all = stories.tokenizer.encode("It was a sunny day. The dog").count
        let new = all + 4 - stories.tokenizer.encode("It was a sunny day. ", addSpecialTokens: false).count
        let text = try await generate("The dog", GenerationConfig(maxLength: new, doSample: false), options: options)[0]
            .generatedText
        let output = try await directly("It was a sunny day. The dog", GenerationConfig(maxNewTokens: 4, doSample: false))
        #expect(text == "The dog" + stories.tokenizer.decode(Array(output.newTokens(row: 0)), skipSpecialTokens: true))
    }

    @Test("hole keeps the end of a long prompt")
    func hole() async throws {
        var options = TextGenerationPipeline.Options()
        options.handleLongGeneration = .hole
        options.returned = .tokenIDs
        let long = String(repeating: "The cat sat on the mat. ", count: 300)
        let ids = stories.tokenizer.encode(long)
        let limit = try #require(stories.tokenizer.modelMaxLength)
        try #require(ids.count > limit)
        let row = try await generate(long, GenerationConfig(maxNewTokens: 4, doSample: false), options: options)[0]
            .generatedTokenIDs
        #expect(row?.prefix(limit - 4) == ids.suffix(limit - 4))
        await #expect(throws: PipelineError.noRoomForPrompt(newTokens: limit, modelMaxLength: limit)) {
            try await generate(long, GenerationConfig(maxNewTokens: limit, doSample: false), options: options)
        }
    }

    @Test("a stop sequence ends the text and is part of it")
    func stop() async throws {
        var options = TextGenerationPipeline.Options()
        options.stopSequence = ["."]
        let text = try await generate(texts[0], GenerationConfig(maxNewTokens: 200, doSample: false), options: options)[0]
            .generatedText
        #expect(text.hasSuffix(".") && text.count { $0 == "." } == 1)
    }

    @Test("several sequences a prompt stay with their prompt")
    func returnedSequences() async throws {
        var options = TextGenerationPipeline.Options()
        options.batchSize = 2
        var config = GenerationConfig(maxNewTokens: 8, numBeams: 3, numReturnSequences: 2)
        config.doSample = false
        let results = try await generate(Array(texts.prefix(2)), config, options: options)
        #expect(results.map(\.count) == [2, 2])
        #expect(zip(texts, results).allSatisfy { text, results in results.allSatisfy { $0.generatedText.hasPrefix(text) } })
        #expect(results[0][0] != results[0][1])
    }

    @Test("an empty prompt begins with bos, alone and in a batch")
    func emptyPrompt() async throws {
        let alone = try await generate("", greedy)
        #expect(!alone[0].generatedText.isEmpty)
        var options = TextGenerationPipeline.Options()
        options.batchSize = 2
        #expect(try await generate(["", texts[0]], greedy, options: options)[0] == alone)
    }

    @Test("chats go through the template; an assistant's last message is continued")
    func chats() async throws {
        let folder = try ExampleModel.folder(of: "bloom-stories", replacing: ["chat_template.jinja": ExampleModel.chatTemplate])
        let tokenizer = try AutoTokenizer.from(folder: folder)
        let generate = try TextGenerationPipeline(model: stories.model, tokenizer: tokenizer)
        let chat = [ChatMessage(role: "user", content: "Tell me a story.")]
        let answered = try await generate(chat, greedy)[0]
        #expect(answered.generatedChat == chat + [ChatMessage(role: "assistant", content: answered.generatedText)])
        let output = try await stories.model.generate(
            BatchEncoding(
                inputIDs: [tokenizer.encode("<s>user: Tell me a story.\nassistant:", addSpecialTokens: false)], attentionMask: []),
            greedy)
        #expect(answered.generatedText == tokenizer.decode(Array(output.newTokens(row: 0)), skipSpecialTokens: true))

        let begun = chat + [ChatMessage(role: "assistant", content: "Once upon")]
        let continued = try await generate(begun, greedy)[0]
        #expect(continued.generatedChat?.count == 2)
        #expect(continued.generatedChat?.last?.content == .string("Once upon" + continued.generatedText))
        await #expect(throws: PipelineError.emptyChat) { try await generate([ChatMessage](), greedy) }
        await #expect(throws: ChatTemplateError.noTemplate) { try await self.generate(chat, greedy) }
        try FileManager.default.removeItem(at: folder)
    }

    @Test("a chat's answer ends where the model's positions do, a text's continuation after 256 tokens")
    func answerLength() async throws {
        let folder = try ExampleModel.folder(of: "bloom-stories", replacing: ["chat_template.jinja": ExampleModel.chatTemplate])
        defer { try? FileManager.default.removeItem(at: folder) }
        let generate = try TextGenerationPipeline(model: stories.model, tokenizer: try AutoTokenizer.from(folder: folder))
        var endless = GenerationConfig(doSample: false)
        endless.suppressTokens = [0, 1, 2, 3]
        var options = TextGenerationPipeline.Options()
        options.returned = .tokenIDs
        let chat = [ChatMessage(role: "user", content: "Tell me a story.")]
        // The tokenizer's model_max_length, as BLOOM's positions have no end.
        #expect(try await generate(chat, endless, options: options)[0].generatedTokenIDs?.count == 1024)
        endless.maxNewTokens = 5
        let short = try await generate(chat, endless, options: options)[0].generatedTokenIDs?.count ?? 0
        #expect(short > 5 && short < 50)
        endless.maxNewTokens = nil
        let prompt = try generate.tokenizer("Once upon a time").inputIDs[0].count
        #expect(try await generate("Once upon a time", endless, options: options)[0].generatedTokenIDs?.count == prompt + 256)
    }

    @Test("progress is told after every batch")
    func progress() async throws {
        let seen = Progress()
        var options = TextGenerationPipeline.Options()
        options.batchSize = 2
        options.progress = { seen.add($0, $1) }
        _ = try await generate(texts, GenerationConfig(maxNewTokens: 1, doSample: false), options: options)
        #expect(seen.values == [[2, 3], [3, 3]])
    }

    @Test("a model of the other kind is refused by name")
    func wrongKind() async throws {
        let path = Fixtures.models.appending(path: "t5-spelling").path
        await #expect(throws: AutoModelError.isEncoderDecoder(path)) { try await pipeline(.textGeneration, model: path) }
    }
}

/// Written by one task at a time.
private final class Progress: @unchecked Sendable {
    private(set) var values: [[Int]] = []
    func add(_ done: Int, _ total: Int) { values.append([done, total]) }
}
