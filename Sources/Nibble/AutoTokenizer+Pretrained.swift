public import NibbleTokenizers

extension AutoTokenizer {
    /// - Parameter pretrained: a model folder.
    /// - Throws: `TokenizerError`; ``AutoModelError/noSuchFolder(_:)``
    public static func from(pretrained: String) async throws -> Tokenizer {
        try from(folder: try await PretrainedFiles.folder(for: pretrained))
    }
}
