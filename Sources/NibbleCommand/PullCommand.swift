import ArgumentParser
import Foundation
import Nibble

struct PullCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull",
        abstract: "Download a model into the cache.",
        discussion: """
            Downloads the files that the other commands need, unless they are there, and prints the folder that holds them.

            Example: nibble pull HuggingFaceTB/SmolLM2-135M-Instruct
            """)

    @Argument(help: "The name of a model on the Hub: owner/name.")
    var model: String

    @Option(help: "Branch, tag or commit (default: main).")
    var revision: String?

    @Option(help: "Download model.VARIANT.safetensors.")
    var variant: String?

    @Flag(help: "No progress.")
    var quiet = false

    func validate() throws {
        guard HubRepository(model) != nil else {
            throw ValidationError("expected the name of a model on the Hub (owner/name), found \"\(model)\"")
        }
    }

    func run() async throws {
        var configuration = LoadConfiguration()
        configuration.revision = revision
        configuration.variant = variant
        if !quiet {
            configuration.notice = { Console.error("warning: \($0)") }
            if ProgressBar.isUseful, HubConfiguration.standard.showsProgress {
                let bar = ProgressBar("Downloading")
                configuration.downloadProgress = { bar.show($0.bytes, of: $0.totalBytes) }
            }
        }
        Console.output(try await PretrainedFiles.folder(for: model, .all, configuration).path)
    }
}
