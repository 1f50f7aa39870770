import Foundation
import Nibble
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

/// Models straight from GGUF files: `Tests/Fixtures/gguf/make_models.py` writes them.
@Suite struct GGUFModelTests {
    private static let fixtures = Fixtures.repository.appending(path: "Tests/Fixtures/gguf")

    private func file(_ name: String) -> URL { Self.fixtures.appending(path: "\(name).gguf") }

    private func inputs(_ name: String) throws -> (ids: [[Int32]], logits: Tensor) {
        let recorded = try CheckpointFiles.open(file: Self.fixtures.appending(path: "\(name).safetensors"))
        let ids = try recorded.tensor("input_ids").hostElements(Int64.self).map { Int32($0) }
        return ([ids], try recorded.tensor("logits"))
    }

    @Test(
        "logits are those of the model the file was made from",
        arguments: [
            "llama", "qwen2", "qwen3", "gemma", "gemma2", "arcee", "exaone4", "exaone4_full", "gemma3", "granite",
            "hunyuan-dense", "olmo2",
            "seed_oss", "smollm3",
        ])
    func logits(name: String) throws {
        let (ids, expected) = try inputs(name)
        let model = try PretrainedModel.load(folder: file(name))
        #expect(model.report.dtype == .float32)
        #expect(model.report.unexpected.isEmpty)
        let found = try model.forward(inputIDs: ids).logits
        #expect(found.shape == expected.shape)
        let (a, b) = (found.hostElements(Float.self), expected.hostElements(Float.self))
        let scale = b.map { abs($0) }.max() ?? 1
        #expect(zip(a, b).allSatisfy { abs($0 - $1) < 2e-5 * scale })
    }

    @Test(
        "any quantization works on a file as on a folder",
        arguments: [
            BitsAndBytesConfig(loadIn4Bit: true), BitsAndBytesConfig(loadIn8Bit: true),
        ])
    func quantized(config: BitsAndBytesConfig) throws {
        var configuration = LoadConfiguration()
        configuration.quantization = config
        let model = try PretrainedModel.load(folder: file("llama"), configuration)
        #expect(model.report.quantizedModules.count == 14)
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        try CheckpointExport.quantizedModel(file("llama"), to: folder, configuration)
        let ids = try inputs("llama").ids
        let written = try PretrainedModel.load(folder: folder)
        let (a, b) = (try model.forward(inputIDs: ids).logits, try written.forward(inputIDs: ids).logits)
        #expect(a.hostBytes.elementsEqual(b.hostBytes))
        #expect(try AutoTokenizer.from(model: folder).encode("the the") == [257, 258])
        #expect(written.generationConfig.eosTokenId == [259, 260])
    }

    @Test("tokenizer, chat template and ends come from the file") func tokenizer() async throws {
        let path = file("llama").path
        let tokenizer = try await AutoTokenizer.from(pretrained: path)
        #expect(tokenizer.encode("the the") == [257, 258])
        #expect(tokenizer.specialTokens.eos?.id == 259)
        let chat = try tokenizer.applyChatTemplate(
            messages: [ChatMessage(role: "user", content: "the")], addGenerationPrompt: true)
        #expect(chat.inputIDs == [257, 260])
        let model = try await AutoModelForCausalLM.from(pretrained: path)
        #expect(model.generationConfig.eosTokenId == [259, 260])
        #expect(model.generationConfig.padTokenId == 261)
        let output = try await model.generate(tokenizer("the"), GenerationConfig(maxNewTokens: 4))
        #expect(output.sequences[0].count > 1)
    }

    @Test("a file is opened by its beginning where its name says nothing", arguments: ["M.GGUF", "noext"])
    func names(name: String) async throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let copy = folder.appending(path: name)
        try FileManager.default.copyItem(at: file("llama"), to: copy)
        #expect(try await PretrainedFiles.folder(for: copy.path) == copy)
        let ids = try inputs("llama").ids
        let found = try PretrainedModel.load(folder: copy).forward(inputIDs: ids).logits
        let expected = try PretrainedModel.load(folder: file("llama")).forward(inputIDs: ids).logits
        let areEqual = withExtendedLifetime((found, expected)) { $0.0.hostBytes.elementsEqual($0.1.hostBytes) }
        #expect(areEqual)
        #expect(try AutoTokenizer.from(model: copy).encode("the the") == [257, 258])
    }

    @Test("plans need the header only") func plan() throws {
        var configuration = LoadConfiguration()
        configuration.maxMemory = [.cuda(0): "1GB"]
        let preview = try LoadPreview(folder: file("qwen2"), configuration)
        #expect(preview.dtype == .float32)
        #expect(preview.placement.deviceMap.entries == ["": .cuda(0)])
    }

    // MARK: Files that lie

    /// The file with one metadata value or text replaced by another of the same length.
    private func edited(_ name: String, _ old: String, _ new: String) throws -> URL {
        var data = try Data(contentsOf: file(name))
        let range = try #require(data.range(of: Data(old.utf8)))
        data.replaceSubrange(range, with: Data(new.utf8))
        return try write(data)
    }

    private func write(_ data: Data) throws -> URL {
        let url = try Fixtures.temporaryFolder().appending(path: "edited.gguf")
        try data.write(to: url)
        return url
    }

    @Test(
        "a field that is missing or impossible is named",
        arguments: [
            ("llama.embedding_length", "llama.embedding_lengtX", "hidden_size"),
            ("llama.block_count", "llama.block_counX", "num_hidden_layers"),
            (
                "llama.attention.layer_norm_rms_epsilon", "llama.attention.layer_norm_rms_epsiloX",
                "llama.attention.layer_norm_rms_epsilon"
            ),
            ("general.architecture", "general.architecturX", "architecture (none) is not read"),
            ("blk.1.ffn_up.weight", "blk.1.ffn_uX.weight", "model.layers.1.mlp.up_proj.weight"),
        ])
    func fields(old: String, new: String, mentions: String) throws {
        let url = try edited("llama", old, new)
        defer { try? FileManager.default.removeItem(at: url.deletingLastPathComponent()) }
        let error = #expect(throws: (any Error).self) { try PretrainedModel.load(folder: url) }
        let text = error.map { "\($0)" } ?? ""
        #expect(text.contains(mentions) && text.contains("edited.gguf"), "\(text)")
    }

    @Test("a file cut short is refused, wherever it ends", arguments: [0, 3, 8, 24, 200, 3000, 9000, 40_000]) func truncated(
        count: Int
    ) throws {
        let url = try write(try Data(contentsOf: file("llama")).prefix(count))
        defer { try? FileManager.default.removeItem(at: url.deletingLastPathComponent()) }
        #expect(throws: CheckpointError.self) { try PretrainedModel.load(folder: url) }
        #expect(throws: CheckpointError.self) { try AutoTokenizer.from(model: url) }
    }

    @Test("a tokenizer of another kind is refused by name") func unknownTokenizer() throws {
        for (old, new) in [("tokenizer.ggml.tokens", "tokenizer.ggml.tokenX"), ("qwen2", "qwenX")] {
            let url = try edited("llama", old, new)
            let error = #expect(throws: (any Error).self) { try AutoTokenizer.from(model: url) }
            #expect(error.map { "\($0)" }?.contains("tokenizer.ggml.") == true)
            try? FileManager.default.removeItem(at: url.deletingLastPathComponent())
        }
    }
}
