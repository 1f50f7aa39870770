public import Foundation
import NibbleCheckpoint
import NibbleLoading

extension AutoTokenizer {
    /// Loads a model's tokenizer.
    ///
    /// - Parameters:
    ///   - pretrained: a folder, a GGUF file, or the name of a model on the Hub, of which only the tokenizer is downloaded.
    ///   - configuration: the revision and the Hub's settings are read.
    /// - Throws: ``TokenizerError``, ``AutoModelError/noSuchFolder(_:)``, ``HubError``, ``CheckpointError``.
    public static func from(pretrained: String, configuration: LoadConfiguration = .init()) async throws -> Tokenizer {
        try from(model: try await PretrainedFiles.folder(for: pretrained, .tokenizer, configuration))
    }

    /// The tokenizer in a folder, or in a GGUF file.
    /// - Throws: `TokenizerError`; `CheckpointError` for a file that is no GGUF file.
    public static func from(model: URL) throws -> Tokenizer {
        if ModelSource.isGGUF(model) { return try Tokenizer(GGUFVocabulary(GGUFFile(model))) }
        let vocabulary = model.appending(path: ModelSource.vocabularyFile)
        return try FileManager.default.fileExists(atPath: vocabulary.path) ? from(model: vocabulary) : from(folder: model)
    }
}
