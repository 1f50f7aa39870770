import ArgumentParser
import Foundation
import Nibble
import NibbleCore
import NibbleGeneration
import NibbleHub

struct ModelsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "models",
        abstract: "List the models in the cache, or remove some.",
        discussion: """
            Lists the models that were downloaded from the Hub, by Nibble or by another program that uses the same cache, with \
            their sizes; with --json one JSON object a model.

            Example: nibble models remove HuggingFaceTB/SmolLM2-135M-Instruct
            """,
        subcommands: [ListCommand.self, RemoveCommand.self], defaultSubcommand: ListCommand.self)

    struct ListCommand: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "list", abstract: "List the models with their sizes; what nibble models does.")

        @Flag(help: "Print one JSON object a model.")
        var json = false

        @Option(help: ArgumentHelp("Remove this model, as nibble models remove does.", visibility: .hidden))
        var remove: [String] = []

        func run() async throws {
            if !remove.isEmpty { return try CachedModels().remove(remove) }
            let cache = try CachedModels()
            for model in cache.models { Console.output(json ? Self.json(model) : Self.line(model)) }
            if cache.models.isEmpty, !json { Console.error("no models in \(cache.folder)") }
        }

        /// `  70.00 KB  owner/name (main, v2; 12.00 KB are an unfinished download)`
        private static func line(_ model: CachedModel) -> String {
            let size = ByteCount.text(model.byteCount)
            var notes: [String] = []
            if model.revisions != ["main"], !model.revisions.isEmpty {
                notes.append(
                    model.revisions.map { $0.count == 40 ? String($0.prefix(8)) : $0.printable() }.joined(separator: ", "))
            }
            if model.unfinishedByteCount > 0 {
                notes.append("\(ByteCount.text(model.unfinishedByteCount)) are an unfinished download")
            }
            return String(repeating: " ", count: max(10 - size.count, 0)) + size + "  \(model.repository)"
                + (notes.isEmpty ? "" : " (\(notes.joined(separator: "; ")))")
        }

        private static func json(_ model: CachedModel) -> String {
            let members: [(String, JSONValue)] = [
                ("name", .string(model.repository.name)), ("bytes", .int(model.byteCount)),
                ("unfinished_bytes", .int(model.unfinishedByteCount)),
                ("revisions", .array(model.revisions.map(JSONValue.string))), ("folder", .string(model.folder.path)),
            ]
            return JSONValue.object(JSONObject(members)).encoded(.compact)
        }
    }

    struct RemoveCommand: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "remove", abstract: "Remove models from the cache.",
            discussion: "At a terminal it asks first. All names are checked before anything is removed.")

        @Argument(
            help: "Names as nibble models lists them.",
            completion: .custom { _, _, _ in (try? CachedModels().models.map(\.repository.name)) ?? [] })
        var names: [String]

        @Flag(name: .shortAndLong, help: "Do not ask.")
        var yes = false

        func run() async throws {
            let cache = try CachedModels()
            let chosen = try cache.named(names)
            if !yes, isatty(STDIN_FILENO) == 1, isatty(STDERR_FILENO) == 1 {
                let bytes = ByteCount.text(chosen.reduce(0) { $0 + $1.byteCount })
                let list = chosen.map(\.repository.name).joined(separator: ", ")
                Console.error("Remove \(list) (\(bytes))? [y/N] ", newline: false)
                guard ["y", "yes"].contains(readLine()?.lowercased()) else {
                    Console.error("nothing was removed")
                    throw ExitCode.failure
                }
            }
            try cache.remove(names)
        }
    }
}

/// The models of the cache, found by name.
private struct CachedModels {
    let models: [CachedModel]
    let folder: String

    struct UnknownModelError: Error, CustomStringConvertible {
        let name: String
        let near: [String]
        let folder: String
        var description: String {
            "\"\(name.printable())\" is not in the cache \(folder)"
                + (near.isEmpty ? "; nibble models lists what is" : ": did you mean \(near.joined(separator: " or "))?")
        }
    }

    init() throws {
        let configuration = HubConfiguration.standard
        models = try CachedModel.all(configuration)
        folder = configuration.cacheFolder.path
    }

    /// All names are checked before anything is removed.
    func named(_ names: [String]) throws -> [CachedModel] {
        try names.map { name in
            guard let model = models.first(where: { $0.repository.name.hasSameBytes(as: name) }) else {
                throw UnknownModelError(name: name, near: near(name), folder: folder)
            }
            return model
        }
    }

    func remove(_ names: [String]) throws {
        for model in try named(names) {
            try model.remove()
            Console.error("removed \(model.repository) (\(ByteCount.text(model.byteCount)))")
        }
    }

    /// Up to three names that differ little from `name`, whole or without the owner, or that hold it.
    private func near(_ name: String) -> [String] {
        let wanted = name.lowercased()
        guard !wanted.isEmpty else { return [] }
        let distances = models.map(\.repository.name).map { known in
            let (whole, last) = (known.lowercased(), known.split(separator: "/").last.map { $0.lowercased() } ?? "")
            let distance = whole.contains(wanted) ? 0 : min(editDistance(wanted, whole), editDistance(wanted, last))
            return (name: known, distance: distance)
        }
        return distances.filter { $0.distance <= max(2, wanted.count / 4) }
            .sorted { ($0.distance, $0.name) < ($1.distance, $1.name) }.prefix(3).map(\.name)
    }
}
