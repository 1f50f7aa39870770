import Foundation
import Nibble
import NibbleCore
import NibbleTestSupport
import Testing

/// `text2text-generation` and its relatives on the shipped spelling model.
@Suite struct Text2TextPipelineTests {
    private let texts = [
        "fix spelling: teh cat sat on teh mat", "fix spelling: a bgi dog", "fix spelling: she lovs hte rain and teh sun",
    ]
    private let spelling: (model: PretrainedModel, tokenizer: Tokenizer)

    init() throws { spelling = try ExampleModel.spelling.get() }

    @Test("left alone it searches with 4 beams for up to 256 tokens")
    func defaults() async throws {
        let answer = try Text2TextGenerationPipeline(model: spelling.model, tokenizer: spelling.tokenizer)
        var options = Text2TextGenerationPipeline.Options()
        options.returnTensors = true
        let result = try await answer(texts[0], options: options)
        let output = try await spelling.model.generate(
            try spelling.tokenizer(texts[0]), GenerationConfig(maxNewTokens: 256, numBeams: 4))
        #expect(result.count == 1)
        #expect(result[0].generatedTokenIDs == output.sequences[0])
        #expect(result[0].generatedText == spelling.tokenizer.decode(output.sequences[0], skipSpecialTokens: true))
    }

    @Test("results do not depend on the batch")
    func batching() async throws {
        let answer = try Text2TextGenerationPipeline(model: spelling.model, tokenizer: spelling.tokenizer)
        var options = Text2TextGenerationPipeline.Options()
        options.batchSize = 3
        let together = try await answer(texts, options: options)
        #expect(together.count == texts.count)
        for (text, results) in zip(texts, together) { #expect(try await answer(text) == results) }
    }

    @Test("task names pick prefix and options from the config", arguments: ["summarization", "translation_en_to_de"])
    func taskParameters(task: String) async throws {
        let parameters = try JSONValue.parse(
            "{\"\(task)\": {\"prefix\": \"fix spelling: \", \"num_beams\": 1, \"max_length\": 4}}")
        let config = try ExampleModel.config(of: "t5-spelling", "task_specific_params", parameters)
        let folder = try ExampleModel.folder(of: "t5-spelling", replacing: ["config.json": config])
        let task: PipelineTask<Text2TextGenerationPipeline> =
            task == "summarization" ? .summarization : .translation(from: "en", to: "de")
        let answer = try await pipeline(task, model: folder.path, dtype: .float32)
        var options = Text2TextGenerationPipeline.Options()
        options.returnTensors = true
        let bare = String(texts[0].dropFirst("fix spelling: ".count))
        let ids = try await answer(bare, options: options)[0].generatedTokenIDs
        let output = try await spelling.model.generate(try spelling.tokenizer(texts[0]), GenerationConfig(maxLength: 4))
        #expect(ids == output.sequences[0])
        // The call still has the last word.
        let longer = try await answer(bare, GenerationConfig(maxNewTokens: 64), options: options)[0].generatedTokenIDs
        #expect((longer?.count ?? 0) > 4)
        let plain = try await pipeline(.text2textGeneration, model: folder.path, dtype: .float32)
        #expect(plain.prefix.isEmpty)
        try FileManager.default.removeItem(at: folder)
    }

    @Test("a stop sequence's first token ends the answer")
    func stop() async throws {
        let answer = try Text2TextGenerationPipeline(
            model: spelling.model, tokenizer: spelling.tokenizer, generation: GenerationConfig(numBeams: 1))
        var options = Text2TextGenerationPipeline.Options()
        options.returnTensors = true
        let ids = try await answer(texts[0], options: options)[0].generatedTokenIDs ?? []
        try #require(ids.count > 4)
        let third = spelling.tokenizer.decode([ids[2]])
        let token = try #require(spelling.tokenizer.encode(third, addSpecialTokens: false).first)
        options.stopSequence = third
        let stopped = try await answer(texts[0], options: options)[0].generatedTokenIDs ?? []
        #expect(stopped == Array(ids.prefix(through: ids.firstIndex(of: token) ?? 0)))
        options.stopSequence = ""
        await #expect(throws: PipelineError.emptyStopSequence) { try await answer(texts[0], options: options) }
    }

    @Test(
        "8-bit and 4-bit loads run, nucleus sampling included",
        arguments: [
            BitsAndBytesConfig(loadIn8Bit: true), BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4),
        ])
    func quantized(config: BitsAndBytesConfig) async throws {
        let path = Fixtures.models.appending(path: "t5-spelling").path
        let answer = try await pipeline(.text2textGeneration, model: path, quantization: config, dtype: .float32)
        #expect(try await answer(texts[1])[0].generatedText == "a big dog.")
        let sampled = GenerationConfig(maxNewTokens: 20, doSample: true, topP: 0.9, numBeams: 1, seed: 3)
        let first = try await answer(texts, sampled)
        #expect(try await answer(texts, sampled) == first)
    }
}
