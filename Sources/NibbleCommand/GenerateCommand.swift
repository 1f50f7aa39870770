import ArgumentParser
import Foundation
import Nibble
import NibbleCore
import NibbleTokenizers

struct GenerateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "generate",
        abstract: "Continue prompts, or answer them with an encoder-decoder.",
        discussion: """
            Text streams to standard output as it is made. With --json, one object a returned sequence: \
            {"output_ids": […], "text": "…", "score": …}.

            Example: nibble generate Models/bloom-stories --load-in-4bit --max-new-tokens 150 --temperature 0.7 "Once upon a time"
            """)

    @Argument(help: "A model folder or name.")
    var model: String

    @Argument(help: "One or several prompts.")
    var prompts: [String] = []

    @Option(help: "A file with one prompt a line.")
    var promptsFile: String?

    @Option(name: .customLong("input-ids"), help: "A JSON file {\"input_ids\": [[…]], \"attention_mask\": [[…]]} in place of prompts.")
    var inputIDs: String?

    @Flag(help: "Print one JSON object a returned sequence.")
    var json = false

    @Option(help: "Prompts that are generated side by side.")
    var batchSize: Int = 8

    @OptionGroup(title: "Generation options")
    var generation: GenerationOptionsGroup

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup
}
