import ArgumentParser
import Foundation
import Nibble
import NibbleCheckpoint

struct MergeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "merge",
        abstract: "Write a model with LoRA adapters merged into it.",
        discussion: """
            The sum is made in the dtype of the weights and written as an ordinary checkpoint, or quantized with --load-in-4bit \
            or --load-in-8bit. Several adapters are merged one after the other. With --reference-behaviour, quantized weights are \
            dequantized, summed and quantized again, as peft does, which rounds them twice.

            Example: nibble merge MODEL --adapter ADAPTER --output FOLDER
            """)

    @Argument(help: "A model folder, a GGUF file, or owner/name on the Hub.", completion: .file())
    var model: String

    @OptionGroup(title: "Adapters")
    var adapters: AdapterOptionsGroup

    @OptionGroup(title: "Output")
    var output: CheckpointOutputGroup

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    func validate() throws {
        guard !adapters.adapters.isEmpty else { throw ValidationError("give at least one --adapter") }
        try load.refusePlacement(in: "merge")
    }

    func run() async throws {
        let ending = Interrupts.beforeEnding { UnfinishedFiles.removeAll() }
        defer { ending.cancel() }
        var configuration = try load.configuration()
        let folder = try await PretrainedFiles.folder(for: model, [.config, .tokenizer, .weights], configuration)
        configuration.notice = { Console.error("warning: \($0)") }
        let references = try adapters.references()
        try CheckpointExport.mergedModel(
            folder, references, to: output.url, maximumShardBytes: try output.maximumShardBytes(), configuration)
        if !load.quiet {
            Console.error("\(output.path): \(references.count == 1 ? "1 adapter" : "\(references.count) adapters") merged")
        }
    }
}
