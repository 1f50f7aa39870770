import Foundation
import Nibble
import NibbleTestSupport
import NibbleTokenizers

/// A shipped model in float32, loaded once for all tests.
struct RealModel: Sendable {
    let model: PretrainedModel
    let tokenizer: Tokenizer

    private static let loadedStories = Result { try RealModel("bloom-stories") }
    private static let loadedSpelling = Result { try RealModel("t5-spelling") }

    /// A decoder that writes stories.
    static var stories: RealModel { get throws { try loadedStories.get() } }
    /// An encoder-decoder that repairs sentences.
    static var spelling: RealModel { get throws { try loadedSpelling.get() } }

    private init(_ name: String) throws {
        let folder = Fixtures.models.appending(path: name)
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        model = try PretrainedModel.load(folder: folder, configuration)
        tokenizer = try AutoTokenizer.from(folder: folder)
    }

    /// The texts that `generate()` gives, one for each returned sequence, and their tokens.
    func generated(_ prompt: String, _ config: GenerationConfig) async throws -> [(text: String, tokens: [Int32])] {
        let output = try await model.generate(try tokenizer(prompt), config, tokenizer: tokenizer)
        return output.sequences.indices.map { row in
            let tokens = Array(output.newTokens(row: row))
            return (tokenizer.decode(tokens, skipSpecialTokens: true), tokens)
        }
    }
}
