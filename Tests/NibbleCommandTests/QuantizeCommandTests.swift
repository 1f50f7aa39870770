import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

/// `nibble quantize` and `nibble dequantize` do what they were asked, or say that they do not.
@Suite(.computing) struct QuantizeCommandTests {
    private static let bloom = Fixtures.models.appending(path: "bloom-stories")

    /// A copy of a model in a folder of its own.
    private func withModel(_ body: (_ folder: URL, _ model: URL) throws -> Void) throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let model = folder.appending(path: "m")
        try FileManager.default.copyItem(at: Self.bloom, to: model)
        try body(folder, model)
    }

    private func run(_ arguments: String...) throws -> CommandLineTool.Outcome { try CommandLineTool.run(arguments) }

    @Test("a file in the output folder's place is a plain sentence") func outputIsFile() throws {
        try withModel { folder, model in
            let output = folder.appending(path: "q")
            try Files.write(Data(), to: output)
            let outcome = try run("quantize", model.path, "--output", output.path, "--load-in-4bit")
            #expect(outcome.status == 1)
            #expect(outcome.errors.contains("\(output.path) cannot be created: a file of that name exists"))
            #expect(!outcome.errors.contains("Domain") && !outcome.errors.contains("Code="))
        }
    }

    @Test("named chat templates travel") func templates() throws {
        try withModel { folder, model in
            let name = "additional_chat_templates/tool_use.jinja"
            try Files.makeFolder(model.appending(path: "additional_chat_templates"))
            try Files.write(Data("{{ messages }}".utf8), to: model.appending(path: name))
            let output = folder.appending(path: "q")
            let outcome = try run("quantize", model.path, "--output", output.path, "--load-in-4bit", "--quiet")
            #expect(outcome.status == 0, "\(outcome.errors)")
            #expect(try Files.text(of: output.appending(path: name)) == "{{ messages }}")
        }
    }

    @Test("8 bits of a 4-bit folder: the error names dequantize, which makes it possible") func requantized() throws {
        try withModel { folder, model in
            let (four, plain, eight) = (
                folder.appending(path: "four"), folder.appending(path: "plain"), folder.appending(path: "eight")
            )
            #expect(try run("quantize", model.path, "--output", four.path, "--load-in-4bit").status == 0)
            let refused = try run("quantize", four.path, "--output", eight.path, "--load-in-8bit")
            #expect(refused.status == 1)
            #expect(refused.errors.contains("nibble dequantize"))
            #expect(!FileManager.default.fileExists(atPath: eight.path))

            let back = try run("dequantize", four.path, "--output", plain.path, "--dtype", "bfloat16")
            #expect(back.status == 0, "\(back.errors)")
            let config = try JSONValue(contentsOf: plain.appending(path: "config.json"))
            #expect(config["quantization_config"] == nil)
            #expect(config["dtype"]?.string == "bfloat16")
            let checkpoint = try CheckpointFiles.open(folder: plain)
            #expect(checkpoint.names.allSatisfy { checkpoint.descriptor($0)?.dtype == .bfloat16 })
            #expect(try run("quantize", plain.path, "--output", eight.path, "--load-in-8bit").status == 0)
        }
    }

    @Test("sizes without a unit are bytes") func shardSize() throws {
        try withModel { folder, model in
            let output = folder.appending(path: "q")
            let outcome = try run(
                "quantize", model.path, "--output", output.path, "--load-in-4bit", "--max-shard-size", "2000000")
            #expect(outcome.status == 0, "\(outcome.errors)")
            #expect(try CheckpointFiles.open(folder: output).files.count > 1)
        }
    }

    @Test("--quant-storage labels the codes") func storage() throws {
        try withModel { folder, model in
            let output = folder.appending(path: "q")
            let outcome = try run(
                "quantize", model.path, "--output", output.path, "--load-in-4bit", "--quant-storage", "bfloat16")
            #expect(outcome.status == 0, "\(outcome.errors)")
            let checkpoint = try CheckpointFiles.open(folder: output)
            let name = try #require(checkpoint.names.first { $0.hasSuffix("query_key_value.weight") })
            #expect(checkpoint.descriptor(name)?.dtype == .bfloat16)
            let text = try run("generate", output.path, "Once", "--max-new-tokens", "3", "--quiet")
            #expect(text.status == 0, "\(text.errors)")
        }
    }

    @Test("lists are trimmed, and entries that match nothing are named") func skips() throws {
        try withModel { folder, model in
            let output = folder.appending(path: "q")
            let outcome = try run(
                "quantize", model.path, "--output", output.path, "--load-in-4bit", "--skip-modules",
                "+ transformer.h.0 , nothing,, transformer.h.1")
            #expect(outcome.status == 0, "\(outcome.errors)")
            #expect(outcome.errors.contains("\"nothing\" matches no module"))
            #expect(outcome.errors.split(separator: "\n").filter { $0.contains("matches no module") }.count == 1)
            let names = try CheckpointFiles.open(folder: output).names
            #expect(!names.contains { $0.hasPrefix("transformer.h.0.") && $0.hasSuffix("absmax") })
            #expect(!names.contains { $0.hasPrefix("transformer.h.1.") && $0.hasSuffix("absmax") })
            #expect(names.contains { $0.hasPrefix("transformer.h.2.") && $0.hasSuffix("absmax") })
        }
    }

    @Test(
        "an option without effect is a usage error",
        arguments: [
            (["generate", "--quant-type", "nf4"], "--quant-type needs --load-in-4bit"),
            (["generate", "--double-quant", "--block-size", "32"], "--double-quant and --block-size need --load-in-4bit"),
            (["generate", "--load-in-8bit", "--quant-type", "nf4"], "--quant-type needs --load-in-4bit"),
            (["generate", "--load-in-4bit", "--int8-threshold", "3"], "--int8-threshold needs --load-in-8bit"),
            (["generate", "--load-in-8bit", "--int8-activations"], "--int8-activations needs --load-in-4bit"),
            (["generate", "--skip-modules", "lm_head"], "--skip-modules needs --load-in-4bit or --load-in-8bit"),
            (["generate", "--fp32-cpu-offload"], "--fp32-cpu-offload needs --load-in-4bit or --load-in-8bit"),
            (["generate", "--offload-folder", ""], "--offload-folder should name a folder"),
            (["generate", "--quantize-head", "int4"], "--quantize-head should be int8, nf4 or fp4"),
            (["generate", "--top-p", "1.5"], "--top-p"), (["generate", "--num-beams", "0"], "--num-beams"),
            (["quantize", "--output", "q"], "give --load-in-4bit or --load-in-8bit"),
            (["quantize", "--output", "", "--load-in-4bit"], "--output should name a folder"),
            (["quantize", "--output", "q", "--load-in-4bit", "--max-memory", "cpu=1GB"], "--max-memory"),
            (["quantize", "--output", "q", "--load-in-4bit", "--quantize-head", "nf4"], "--quantize-head"),
            (["quantize", "--output", "q", "--load-in-4bit", "--max-shard-size", "much"], "--max-shard-size"),
            (
                ["quantize", "--output", "q", "--load-in-8bit", "--quant-storage", "uint8"],
                "--quant-storage needs --load-in-4bit"
            ),
            (["quantize", "--output", "q", "--load-in-4bit", "--quant-storage", "int64"], "--quant-storage should be one of"),
            (["dequantize", "--output", "q", "--load-in-4bit"], "dequantize takes no --load-in-4bit"),
        ])
    func usage(arguments: [String], message: String) throws {
        // The model is not there: options are checked before it is looked for.
        var arguments = arguments
        arguments.insert("/nowhere/model", at: 1)
        if arguments[0] == "generate" { arguments.insert("hello", at: 2) }
        let outcome = try CommandLineTool.run(arguments)
        #expect(outcome.status == 64)
        #expect(outcome.errors.contains(message), "\(outcome.errors)")
        #expect(outcome.output.isEmpty)
    }

    @Test("a config that asks for neither 4 nor 8 bits is not quantized") func neither() throws {
        try withModel { _, model in
            let file = model.appending(path: "config.json")
            var config = try #require(try JSONValue(contentsOf: file).object)
            config["quantization_config"] = ["quant_method": "bitsandbytes", "load_in_4bit": false, "load_in_8bit": false]
            try Files.write(Data(JSONValue.object(config).encoded().utf8), to: file)
            let arguments = ["hello", "--max-new-tokens", "3", "--json", "--quiet"]
            let outcome = try CommandLineTool.run(["generate", model.path] + arguments)
            #expect(outcome.status == 0, "\(outcome.errors)")
            #expect(outcome.output == (try CommandLineTool.run(["generate", Self.bloom.path] + arguments).output))
        }
    }
}
