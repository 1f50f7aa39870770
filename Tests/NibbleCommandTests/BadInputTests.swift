import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

/// What a user gets for a mistake: one clear line, the right exit code, nothing half-written.
@Suite(.computing) struct BadInputTests {
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
        try expect(["generate", "/no/such/model", "Hello"], mentions: "/no/such/model", "check the spelling", "nibble models")
    }

    @Test("a file that is no GGUF file is called that, and a folder without config.json no model folder")
    func noModel() throws {
        let file = folder.appending(path: "model.bin")
        try Data().write(to: file)
        for command in ["chat", "plan", "serve"] {
            let outcome = try CommandLineTool.run([command, file.path])
            #expect(outcome.status == 1 && outcome.errors.contains("not a GGUF file"), "\(outcome.errors)")
        }
        let empty = folder.appending(path: "empty")
        try FileManager.default.createDirectory(at: empty, withIntermediateDirectories: true)
        for command in ["chat", "plan", "serve", "bench"] {
            let outcome = try CommandLineTool.run([command, empty.path])
            #expect(outcome.status == 1 && outcome.errors.contains("no config.json"), "\(outcome.errors)")
        }
        try FileManager.default.removeItem(at: folder)
    }

    @Test(
        "numbers beyond all measure are refused",
        arguments: [
            (["generate"], "--context", "9223372036854775807"), (["generate"], "--context", "0"),
            (["generate"], "--batch-size", "9223372036854775807"), (["plan"], "--batch-size", "65537"),
            (["plan"], "--context", "2147483648"), (["generate"], "--num-beams", "100000000"),
            (["generate", "--do-sample", "true"], "--num-return-sequences", "99999999"), (["bench"], "-p", "99999999999"),
            (["bench"], "-n", "9223372036854775807"), (["bench"], "-b", "99999999"),
            (["bench"], "--depth", "9223372036854775807"),
            (["bench", "--requests", "1"], "--shared-prefix", "9223372036854775807"), (["bench"], "--requests", "99999999999"),
            (["bench", "--requests", "1"], "--prompt-range", "1-99999999999"),
        ])
    func hugeNumbers(command: [String], option: String, value: String) throws {
        let prompt = command[0] == "generate" ? ["Hello"] : []
        try expect([command[0], model.path] + command.dropFirst() + [option, value] + prompt, status: 64, mentions: option)
    }

    @Test("room for more tokens than can be counted, and too many slots, are errors")
    func hugeRoom() throws {
        let room = ["--context", "2147483647", "--batch-size", "65536"]
        try expect(generate("Hello") + room, mentions: "`context` must be from 1 to 1048576")
    }

    @Test func hugeEngine() throws {
        try expect(["serve", model.path, "--max-batch", "99999999", "--port", "0", "--quiet"], mentions: "slots", "99999999")
    }

    @Test(
        "values that say nothing are refused and the option is named",
        arguments: [
            (["serve"], ["--api-key", ""]), (["serve"], ["--served-model-name", ""]), (["serve"], ["--kv-budget", "nonsense"]),
            (["quantize", "--load-in-4bit", "--output", "x"], ["--max-shard-size", "0"]),
            (["quantize", "--load-in-4bit", "--output", "x"], ["--max-shard-size", "-5GB"]),
            (["plan"], ["--max-memory", "cpu=12parsecs"]), (["bench", "-p", "0"], ["-n", "0"]),
        ])
    func emptyValues(command: [String], option: [String]) throws {
        try expect([command[0], model.path] + command.dropFirst() + option, status: 64, mentions: option[0])
    }

    @Test("an address that cannot be listened on is named, with the options that choose another")
    func noAddress() throws {
        try expect(
            ["serve", model.path, "--host", "no.such.host.invalid", "--port", "0", "--quiet"],
            mentions: "no.such.host.invalid:0", "--host")
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

    @Test("an empty prompt begins with bos; without one it is an error")
    func emptyPrompt() throws {
        let ids = folder.appending(path: "ids.json")
        try Data("{\"input_ids\": [[]]}".utf8).write(to: ids)
        let bos = folder.appending(path: "bos.json")
        try Data("{\"input_ids\": [[1]]}".utf8).write(to: bos)
        func outputIDs(_ arguments: String...) throws -> [[JSONValue]?] {
            let outcome = try CommandLineTool.run(generate("--json") + arguments)
            #expect(outcome.status == 0, "\(outcome.errors)")
            return try outcome.output.split(separator: "\n").map { try JSONValue.parse(String($0))["output_ids"]?.array }
        }
        let begun = try outputIDs("--input-ids", bos.path)
        #expect(begun[0]?.count == 3 && begun[0]?.first == .int(1))
        #expect(try outputIDs("") == begun)
        #expect(try outputIDs("--input-ids", ids.path) == begun)
        // Beside another prompt it is padded on the left.
        #expect(try outputIDs("", "Once upon a time")[0]?.suffix(3) == begun[0]?[...])

        for file in ["generation_config.json", "tokenizer_config.json"] {
            try FileManager.default.removeItem(at: model.appending(path: file))
        }
        try Data("{\"pad_token_id\": 3}".utf8).write(to: model.appending(path: "generation_config.json"))
        try expect(generate(""), mentions: "prompt is empty", "bos_token_id")
    }

    @Test("ids without a row are an error that names the file")
    func noRows() throws {
        let ids = folder.appending(path: "ids.json")
        try Data("{\"input_ids\": []}".utf8).write(to: ids)
        try expect(generate("--input-ids", ids.path), mentions: ids.path, "no rows")
    }

    @Test("a prompt file without a prompt is an error that names it; its lines may end in CRLF")
    func promptFile() throws {
        let prompts = folder.appending(path: "prompts.txt")
        try Data("Once upon a time\r\n\r\nThe dog\r\n".utf8).write(to: prompts)
        let outcome = try CommandLineTool.run(generate("--json", "--prompt-file", prompts.path))
        let plain = try CommandLineTool.run(generate("--json", "Once upon a time", "The dog"))
        #expect(outcome.status == 0 && outcome.output == plain.output, "\(outcome.errors)")
        try Data("\r\n\n".utf8).write(to: prompts)
        try expect(generate("--prompt-file", prompts.path), mentions: prompts.path)
    }

    @Test("a text without a token to score is an error that names the file", arguments: ["--file", "--stories"])
    func nothingToScore(_ option: String) throws {
        let text = folder.appending(path: "empty.txt")
        try Data().write(to: text)
        try expect(["perplexity", model.path, option, text.path, "--quiet"], mentions: text.path, "found 0")
    }

    @Test("a missing text is named in our own words", arguments: ["--file", "--stories"])
    func missingText(_ option: String) throws {
        let text = folder.appending(path: "none.txt")
        try expect(
            ["perplexity", model.path, option, text.path, "--quiet"], mentions: "\(text.path): cannot be read: no such file")
    }

    @Test("a wrong line is named with its file and number")
    func wrongLine() throws {
        let stories = folder.appending(path: "stories.jsonl")
        try Data("\"A dog.\"\r\n\r\nA cat.\r\n".utf8).write(to: stories)
        try expect(
            ["perplexity", model.path, "--stories", stories.path, "--quiet"], mentions: "\(stories.path), line 3", "A cat.")
    }

    @Test("a wrong line of standard input is named with its number")
    func wrongInputLine() throws {
        let outcome = try CommandLineTool.run(
            ["tokenize", model.path, "--json"], input: "{\"text\": \"a\"}\n\n{\"txt\": \"b\"}\n")
        #expect(outcome.status == 1)
        #expect(outcome.errors.contains("standard input, line 3") && outcome.errors.split(separator: "\n").count == 1)
        try? FileManager.default.removeItem(at: folder)
    }

    @Test(
        "options that cannot be used are refused before a byte of the model is read",
        arguments: [
            ["generate", "--do-sample", "--top-p", "1.5", "Hello"], ["generate", "--temperature", "-0.5", "Hello"],
            ["generate", "--repetition-penalty", "-1", "Hello"], ["generate", "--seed", "-1", "Hello"],
            ["generate", "--num-return-sequences", "0", "Hello"], ["generate", "--stop", "", "Hello"],
            ["chat", "--top-p", "1.5"], ["chat", "--num-beams", "4"], ["bench", "-b", "0"], ["bench", "-n", "-5"],
            ["bench", "--repetitions", "-1"], ["perplexity", "--window", "-3", "--file", "x"],
        ])
    func lateOptions(_ arguments: [String]) throws {
        try FileManager.default.removeItem(at: model.appending(path: "config.json"))
        let outcome = try CommandLineTool.run([arguments[0], model.path] + arguments.dropFirst())
        #expect(outcome.status == 64 && outcome.output.isEmpty, "\(outcome.errors)")
        #expect(outcome.errors.contains(arguments[1]) || outcome.errors.contains(arguments[2]), "\(outcome.errors)")
        try? FileManager.default.removeItem(at: folder)
    }

    @Test("settings that conflict, with each other or with the model's own, are found before the weights are read")
    func conflictsBeforeLoading() throws {
        try FileManager.default.removeItem(at: weights)
        try expect(
            generate("--num-beams", "2", "--num-return-sequences", "3", "Hello"), mentions: "--num-return-sequences (3)")
    }

    @Test("what the command line cannot combine is wrong usage", arguments: ["--assistant", "--prompt-lookup-num-tokens"])
    func assistanceOfSeveralRows(_ option: String) throws {
        let value = option == "--assistant" ? model.path : "3"
        try expect(generate(option, value, "Once", "Twice"), status: 64, mentions: option)
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
        // Found out before the model is loaded.
        try FileManager.default.removeItem(at: weights)
        try expect(["forward", model.path, "--input", ids.path, "--output", output.path, "--quiet"], mentions: output.path)
    }

    @Test("input tensors of the wrong form are named")
    func wrongInputTensors() throws {
        let ids = folder.appending(path: "ids.safetensors")
        let output = folder.appending(path: "out.safetensors").path
        func forward(_ tensors: [(name: String, tensor: Tensor)]) throws -> CommandLineTool.Outcome {
            try SafetensorsWriter().write(tensors, to: ids)
            let outcome = try CommandLineTool.run(["forward", model.path, "--input", ids.path, "--output", output, "--quiet"])
            #expect(outcome.status == 1 && outcome.errors.contains(ids.path), "\(outcome.errors)")
            #expect(!FileManager.default.fileExists(atPath: output))
            return outcome
        }
        let row = Tensor.host([Int64(1), 2], .int64, [1, 2])
        #expect(try forward([("ids", row)]).errors.contains("tensor input_ids"))
        #expect(try forward([("input_ids", .host([Int64(1)], .int64, [1]))]).errors.contains("[B, T]"))
        #expect(try forward([("input_ids", .host([Float(1)], .float32, [1, 1]))]).errors.contains("int64"))
        let mask = Tensor.host([Int64(1), 1, 1], .int64, [1, 3])
        #expect(try forward([("input_ids", row), ("attention_mask", mask)]).errors.contains("attention_mask"))
        try? FileManager.default.removeItem(at: folder)
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
