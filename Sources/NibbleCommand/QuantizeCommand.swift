import ArgumentParser
import Foundation
import Nibble

struct QuantizeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "quantize",
        abstract: "Write a quantized checkpoint.",
        discussion: """
            A model folder becomes a pre-quantized checkpoint that transformers with bitsandbytes reads. A safetensors file has \
            every floating-point tensor quantized on its own (8 bits: every 2-D one).
            """)

    @Argument(help: "A model folder, a GGUF file, owner/name on the Hub, or a bare safetensors file.")
    var model: String

    @Option(help: "Folder, or safetensors file, to write.")
    var output: String

    @Option(help: "Largest file, in bytes or with a unit.")
    var maxShardSize: String = "5GB"

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    func validate() throws {
        guard load.loadIn4Bit || load.loadIn8Bit else { throw ValidationError("give --load-in-4bit or --load-in-8bit") }
    }

    func run() async throws {
        let configuration = try load.configuration()
        let destination = URL(filePath: output)
        if model.hasSuffix(".safetensors") {
            let names = try CheckpointExport.quantizedTensors(URL(filePath: model), to: destination, configuration)
            if !load.quiet { Console.error("\(output): \(names.count) tensors quantized") }
        } else {
            let folder = try await PretrainedFiles.folder(for: model, [.config, .weights], configuration)
            let names = try CheckpointExport.quantizedModel(
                folder, to: destination, maximumShardBytes: try MemoryLimit(maxShardSize).bytes(), configuration)
            if !load.quiet { Console.error("\(output): \(names.count) layers quantized") }
        }
    }
}
