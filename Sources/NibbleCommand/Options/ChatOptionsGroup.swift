import ArgumentParser

/// How prompts become chats.
struct ChatOptionsGroup: ParsableArguments {
    @Option(help: "A file with a chat template (Jinja) to use instead of the model's own.")
    var chatTemplate: String?

    func template() throws -> String? { try chatTemplate.map(TextFile.read) }
}
