import ArgumentParser
import Foundation
import Nibble
import NibbleCore
import NibbleHub

struct ModelsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "models",
        abstract: "List the models in the cache, or remove some.",
        discussion: """
            Lists the models that were downloaded from the Hub, by Nibble or by another program that uses the same cache, with \
            their sizes.

            Example: nibble models --remove HuggingFaceTB/SmolLM2-135M-Instruct
            """)

    @Option(help: "Remove this model from the cache; may be repeated.")
    var remove: [String] = []

    @Flag(help: "Print one JSON object a model.")
    var json = false

    struct UnknownModelError: Error, CustomStringConvertible {
        let name: String
        let cache: String
        var description: String { "\(name): no such model in \(cache); nibble models lists what is there" }
    }

    func run() async throws {
        let configuration = HubConfiguration.standard
        let models = CachedModel.all(configuration)
        guard remove.isEmpty else {
            // All names are checked before anything is removed.
            let chosen = try remove.map { name in
                guard let model = models.first(where: { $0.repository.name.hasSameBytes(as: name) }) else {
                    throw UnknownModelError(name: name, cache: configuration.cacheFolder.path)
                }
                return model
            }
            for model in chosen {
                try model.remove()
                Console.error("removed \(model.repository) (\(ByteCount.text(model.byteCount)))")
            }
            return
        }
        for model in models { show(model) }
        if models.isEmpty, !json { Console.error("no models in \(configuration.cacheFolder.path)") }
    }

    private func show(_ model: CachedModel) {
        guard json else {
            let size = ByteCount.text(model.byteCount)
            return Console.output(String(repeating: " ", count: max(10 - size.count, 0)) + size + "  \(model.repository)")
        }
        let members: [(String, JSONValue)] = [
            ("name", .string(model.repository.name)), ("bytes", .int(model.byteCount)), ("folder", .string(model.folder.path)),
        ]
        Console.output(JSONValue.object(JSONObject(members)).encoded(.compact))
    }
}
