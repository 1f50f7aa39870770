import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

/// What a user gets for a mistake: one clear line, the right exit code, nothing half-written.
@Suite struct BadInputTests {
    let folder: URL
    let model: URL

    init() throws {
        folder = try Fixtures.temporaryFolder()
        model = folder.appending(path: "model")
        try FileManager.default.copyItem(at: Fixtures.models.appending(path: "bloom-stories"), to: model)
    }

    private var weights: URL { model.appending(path: "model.safetensors") }

    private func expect(
        _ arguments: [String], status: Int32 = 1, mentions: String..., location: SourceLocation = #_sourceLocation
    ) throws {
        let outcome = try CommandLineTool.run(arguments)
        #expect(outcome.status == status, sourceLocation: location)
        for text in mentions { #expect(outcome.errors.contains(text), "\(outcome.errors)", sourceLocation: location) }
        #expect(outcome.output.isEmpty, sourceLocation: location)
        if status == 1 {
            #expect(outcome.errors.split(separator: "\n").count == 1, "\(outcome.errors)", sourceLocation: location)
        }
        try? FileManager.default.removeItem(at: folder)
    }

    private func generate(_ more: String...) -> [String] { ["generate", model.path, "--max-new-tokens", "2", "--quiet"] + more }

    private func editConfig(_ edit: (inout JSONObject) -> Void) throws {
        let file = model.appending(path: "config.json")
        let config = try JSONValue(contentsOf: file)
        var object = try #require(config.object)
        edit(&object)
        try Data(JSONValue.object(object).encoded(.pretty).utf8).write(to: file)
    }

    @Test func missingFolder() throws {
        try expect(["generate", "/no/such/model", "Hello"], mentions: "/no/such/model")
    }

    @Test func folderWithoutConfig() throws {
        try FileManager.default.removeItem(at: model.appending(path: "config.json"))
        try expect(generate("Hello"), mentions: "config.json")
    }

    @Test func truncatedWeights() throws {
        let data = try Data(contentsOf: weights)
        try data.prefix(data.count / 2).write(to: weights)
        try expect(generate("Hello"), mentions: weights.path)
    }

    @Test func headerLyingAboutOffsets() throws {
        var data = try Data(contentsOf: weights)
        let range = try #require(data.range(of: Data("\"data_offsets\":[0,".utf8)))
        data.replaceSubrange(range, with: Data("\"data_offsets\":[9,".utf8))
        try data.write(to: weights)
        try expect(generate("Hello"), mentions: weights.path)
    }

    @Test func missingShard() throws {
        let index = "{\"metadata\": {}, \"weight_map\": {\"lm_head.weight\": \"model-00001-of-00001.safetensors\"}}"
        try Data(index.utf8).write(to: model.appending(path: "model.safetensors.index.json"))
        try FileManager.default.removeItem(at: weights)
        try expect(generate("Hello"), mentions: "model-00001-of-00001.safetensors")
    }

    @Test func nanWeightsUnderQuantization() throws {
        let name = "transformer.h.0.mlp.dense_h_to_4h.weight"
        try poison(name, element: 77, with: 0x7E00)
        try expect(generate("--load-in-4bit", "Hello"), mentions: "dense_h_to_4h.weight", "77")
    }

    private func poison(_ name: String, element: Int, with bits: UInt16) throws {
        let checkpoint = try CheckpointFiles.open(file: weights)
        let stored = checkpoint.names.first { name.hasSuffix($0) || $0.hasSuffix(name) } ?? name
        let place = try #require(checkpoint.descriptor(stored))
        var data = try Data(contentsOf: weights)
        let offset = place.byteOffset + element * 2
        withUnsafeBytes(of: bits.littleEndian) { data.replaceSubrange(offset..<offset + 2, with: $0) }
        try data.write(to: weights)
    }

    @Test func wrongShapes() throws {
        try editConfig { $0["vocab_size"] = 4000 }
        try expect(generate("Hello"), mentions: "word_embeddings.weight", "[4096, 256]", "[4000, 256]")
    }

    @Test func unknownModelType() throws {
        try editConfig { $0["model_type"] = "frobnicator" }
        try expect(generate("Hello"), mentions: "frobnicator", "bloom")
    }

    @Test func impossibleSizes() throws {
        try editConfig { $0["n_head"] = 0 }
        try expect(generate("Hello"), mentions: "n_head", "config.json")
    }

    @Test func bothLoads() throws {
        try expect(
            generate("--load-in-4bit", "--load-in-8bit", "Hello"), status: 64, mentions: "only one can be used at the same time")
    }

    @Test func unknownQuantType() throws {
        try expect(generate("--load-in-4bit", "--quant-type", "nf5", "Hello"), status: 64, mentions: "nf5", "fp4 or nf4")
    }

    @Test func emptyPrompt() throws {
        try expect(generate(""), mentions: "prompt is empty")
    }

    @Test func noPrompt() throws {
        try expect(generate(), status: 64, mentions: "a prompt is needed")
    }

    @Test func unknownOption() throws {
        try expect(generate("--max-new-token", "3", "Hello"), status: 64, mentions: "--max-new-token")
    }

    @Test func misspelledGenerationOption() throws {
        let file = folder.appending(path: "options.json")
        try Data("{\"max_new_token\": 3}".utf8).write(to: file)
        try expect(generate("--generation-config", file.path, "Hello"), mentions: "max_new_token", "max_new_tokens")
    }

    @Test func unwritableOutput() throws {
        let output = folder.appending(path: "nowhere/out.safetensors")
        let ids = folder.appending(path: "ids.safetensors")
        try SafetensorsWriter().write([("input_ids", .host([Int64(1), 2], .int64, [1, 2]))], to: ids)
        try expect(["forward", model.path, "--input", ids.path, "--output", output.path, "--quiet"], mentions: output.path)
    }

    @Test func idsBeyondTheVocabulary() throws {
        let output = folder.appending(path: "out.safetensors")
        let ids = folder.appending(path: "ids.safetensors")
        try SafetensorsWriter().write([("input_ids", .host([Int64(1), 4096], .int64, [1, 2]))], to: ids)
        let outcome = try CommandLineTool.run(["forward", model.path, "--input", ids.path, "--output", output.path, "--quiet"])
        #expect(outcome.status == 1 && outcome.errors.contains("4096"))
        #expect(!FileManager.default.fileExists(atPath: output.path))
        try? FileManager.default.removeItem(at: folder)
    }

    @Test func failedQuantizeLeavesNothing() throws {
        try poison("transformer.h.3.mlp.dense_h_to_4h.weight", element: 5, with: 0x7C00)
        let output = folder.appending(path: "quantized")
        let outcome = try CommandLineTool.run(["quantize", model.path, "--load-in-8bit", "--output", output.path, "--quiet"])
        #expect(outcome.status == 1 && outcome.errors.contains("dense_h_to_4h"))
        #expect((try? FileManager.default.contentsOfDirectory(atPath: output.path))?.isEmpty ?? true)
        try? FileManager.default.removeItem(at: folder)
    }
}
