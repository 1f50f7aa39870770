import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

/// Outputs that other programs rely on.
@Suite(.computing) struct CommandFormTests {
    private let bloom = Fixtures.models.appending(path: "bloom-stories").path

    private func run(_ arguments: String..., input: String = "") throws -> CommandLineTool.Outcome {
        let outcome = try CommandLineTool.run(arguments, input: input)
        try #require(outcome.status == 0, "\(outcome.errors)")
        return outcome
    }

    @Test("generate --json prints one object a sequence, prompt included")
    func generateJSON() throws {
        let outcome = try run("generate", bloom, "--json", "--max-new-tokens", "4", "Once upon a time", "The dog")
        let lines = try outcome.output.split(separator: "\n").map { try JSONValue.parse(String($0)) }
        try #require(lines.count == 2)
        let text = try #require(lines[0]["text"]?.string)
        #expect(text.hasPrefix("Once upon a time"))
        #expect(lines[0]["output_ids"]?.array?.count == 8)
        #expect(lines[0]["score"] == nil)
    }

    @Test("ids in place of prompts: padding and mask come back as generate() returns them")
    func inputIDs() throws {
        let folder = try Fixtures.temporaryFolder()
        let file = folder.appending(path: "ids.json")
        let ids = try JSONValue.parse(try run("tokenize", bloom, "--json", input: "{\"text\": \"Once upon a time\"}\n").output)[
            "ids"]
        let row = ids?.array?.compactMap(\.int) ?? []
        try #require(!row.isEmpty)
        let padded = [3, 3] + row
        let mask = [0, 0] + row.map { _ in 1 }
        try Data("{\"input_ids\": [\(padded)], \"attention_mask\": [\(mask)]}".utf8).write(to: file)
        let outcome = try run("generate", bloom, "--json", "--max-new-tokens", "5", "--input-ids", file.path)
        let plain = try run("generate", bloom, "--json", "--max-new-tokens", "5", "Once upon a time")
        let got = try JSONValue.parse(outcome.output)["output_ids"]?.array?.compactMap(\.int)
        let alone = try JSONValue.parse(plain.output)["output_ids"]?.array?.compactMap(\.int)
        #expect(got == alone.map { [3, 3] + $0 })
        try FileManager.default.removeItem(at: folder)
    }

    @Test("tokenize takes texts as arguments, or else as lines")
    func tokenizeArguments() throws {
        for json in [[], ["--json"]] {
            let lines = json.isEmpty ? "Once\nupon a time\n" : "{\"text\": \"Once\"}\n{\"text\": \"upon a time\"}\n"
            let given = try CommandLineTool.run(["tokenize", bloom, "Once", "upon a time"] + json, input: "nothing of this\n")
            let read = try CommandLineTool.run(["tokenize", bloom] + json, input: lines)
            #expect(given.status == 0 && given.output == read.output && !read.output.isEmpty, "\(given.errors)")
        }
    }

    @Test("tokenize --json answers every line")
    func tokenize() throws {
        let outcome = try run(
            "tokenize", Fixtures.models.appending(path: "t5-spelling").path, "--json",
            input: "{\"text\": \"a big dog\"}\n{\"text\": \"\"}\n")
        let lines = try outcome.output.split(separator: "\n").map { try JSONValue.parse(String($0)) }
        try #require(lines.count == 2)
        #expect(lines[0]["ids_with_special"]?.array?.last == 1)
        #expect(lines[0]["decoded_skip_special"]?.string == "a big dog")
        #expect(lines[1]["ids"]?.array?.isEmpty == true)
    }

    @Test(
        "a bare tensor file quantizes under a checkpoint's names",
        arguments: [
            ["--load-in-4bit", "--quant-type", "nf4", "--double-quant"], ["--load-in-4bit", "--block-size", "128"],
            ["--load-in-8bit"],
        ])
    func quantizeTensorFile(options: [String]) throws {
        let folder = try Fixtures.temporaryFolder()
        let (input, output) = (folder.appending(path: "in.safetensors"), folder.appending(path: "out.safetensors"))
        let values: [Float] = (0..<280).map { index in
            let step = Float((index * 37) % 101)
            return step / 50 - 1
        }
        try SafetensorsWriter().write([("w", .host(values, .float32, [7, 40]))], to: input)
        let outcome = try CommandLineTool.run(["quantize", input.path, "--output", output.path, "--quiet"] + options)
        try #require(outcome.status == 0, "\(outcome.errors)")
        let written = try CheckpointFiles.open(file: output)
        if options.contains("--load-in-8bit") {
            #expect(Set(written.names) == ["w", "w.SCB"])
        } else {
            #expect(written.descriptor("w")?.shape == [140, 1])
            let blocks: Shape = options.contains("128") ? [3] : [5]
            #expect(written.descriptor("w.absmax")?.shape == blocks)
            #expect((written.descriptor("w.nested_absmax") != nil) == options.contains("--double-quant"))
        }
        try FileManager.default.removeItem(at: folder)
    }

    @Test(
        "a quantized model folder loads again and gives the same logits",
        arguments: [
            ["--load-in-4bit", "--quant-type", "nf4", "--double-quant"], ["--load-in-4bit"], ["--load-in-8bit"],
        ])
    func quantizeAndReload(options: [String]) throws {
        let folder = try Fixtures.temporaryFolder()
        let output = folder.appending(path: "q").path
        let ids = folder.appending(path: "ids.safetensors")
        try SafetensorsWriter().write([("input_ids", .host([Int64(1), 17, 200, 5, 9], .int64, [1, 5]))], to: ids)
        #expect(try CommandLineTool.run(["quantize", bloom, "--output", output, "--quiet"] + options).status == 0)
        let (direct, stored) = (folder.appending(path: "a.safetensors"), folder.appending(path: "b.safetensors"))
        #expect(
            try CommandLineTool.run(["forward", bloom, "--input", ids.path, "--output", direct.path, "--quiet"] + options).status
                == 0)
        let compute = ["--compute-dtype", "float32"]
        #expect(
            try CommandLineTool.run(["forward", output, "--input", ids.path, "--output", stored.path, "--quiet"] + compute).status
                == 0)
        let a = try CheckpointFiles.open(file: direct).tensor("logits")
        let b = try CheckpointFiles.open(file: stored).tensor("logits")
        #expect(a.hostBytes.elementsEqual(b.hostBytes))
        try FileManager.default.removeItem(at: folder)
    }
}
