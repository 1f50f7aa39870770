import Foundation
import NibbleCore
import NibbleTestSupport
import Testing

/// `nibble models` on a cache of files.
@Suite(.computing) struct ModelsCommandTests {
    private let home: URL

    init() throws {
        home = try Fixtures.temporaryFolder()
        try make("models--owner--small", blob: 300)
        try make("models--owner--large", blob: 70_000)
        try make("models--old", blob: 1)
        for other in ["datasets--owner--data", "models--..--x", "version.txt"] {
            try FileManager.default.createDirectory(at: home.appending(path: other), withIntermediateDirectories: true)
        }
    }

    private func make(_ name: String, blob: Int) throws {
        let folder = home.appending(path: name)
        for part in ["blobs", "snapshots/0123"] {
            try FileManager.default.createDirectory(at: folder.appending(path: part), withIntermediateDirectories: true)
        }
        try Data(count: blob).write(to: folder.appending(path: "blobs/b"))
        try FileManager.default.createSymbolicLink(
            atPath: folder.appending(path: "snapshots/0123/model.safetensors").path, withDestinationPath: "../../blobs/b")
    }

    private func run(_ arguments: String...) throws -> CommandLineTool.Outcome {
        try CommandLineTool.run(["models"] + arguments, environment: ["HF_HUB_CACHE": home.path])
    }

    @Test("models are listed with the bytes of their files, each once")
    func list() throws {
        defer { try? FileManager.default.removeItem(at: home) }
        let lines = try run("--json").output.split(separator: "\n").map { try JSONValue.parse(String($0)) }
        #expect(lines.map { $0["name"]?.string } == ["old", "owner/large", "owner/small"])
        #expect(lines.map { $0["bytes"]?.int } == [1, 70_000, 300])
        let text = try run().output
        #expect(text.split(separator: "\n").count == 3 && text.contains("owner/large"))
    }

    @Test("a model is removed by its name; a wrong name removes nothing")
    func remove() throws {
        defer { try? FileManager.default.removeItem(at: home) }
        let wrong = try run("--remove", "owner/small", "--remove", "owner/none")
        #expect(wrong.status == 1 && wrong.errors.contains("owner/none"))
        #expect(try run().output.contains("owner/small"))
        let outcome = try run("--remove", "owner/small")
        #expect(outcome.status == 0 && outcome.output.isEmpty && outcome.errors.contains("owner/small"))
        #expect(try run().output.split(separator: "\n").count == 2)
        let left = try FileManager.default.contentsOfDirectory(atPath: home.path)
        #expect(!left.contains { $0.contains("small") || $0.hasPrefix(".removed") })
    }

    @Test("an empty cache is said to be empty")
    func empty() throws {
        try FileManager.default.removeItem(at: home)
        let outcome = try run()
        #expect(outcome.status == 0 && outcome.output.isEmpty && outcome.errors.contains(home.path))
    }

    @Test("pull wants a name of the Hub")
    func pull() throws {
        defer { try? FileManager.default.removeItem(at: home) }
        let outcome = try CommandLineTool.run(["pull", "../model"], environment: ["HF_HUB_CACHE": home.path])
        #expect(outcome.status == 64 && outcome.errors.contains("owner/name"))
    }
}
