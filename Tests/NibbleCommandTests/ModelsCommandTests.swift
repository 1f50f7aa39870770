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

    @Test("remove takes names; a wrong one suggests the near ones")
    func removeByName() throws {
        defer { try? FileManager.default.removeItem(at: home) }
        for (name, near) in [("owner/smal", "owner/small"), ("larg", "owner/large"), ("onwer/small", "owner/small")] {
            let wrong = try run("remove", "old", name)
            #expect(wrong.status == 1)
            #expect(wrong.errors == "Error: \"\(name)\" is not in the cache \(home.path): did you mean \(near)?\n")
        }
        let far = try run("remove", "somebody/else")
        #expect(far.errors == "Error: \"somebody/else\" is not in the cache \(home.path); nibble models lists what is\n")
        let outcome = try run("remove", "old", "owner/small")
        #expect(outcome.status == 0 && outcome.errors == "removed old (1 B)\nremoved owner/small (300 B)\n")
        #expect(try run("list").output == "  70.00 KB  owner/large (0123)\n")
    }

    @Test("files of several names count once; unfinished downloads and revisions are shown")
    func notes() throws {
        defer { try? FileManager.default.removeItem(at: home) }
        let folder = home.appending(path: "models--owner--large")
        try FileManager.default.linkItem(
            at: folder.appending(path: "blobs/b"), to: folder.appending(path: "snapshots/0123/copy.safetensors"))
        try Data(count: 2000).write(to: folder.appending(path: "blobs/c.incomplete"))
        try FileManager.default.createDirectory(at: folder.appending(path: "refs/pr"), withIntermediateDirectories: true)
        for name in ["main", "pr/1"] { try Data("0123".utf8).write(to: folder.appending(path: "refs/\(name)")) }
        let text = try run().output
        #expect(text.contains("  72.01 KB  owner/large (main, pr/1; 2.00 KB are an unfinished download)\n"), "\(text)")
        let json = try JSONValue.parse(String(try run("--json").output.split(separator: "\n")[1]))
        #expect(json["bytes"] == .int(72_008) && json["unfinished_bytes"] == .int(2000))
        #expect(json["revisions"] == .array([.string("main"), .string("pr/1")]))
    }

    @Test("a cache that is a file is an error")
    func noFolder() throws {
        defer { try? FileManager.default.removeItem(at: home) }
        let file = home.appending(path: "file")
        try Data().write(to: file)
        let outcome = try CommandLineTool.run(["models"], environment: ["HF_HUB_CACHE": file.path])
        #expect(outcome.status == 1 && outcome.errors == "Error: \(file.path) cannot be listed: not a directory\n")
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
