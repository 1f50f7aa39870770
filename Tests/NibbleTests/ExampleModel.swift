import Foundation
import Nibble
import NibbleCore
import NibbleTestSupport

/// The shipped models in float32, loaded once.
enum ExampleModel {
    static let stories = Result { try load(Fixtures.models.appending(path: "bloom-stories")) }
    static let spelling = Result { try load(Fixtures.models.appending(path: "t5-spelling")) }

    static func load(_ folder: URL) throws -> (model: PretrainedModel, tokenizer: Tokenizer) {
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        return (try PretrainedModel.load(folder: folder, configuration), try AutoTokenizer.from(folder: folder))
    }

    /// A folder with the files of a shipped model, some of them replaced or added. The caller removes it.
    static func folder(of name: String, replacing files: [String: String]) throws -> URL {
        let source = Fixtures.models.appending(path: name)
        let folder = try Fixtures.temporaryFolder()
        for file in try FileManager.default.contentsOfDirectory(atPath: source.path) where files[file] == nil {
            try FileManager.default.createSymbolicLink(
                at: folder.appending(path: file), withDestinationURL: source.appending(path: file))
        }
        for (file, text) in files { try Data(text.utf8).write(to: folder.appending(path: file)) }
        return folder
    }

    /// config.json of a shipped model with another member.
    static func config(of name: String, _ key: String, _ value: JSONValue) throws -> String {
        var config = try JSONValue(contentsOf: Fixtures.models.appending(path: "\(name)/config.json")).object ?? JSONObject()
        config[key] = value
        return JSONValue.object(config).encoded()
    }

    /// Messages as lines of a story.
    static let chatTemplate = """
        {{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}
        {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}
        """
}
