import ArgumentParser

@main
struct NibbleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "nibble",
        abstract: "Run large language models on the hardware you have.",
        discussion: """
            Loads Hugging Face checkpoints, quantizes them to 4 or 8 bits while loading, and generates text. MODEL is a \
            folder with config.json, weights and tokenizer files.
            """,
        subcommands: [
            GenerateCommand.self, ChatCommand.self, ForwardCommand.self, TokenizeCommand.self, QuantizeCommand.self,
            PlanCommand.self, PerplexityCommand.self, BenchCommand.self, DoctorCommand.self,
        ])
}
