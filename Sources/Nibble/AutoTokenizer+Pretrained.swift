public import Foundation
import NibbleCheckpoint
import NibbleLoading
public import NibbleTokenizers

extension AutoTokenizer {
    /// - Parameters:
    ///   - pretrained: a folder, a GGUF file, or the name of a model on the Hub, of which only the tokenizer is downloaded.
    ///   - configuration: of it, the revision and what concerns the Hub count.
    /// - Throws: `TokenizerError`; see ``PretrainedFiles/folder(for:_:_:)``.
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
