import Foundation
import Nibble
import NibbleTestSupport
import Testing

/// Translation with models of many languages: a tiny M2M100 with a tokenizer of its kind.
@Suite struct TranslationPipelineTests {
    /// The recorded model with a recorded tokenizer that knows eight languages, `en` and `de` among them.
    private func folder() throws -> URL {
        let folder = try Fixtures.temporaryFolder()
        let model = try #require(FixtureModel.all.first { $0.name == "m2m_100" }).folder
        let tokenizer = Fixtures.repository.appending(path: "Tests/Fixtures/translation/m2m100_wmt21")
        for (source, names) in [
            (model, ["config.json", "generation_config.json", "model.safetensors"]),
            (tokenizer, ["sentencepiece.bpe.model", "special_tokens_map.json", "tokenizer_config.json", "vocab.json"]),
        ] {
            for name in names {
                try FileManager.default.copyItem(at: source.appending(path: name), to: folder.appending(path: name))
            }
        }
        return folder
    }

    @Test("the task's languages mark the text and begin the answer")
    func task() async throws {
        let folder = try folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let translate = try await pipeline(.translation(from: "en", to: "de"), model: folder.path, dtype: .float32)
        var options = Text2TextGenerationPipeline.Options()
        options.returnTensors = true
        let few = GenerationConfig(maxNewTokens: 5, numBeams: 1)
        let german = try #require(translate.tokenizer.id(for: "__de__"))
        let found = try await translate("the house", few, options: options)[0].generatedTokenIDs
        #expect(found?.prefix(2) == [2, german])

        let tokenizer = try translate.tokenizer.translating(from: "en", to: "de")
        let output = try await translate.model.generate(tokenizer("the house"), few)
        #expect(output.sequences[0] == found)

        // A call has the last word, and so has the token itself.
        options.tgtLang = "ru"
        let russian = try await translate("the house", few, options: options)[0].generatedTokenIDs
        #expect(russian?[1] == translate.tokenizer.id(for: "__ru__"))
        var forced = few
        forced.forcedBosTokenId = 9
        #expect(try await translate("the house", forced, options: options)[0].generatedTokenIDs?[1] == 9)
        options.tgtLang = "deu"
        await #expect(throws: TokenizerError.unknownLanguage("deu", near: ["de"])) {
            try await translate("the house", few, options: options)
        }
    }

    @Test("without a target the task is refused, and other tasks are not")
    func noTarget() async throws {
        let folder = try folder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let translate = try await pipeline(.translation, model: folder.path, dtype: .float32)
        let few = GenerationConfig(maxNewTokens: 2, numBeams: 1)
        await #expect(throws: PipelineError.noTargetLanguage) { try await translate("the house", few) }
        var options = Text2TextGenerationPipeline.Options()
        options.tgtLang = "de"
        #expect(try await translate("the house", few, options: options).count == 1)
        let answer = try await pipeline(.text2textGeneration, model: folder.path, dtype: .float32)
        #expect(try await answer("the house", few).count == 1)
    }

    @Test("a model without languages refuses them in a call, and takes them in the task's name")
    func noLanguages() async throws {
        let spelling = try ExampleModel.spelling.get()
        let answer = try Text2TextGenerationPipeline(
            model: spelling.model, tokenizer: spelling.tokenizer, task: "translation_en_to_de", srcLang: "en", tgtLang: "de")
        let few = GenerationConfig(maxNewTokens: 2, numBeams: 1)
        #expect(try await answer("a bgi dog", few).count == 1)
        var options = Text2TextGenerationPipeline.Options()
        options.tgtLang = "de"
        await #expect(throws: TokenizerError.noLanguages) { try await answer("a bgi dog", few, options: options) }
    }
}
