import Foundation
import NibbleHub
import NibbleTestSupport

/// A server, an empty cache, and a model of small files.
final class HubFixture: Sendable {
    let server: HubServer
    let root: URL
    static let name = "owner/tiny-model"

    init() async throws {
        server = try await HubServer()
        root = try Fixtures.temporaryFolder()
        server.add(.init(files: Self.files), as: Self.name)
    }

    deinit { try? FileManager.default.removeItem(at: root) }

    /// Names tell what the files stand for; their contents are no model.
    static let files: [String: HubServer.File] = [
        "config.json": text("{\"model_type\": \"bloom\"}"),
        "generation_config.json": text("{}"),
        "tokenizer.json": text("{\"version\": \"1.0\"}"),
        "tokenizer.model": .init(content: pattern(500), isLarge: true),
        "tokenizer_config.json": text("{}"),
        "additional_chat_templates/tool.jinja": text("{{ messages }}"),
        "model.safetensors": .init(content: pattern(300_000), isLarge: true),
        "pytorch_model.bin": .init(content: pattern(1000), isLarge: true),
        "README.md": text("# Tiny"),
        "onnx/model.onnx": .init(content: pattern(900), isLarge: true),
    ]

    static func text(_ text: String) -> HubServer.File { .init(content: Array(text.utf8)) }

    static func pattern(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ ($0 >> 8)) } }

    var configuration: HubConfiguration {
        var configuration = HubConfiguration(cacheFolder: root.appending(path: "hub"))
        configuration.endpoint = server.endpoint
        configuration.retryDelay = .milliseconds(2)
        // Other tests may keep all threads busy for minutes.
        configuration.metadataTimeout = .seconds(600)
        configuration.downloadTimeout = .seconds(600)
        return configuration
    }

    var repository: HubRepository { HubRepository(Self.name)! }

    var repositoryFolder: URL { root.appending(path: "hub/models--owner--tiny-model") }

    var snapshot: URL { repositoryFolder.appending(path: "snapshots/0123456789abcdef0123456789abcdef01234567") }

    /// Fetches `files` of the model.
    func fetch(
        _ files: [String], revision: String = "main", _ configuration: HubConfiguration? = nil,
        progress: (@Sendable (DownloadProgress) -> Void)? = nil
    ) async throws -> URL {
        try await HubSession.run(configuration ?? self.configuration) { hub in
            let snapshot = try await hub.snapshot(of: HubRepository(Self.name)!, revision: revision)
            try await hub.fetch(files, of: snapshot, progress: progress)
            try hub.publish(snapshot)
            return snapshot.folder
        }
    }

    func bytes(_ path: String) throws -> [UInt8] { Array(try Data(contentsOf: snapshot.appending(path: path))) }

    func listing(_ folder: String) -> [String] {
        ((try? FileManager.default.subpathsOfDirectory(atPath: repositoryFolder.appending(path: folder).path)) ?? []).sorted()
    }
}
