import ArgumentParser
import Foundation
import Nibble

struct PullCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull",
        abstract: "Download a model into the cache.",
        discussion: """
            Downloads the files that the other commands need, unless they are there, and prints the folder (or GGUF file) that \
            holds them. A download that breaks off is continued by the next one.

            Example: nibble pull HuggingFaceTB/SmolLM2-135M-Instruct
            """)

    @Argument(help: "The name of a model on the Hub: owner/name, or owner/name:Q4_K_M for one of several GGUF files.")
    var model: String

    @Option(help: "Branch, tag or commit (default: main).")
    var revision: String?

    @Option(help: "Download model.VARIANT.safetensors.")
    var variant: String?

    @Option(help: "Of a repository with several GGUF files: the file, or its quantization, such as Q4_K_M.")
    var ggufFile: String?

    @Flag(help: "No progress.")
    var quiet = false

    func validate() throws {
        let isAddress = model.contains("://")
        guard isAddress || HubRepository(String(model.prefix { $0 != ":" })) == nil else { return }
        let path = model.split(separator: "/").suffix(2).joined(separator: "/")
        throw ValidationError(
            "expected the name of a model on the Hub (owner/name), found \"\(model)\""
                + (isAddress && HubRepository(path) != nil ? ": did you mean \(path)?" : ""))
    }

    func run() async throws {
        var configuration = LoadConfiguration()
        configuration.revision = revision
        configuration.variant = variant
        configuration.ggufFile = ggufFile
        if !quiet {
            configuration.notice = { Console.error("warning: \($0)") }
            if ProgressBar.isUseful, HubConfiguration.standard.showsProgress {
                let bar = ProgressBar("Downloading")
                configuration.downloadProgress = { bar.show($0.bytes, of: $0.totalBytes) }
            }
        }
        let isHere = FileManager.default.fileExists(atPath: model)
        if isHere { Console.error("warning: \(model) is here already, and every command uses that: nothing is downloaded") }
        let end = Interrupts.beforeEnding {
            if !isHere { Console.error("\ninterrupted: nibble pull \(model) continues the download") }
        }
        defer { end.cancel() }
        Console.output(try await PretrainedFiles.folder(for: model, .all, configuration).path)
    }
}
