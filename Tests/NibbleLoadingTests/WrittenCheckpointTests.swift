import Foundation
import NibbleCPU
import NibbleCheckpoint
import NibbleCore
import NibbleLoading
import NibbleQuantization
import NibbleTestSupport
import Testing

/// Checkpoints that are written: what they hold, and what is refused.
@Suite(.computing) struct WrittenCheckpointTests {
    private static let nf4 = BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4)
    private static let nested = BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4, useDoubleQuant: true)
    private static let int8 = BitsAndBytesConfig(loadIn8Bit: true)

    private func options(_ config: BitsAndBytesConfig?) -> LoaderOptions {
        var options = LoaderOptions()
        options.quantization = config
        return options
    }

    private func write(_ model: TinyModel, _ config: BitsAndBytesConfig, to folder: URL) throws -> WrittenCheckpoint {
        try model.loader(options(config)).writeQuantized(model.checkpoint, to: folder, maximumShardBytes: 1 << 30)
    }

    private func loader(_ folder: URL, _ options: LoaderOptions = .init()) throws -> ModelLoader {
        try ModelLoader(ModelSource(folder: folder), options: options, backends: [CPUBackend(threads: 1)])
    }

    private func withFolder(_ body: (URL) throws -> Void) throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        try body(folder)
    }

    // MARK: Quantized again

    @Test(
        "a quantized folder is not quantized to another format: the error names dequantize",
        arguments: [(nf4, int8), (int8, nf4), (nf4, nested), (nf4, BitsAndBytesConfig(loadIn4Bit: true))])
    func requantized(stored: BitsAndBytesConfig, wanted: BitsAndBytesConfig) throws {
        try withFolder { folder in
            let (first, second) = (folder.appending(path: "first"), folder.appending(path: "second"))
            _ = try write(TinyModel(TinyConfig.llama), stored, to: first)
            let writer = try loader(first, options(wanted))
            let checkpoint = try CheckpointFiles.open(folder: first)
            #expect {
                try writer.writeQuantized(checkpoint, to: second, maximumShardBytes: 1 << 30)
            } throws: { error in
                let text = "\(error)"
                return text.contains("nibble dequantize") && text.contains(stored.formatName) && text.contains(wanted.formatName)
            }
            #expect(!FileManager.default.fileExists(atPath: second.path))
        }
    }

    @Test("a quantized folder is written again in its own format") func sameFormat() throws {
        try withFolder { folder in
            let (first, second) = (folder.appending(path: "first"), folder.appending(path: "second"))
            _ = try write(TinyModel(TinyConfig.llama), Self.nf4, to: first)
            _ = try loader(first, options(Self.nf4)).writeQuantized(
                CheckpointFiles.open(folder: first), to: second, maximumShardBytes: 1 << 30)
            let name = "model.safetensors"
            #expect(try Files.data(of: first.appending(path: name)) == Files.data(of: second.appending(path: name)))
        }
    }

    @Test("a bare file that is quantized is not quantized again") func bareFile() throws {
        try withFolder { folder in
            let (source, once, twice) = (
                folder.appending(path: "a.safetensors"), folder.appending(path: "b.safetensors"),
                folder.appending(path: "c.safetensors")
            )
            try SafetensorsWriter().write([("w", TinyModel.values([8, 64], seed: 0))], to: source)
            let quantizer = TensorFileQuantizer(format: Self.nf4.format, storage: .bfloat16, cpu: CPUBackend(threads: 1))
            #expect(try quantizer.write(CheckpointFiles.open(file: source), to: once) == ["w"])
            let written = try CheckpointFiles.open(file: once)
            #expect(written.descriptor("w")?.dtype == .bfloat16)
            #expect(written.descriptor("w")?.shape == [128, 1])
            let error = #expect(throws: LoadError.self) { try quantizer.write(CheckpointFiles.open(file: once), to: twice) }
            #expect("\(try #require(error))".contains("already quantized"))
            #expect(!FileManager.default.fileExists(atPath: twice.path))
        }
    }

    // MARK: Dequantized

    @Test(
        "a dequantized checkpoint holds the values of the quantized one and loads without quantization",
        arguments: [TinyConfig.llama, TinyConfig.gpt2, TinyConfig.tiedLlama], [nf4, nested, int8])
    func dequantized(config: JSONObject, quantization: BitsAndBytesConfig) throws {
        try withFolder { folder in
            let (first, second) = (folder.appending(path: "q"), folder.appending(path: "d"))
            let model = try TinyModel(config)
            var written = options(quantization)
            written.dtype = .float32
            _ = try model.loader(written).writeQuantized(model.checkpoint, to: first, maximumShardBytes: 1 << 30)
            var float = LoaderOptions()
            float.dtype = .float32
            let back = try loader(first, float).writeDequantized(
                CheckpointFiles.open(folder: first), to: second, maximumShardBytes: 1 << 30)
            #expect(!back.quantizedModules.isEmpty)

            #expect(try ModelSource(folder: second).storedQuantization == nil)
            let plain = try loader(second, unprepared).load(CheckpointFiles.open(folder: second), placement: TinyModel.onCPU)
            let quantized = try loader(first, unprepared).load(CheckpointFiles.open(folder: first), placement: TinyModel.onCPU)
            #expect(plain.report.quantizedModules.isEmpty && plain.report.unexpected.isEmpty)
            let cpu = CPUBackend(threads: 1)
            for name in back.quantizedModules {
                let expected = try cpu.dequantize(try #require(quantized.weights.linears[name]).weight, to: .float32)
                let found = try cpu.dequantize(try #require(plain.weights.linears[name]).weight, to: .float32)
                #expect(found.floats == expected.floats, "\(name)")
            }
        }
    }

    private var unprepared: LoaderOptions {
        var options = LoaderOptions()
        options.preparesWeights = false
        options.dtype = .float32
        return options
    }

    @Test("a checkpoint that is not quantized is not dequantized") func notQuantized() throws {
        try withFolder { folder in
            let model = try TinyModel(TinyConfig.llama)
            let output = folder.appending(path: "d")
            #expect(throws: LoadError.notQuantized(folder: model.folder.path)) {
                try model.loader().writeDequantized(model.checkpoint, to: output, maximumShardBytes: 1 << 30)
            }
            #expect(!FileManager.default.fileExists(atPath: output.path))
        }
    }

    // MARK: The folder

    @Test("a file in the folder's place is named, and nothing is written") func outputIsFile() throws {
        try withFolder { folder in
            let output = folder.appending(path: "q")
            try Files.write(Data(), to: output)
            #expect(throws: FileError(path: output.path, .created, reason: "a file of that name exists")) {
                try write(TinyModel(TinyConfig.llama), Self.nf4, to: output)
            }
        }
    }

    @Test("the model's own folder is refused as output") func outputIsModel() throws {
        let model = try TinyModel(TinyConfig.llama)
        let same = model.folder.appending(path: "../\(model.folder.lastPathComponent)")
        #expect(throws: LoadError.outputIsModel(folder: same.path)) { try write(model, Self.nf4, to: same) }
        #expect(try ModelSource(folder: model.folder).storedQuantization == nil)
    }

    @Test("tokenizer files, templates and licenses travel; weights, configs and notes do not") func companions() throws {
        let travelling = [
            "tokenizer.json", "tokenizer_config.json", "vocab.txt", "sentencepiece.bpe.model", "source.spm", "tekken.json",
            "chat_template.jinja", "additional_chat_templates/tool_use.jinja", "additional_chat_templates/caf\u{E9}.jinja",
            "generation_config.json", "LICENSE", "LICENSE.md", "modeling_custom.py", "preprocessor_config.json",
        ]
        let staying = [
            "README.md", "adapter_config.json", "model.safetensors.index.json", "pytorch_model.bin", "model.fp16.safetensors",
            ".hidden.json", "additional_chat_templates/notes.md", "model.safetensors.index.fp16.json", "image.png",
        ]
        let model = try TinyModel(TinyConfig.llama)
        try Files.makeFolder(model.folder.appending(path: "additional_chat_templates"))
        for name in travelling + staying { try Files.write(Data(name.utf8), to: model.folder.appending(path: name)) }
        try withFolder { folder in
            let output = folder.appending(path: "q")
            _ = try write(model, Self.nf4, to: output)
            for name in travelling { #expect(try Files.text(of: output.appending(path: name)) == name) }
            for name in staying { #expect(!FileManager.default.fileExists(atPath: output.appending(path: name).path), "\(name)") }
        }
    }
}
