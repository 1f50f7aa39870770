import ArgumentParser
import Foundation

@main
struct NibbleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "nibble",
        abstract: "Run large language models on the hardware you have.",
        discussion: """
            Loads Hugging Face checkpoints, quantizes them to 4 or 8 bits while loading, and generates text. MODEL is a \
            folder with config.json, weights and tokenizer files, a GGUF file, or the name of a model on the Hub \
            (owner/name). A model on the Hub is downloaded once, into the cache that other Hugging Face programs use, too. \
            HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE mean what they mean there.

            Shell completion: nibble --generate-completion-script bash (or zsh, fish).
            """,
        version: Version.text,
        subcommands: [
            GenerateCommand.self, ChatCommand.self, ForwardCommand.self, TokenizeCommand.self, QuantizeCommand.self,
            DequantizeCommand.self, MergeCommand.self, PlanCommand.self, PerplexityCommand.self, BenchCommand.self,
            DoctorCommand.self,
        ] + server + [GrammarCommand.self, PullCommand.self, ModelsCommand.self])

    private static var server: [any ParsableCommand.Type] {
        #if Server
        [ServeCommand.self]
        #else
        []
        #endif
    }

    /// Parses the arguments, runs the command, and ends the process: exit code 0 when done, 1 with one line on standard error
    /// for a failure, 64 for wrong usage.
    static func main() async {
        // A reader that goes away is an error of the write, not the end of the process.
        signal(SIGPIPE, SIG_IGN)
        Console.openMissingStreams()
        do {
            let arguments = CommandArguments.joiningValues(Array(CommandLine.arguments.dropFirst()))
            try CommandArguments.checkCommand(
                arguments, names: configuration.subcommands.compactMap { $0.configuration.commandName })
            var command = try await asyncParseAsRoot(arguments)
            if var command = command as? any AsyncParsableCommand { try await command.run() } else { try command.run() }
            try Console.checkOutput()
        } catch {
            end(with: error)
        }
    }

    private static func usageMessage(_ text: String) -> String {
        let arguments = Array(CommandLine.arguments.dropFirst())
        let command = configuration.subcommands.first { $0.configuration.commandName == arguments.first } ?? NibbleCommand.self
        let help = ([command] + command.configuration.subcommands).map {
            helpMessage(for: $0, includeHidden: true, columns: 1000)
        }
        return UsageMessage(parserText: text, arguments: arguments, help: help.joined()).text
    }

    private static func end(with error: any Error) -> Never {
        if let error = error as? ValidationError {
            // Found by the command itself. What the parser finds comes with the command's usage.
            Console.error("Error: \(error.message)")
            Foundation.exit(ExitCode.validationFailure.rawValue)
        }
        let shown = CommandFailure.shown(error)
        var text = fullMessage(for: shown)
        guard exitCode(for: shown) == .success else {
            if exitCode(for: shown) == .validationFailure { text = usageMessage(text) }
            if !text.isEmpty { Console.error(text) }
            Foundation.exit(exitCode(for: shown).rawValue)
        }
        // Help is an "error" that ends well.
        Console.output(text)
        do { try Console.checkOutput() } catch { end(with: error) }
        Foundation.exit(EXIT_SUCCESS)
    }
}
