import ArgumentParser
import Foundation
import Nibble
import NibbleCheckpoint

struct QuantizeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "quantize",
        abstract: "Write a quantized checkpoint.",
        discussion: """
            A model folder becomes a pre-quantized checkpoint that transformers with bitsandbytes reads. In a bare safetensors \
            file, every floating-point tensor is quantized on its own (8 bits: every 2-D one). Quantized experts are read by \
            transformers 4 or by bitsandbytes alone, as a warning tells; with --reference-behaviour they stay in floating \
            point, as transformers 5 reads them.

            Example: nibble quantize MODEL --output FOLDER --load-in-4bit --quant-type nf4
            """)

    @Argument(help: "A model folder, a GGUF file, owner/name on the Hub, or a bare safetensors file.", completion: .file())
    var model: String

    @OptionGroup(title: "Output")
    var output: CheckpointOutputGroup

    @Option(
        help: "Dtype that 4-bit codes are labelled with: uint8, int8, float16, bfloat16, float32 or float64 (default: uint8).",
        completion: .list(["uint8", "int8", "float16", "bfloat16", "float32", "float64"]))
    var quantStorage: String?

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    private var isTensorFile: Bool { model.hasSuffix(".safetensors") }

    func validate() throws {
        guard load.loadIn4Bit || load.loadIn8Bit else { throw ValidationError("give --load-in-4bit or --load-in-8bit") }
        if quantStorage != nil, load.loadIn8Bit { throw ValidationError("--quant-storage needs --load-in-4bit") }
        _ = try storage()
        try load.refusePlacement(in: "quantize")
        if isTensorFile { try load.refuseModelOptions(for: "a bare safetensors file") }
    }

    private func storage() throws -> DType {
        guard let quantStorage else { return .uint8 }
        guard let dtype = DType(name: quantStorage), BitsAndBytesConfig.storageDTypes.contains(dtype) else {
            let words = BitsAndBytesConfig.storageDTypes.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("--quant-storage should be one of \(words), found \"\(quantStorage)\"")
        }
        return dtype
    }

    func run() async throws {
        let ending = Interrupts.beforeEnding { UnfinishedFiles.removeAll() }
        defer { ending.cancel() }
        var configuration = try load.configuration()
        configuration.quantization?.quantStorage = try storage()
        if isTensorFile {
            try OutputFile.checkFolder(of: output.path)
            let names = try CheckpointExport.quantizedTensors(URL(filePath: model), to: output.url, configuration)
            if !load.quiet { Console.error("\(output.path): \(names.count) tensors quantized") }
        } else {
            let folder = try await PretrainedFiles.folder(for: model, [.config, .tokenizer, .weights], configuration)
            configuration.notice = { Console.error("warning: \($0)") }
            let names = try CheckpointExport.quantizedModel(
                folder, to: output.url, maximumShardBytes: try output.maximumShardBytes(), configuration)
            if !load.quiet { Console.error("\(output.path): \(names.count) layers quantized") }
        }
    }
}

struct DequantizeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dequantize",
        abstract: "Write a quantized checkpoint's weights in floating point.",
        discussion: """
            The folder that is written holds the values that the quantized weights stand for, and loads as an ordinary \
            checkpoint. What quantizing lost does not come back.

            Example: nibble dequantize MODEL --output FOLDER --dtype bfloat16
            """)

    @Argument(help: "A quantized model's folder, or owner/name on the Hub.", completion: .file())
    var model: String

    @OptionGroup(title: "Output")
    var output: CheckpointOutputGroup

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    func validate() throws {
        if load.loadIn4Bit || load.loadIn8Bit {
            throw ValidationError("dequantize takes no --load-in-4bit or --load-in-8bit: nibble quantize does that")
        }
        try load.refusePlacement(in: "dequantize")
    }

    func run() async throws {
        let ending = Interrupts.beforeEnding { UnfinishedFiles.removeAll() }
        defer { ending.cancel() }
        var configuration = try load.configuration()
        let folder = try await PretrainedFiles.folder(for: model, [.config, .tokenizer, .weights], configuration)
        configuration.notice = { Console.error("warning: \($0)") }
        let names = try CheckpointExport.dequantizedModel(
            folder, to: output.url, maximumShardBytes: try output.maximumShardBytes(), configuration)
        if !load.quiet { Console.error("\(output.path): \(names.count) layers dequantized") }
    }
}

/// Where a checkpoint is written.
struct CheckpointOutputGroup: ParsableArguments {
    @Option(name: .customLong("output"), help: "Folder, or safetensors file, to write.", completion: .file())
    var path: String

    @Option(parsing: .unconditional, help: "Largest file, in bytes or with a unit.")
    var maxShardSize: String = "5GB"

    var url: URL { URL(filePath: path) }

    func validate() throws {
        if path.isEmpty { throw ValidationError("--output should name a folder, found nothing") }
        _ = try maximumShardBytes()
    }

    func maximumShardBytes() throws -> Int {
        let bytes = try MemoryLimit(option: "--max-shard-size", maxShardSize).bytes()
        guard bytes > 0 else { throw ValidationError("--max-shard-size must be above 0, found \"\(maxShardSize)\"") }
        return bytes
    }
}

extension MemoryLimit {
    /// The value of an option.
    /// - Throws: `ValidationError`
    init(option: String, _ text: String) throws {
        self.init(text)
        do { _ = try bytes() } catch { throw ValidationError("\(option): \(error)") }
    }
}
