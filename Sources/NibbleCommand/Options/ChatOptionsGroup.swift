import ArgumentParser

/// How messages become prompts.
struct ChatOptionsGroup: ParsableArguments {
    @Option(help: "A file with a chat template (Jinja) to use instead of the model's own.", completion: .file())
    var chatTemplate: String?

    /// The template's text; `nil`: the model's own.
    /// - Throws: `TextFile.ReadError`
    func template() throws -> String? { try chatTemplate.map(TextFile.read) }
}
