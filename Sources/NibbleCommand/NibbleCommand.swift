import ArgumentParser

@main
struct NibbleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "nibble",
        abstract: "Run large language models on the hardware you have.")
}
