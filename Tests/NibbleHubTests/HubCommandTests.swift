import Foundation
import NibbleCore
import NibbleHub
import NibbleTestSupport
import Testing

/// The built `nibble` with a model's name in place of a folder.
@Suite(.computing) struct HubCommandTests {
    let fixture: HubFixture

    init() async throws {
        fixture = try await HubFixture()
        let stories = Fixtures.models.appending(path: "bloom-stories")
        var files: [String: HubServer.File] = [:]
        for name in try FileManager.default.contentsOfDirectory(atPath: stories.path) {
            let content = Array(try Data(contentsOf: stories.appending(path: name)))
            files[name] = .init(content: content, isLarge: content.count > 100_000)
        }
        fixture.server.add(.init(files: files, revisions: ["main", "v2"]), as: "owner/stories")
    }

    private func run(_ arguments: [String], _ more: [String: String] = [:], input: String = "") async throws
        -> CommandLineTool.Outcome
    {
        var environment = [
            "HF_HOME": fixture.root.path, "HF_ENDPOINT": fixture.server.endpoint, "HF_TOKEN": "", "HF_HUB_OFFLINE": "",
        ]
        environment.merge(more) { _, given in given }
        // The process is waited for on a thread of its own; the server needs the others.
        return try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread { [environment] in
                continuation.resume(with: Result { try CommandLineTool.run(arguments, input: input, environment: environment) })
            }
        }
    }

    private let generation = ["generate", "owner/stories", "--json", "--quiet", "--max-new-tokens", "3", "Once upon a time"]

    @Test("generate by name, then again without a network") func generate() async throws {
        let online = try await run(generation)
        try #require(online.status == 0, "\(online.errors)")
        #expect(try JSONValue.parse(online.output)["text"]?.string?.hasPrefix("Once upon a time") == true)
        fixture.server.forgetRequests()
        let offline = try await run(generation, ["HF_HUB_OFFLINE": "1"])
        #expect(offline.output == online.output)
        #expect(fixture.server.requests.isEmpty)
    }

    @Test("two processes download one model once") func twoProcesses() async throws {
        fixture.server.delay(.milliseconds(300))
        async let first = run(generation)
        async let second = run(generation)
        let (one, two) = try await (first, second)
        #expect(one.status == 0 && two.status == 0, "\(one.errors) \(two.errors)")
        #expect(one.output == two.output)
        let weights = fixture.server.requests.filter { $0.isStorage && $0.path.contains("model.safetensors") }
        #expect(weights.count == 1)
    }

    @Test("plan downloads config.json only") func plan() async throws {
        let outcome = try await run(["plan", "owner/stories", "--json"])
        try #require(outcome.status == 0, "\(outcome.errors)")
        #expect(fixture.server.requests.filter { $0.method == "GET" && $0.path.contains("/resolve/") }.count == 1)
        #expect(fixture.server.requests.allSatisfy { $0.path.contains("config.json") || $0.path.contains("/api/") })
    }

    @Test("tokenize downloads the tokenizer only") func tokenize() async throws {
        let outcome = try await run(["tokenize", "owner/stories", "--revision", "v2"], input: "a big dog\n")
        try #require(outcome.status == 0, "\(outcome.errors)")
        #expect(!fixture.server.requests.contains { $0.path.contains("model.safetensors") })
        #expect(fixture.server.requests.first?.path == "/api/models/owner/stories/revision/v2")
    }

    @Test("pull downloads what the commands need, once, and prints the folder only") func pull() async throws {
        let first = try await run(["pull", "owner/stories", "--revision", "v2"])
        let commit = "0123456789abcdef0123456789abcdef01234567"
        let folder = fixture.root.path + "/hub/models--owner--stories/snapshots/\(commit)"
        #expect(first.status == 0 && first.output == folder + "\n" && first.errors.isEmpty, "\(first.errors)")
        fixture.server.forgetRequests()
        let second = try await run(["pull", "owner/stories", "--revision", "v2"])
        #expect(second.output == first.output && fixture.server.requests.count == 1)
        let listed = try await run(["models", "--json"])
        let json = try JSONValue.parse(listed.output)
        #expect(json["unfinished_bytes"] == .int(0) && json["revisions"] == .array([.string("v2")]))
        #expect((json["bytes"]?.int ?? 0) > 14_000_000)
    }

    @Test("a folder of the model's name is used as it is, which pull says") func pullOfFolder() async throws {
        let folder = fixture.root.appending(path: "here")
        try FileManager.default.copyItem(at: Fixtures.models.appending(path: "bloom-stories"), to: folder)
        let process = Process()
        process.executableURL = CommandLineTool.url
        process.currentDirectoryURL = fixture.root
        process.arguments = ["pull", "here"]
        let (output, errors) = (Pipe(), Pipe())
        process.standardOutput = output
        process.standardError = errors
        try process.run()
        process.waitUntilExit()
        let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        #expect(process.terminationStatus == 0)
        #expect(text == "warning: here is here already, and every command uses that: nothing is downloaded\n")
    }

    @Test(
        "mistakes are one clear line",
        arguments: [
            (["plan", "owner/storys"], [:], "owner/storys is neither a folder here nor a model on"),
            (["plan", "owner/stories", "--revision", "v9"], [:], "owner/stories has no revision \"v9\""),
            (["plan", "owner/stories"], ["HF_HUB_OFFLINE": "1"], "HF_HUB_OFFLINE keeps the network off"),
            (
                ["plan", "owner/stories"], ["HF_ENDPOINT": "http://127.0.0.1:1"],
                "http://127.0.0.1:1 cannot be reached (Connection refused)"
            ),
            (["plan", "models/owner/stories"], [:], "neither a folder, nor a GGUF file, nor the name of a model on the Hub"),
            (["generate", "owner/stories", "--variant", "fp16", "--quiet", "Hello"], [:], "leave out the variant fp16"),
        ] as [([String], [String: String], String)])
    func mistakes(arguments: [String], environment: [String: String], message: String) async throws {
        let outcome = try await run(arguments, environment)
        #expect(outcome.status == 1)
        #expect(outcome.errors.contains(message), "\(outcome.errors)")
        #expect(outcome.errors.split(separator: "\n").count == 1, "\(outcome.errors)")
        #expect(outcome.output.isEmpty)
    }

    @Test func doctor() async throws {
        let outcome = try await run(["doctor", "--json"])
        #expect(try JSONValue.parse(outcome.output)["hub"]?["cache"]?.string == fixture.root.path + "/hub")
    }
}
