import ArgumentParser

@main
struct NibbleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "nibble",
        abstract: "Run large language models on the hardware you have.",
        discussion: """
            Loads Hugging Face checkpoints, quantizes them to 4 or 8 bits while loading, and generates text. MODEL is a \
            folder with config.json, weights and tokenizer files, a GGUF file, or the name of a model on the Hub \
            (owner/name), which is downloaded once into the cache that other Hugging Face programs use, too. HF_HOME, \
            HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE count as they do there.
            """,
        subcommands: [
            GenerateCommand.self, ChatCommand.self, ForwardCommand.self, TokenizeCommand.self, QuantizeCommand.self,
            DequantizeCommand.self, PlanCommand.self, PerplexityCommand.self, BenchCommand.self, DoctorCommand.self,
        ])
}
