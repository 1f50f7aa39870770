import Foundation
import NibbleHub
import Testing

@Suite struct DownloadTests {
    let fixture: HubFixture

    init() async throws { fixture = try await HubFixture() }

    @Test("a download leaves blobs, relative links, the ref and nothing else") func layout() async throws {
        let folder = try await fixture.fetch(["config.json", "model.safetensors", "additional_chat_templates/tool.jinja"])
        #expect(folder.path == fixture.snapshot.path)
        for name in ["config.json", "model.safetensors", "additional_chat_templates/tool.jinja"] {
            #expect(try fixture.bytes(name) == HubFixture.files[name]?.content)
        }
        let etags = ["config.json", "model.safetensors", "additional_chat_templates/tool.jinja"].compactMap {
            HubFixture.files[$0]?.etag
        }
        #expect(fixture.listing("blobs") == etags.sorted())
        let manager = FileManager.default
        let link = try manager.destinationOfSymbolicLink(atPath: folder.appending(path: "model.safetensors").path)
        #expect(link == "../../blobs/\(etags[1])")
        let deep = try manager.destinationOfSymbolicLink(
            atPath: folder.appending(path: "additional_chat_templates/tool.jinja").path)
        #expect(deep == "../../../blobs/\(etags[2])")
        #expect(
            try String(contentsOf: fixture.repositoryFolder.appending(path: "refs/main"), encoding: .utf8)
                == folder.lastPathComponent)
        let tag = try String(contentsOf: fixture.root.appending(path: "hub/CACHEDIR.TAG"), encoding: .utf8)
        #expect(tag.hasPrefix("Signature: 8a477f597d28d172789f06886806bc55"))
    }

    @Test("what is there is not asked for again") func second() async throws {
        _ = try await fixture.fetch(["config.json", "model.safetensors"])
        fixture.server.forgetRequests()
        _ = try await fixture.fetch(["config.json", "model.safetensors"])
        #expect(fixture.server.requests.map(\.path) == ["/api/models/owner/tiny-model/revision/main"])
    }

    @Test("a new commit keeps the old one's blobs, and the ref follows") func newCommit() async throws {
        _ = try await fixture.fetch(["config.json", "model.safetensors"])
        let commit = String(repeating: "ab", count: 20)
        fixture.server.change(HubFixture.name) {
            $0.commit = commit
            $0.files["config.json"] = HubFixture.text("{\"model_type\": \"gpt2\"}")
        }
        fixture.server.forgetRequests()
        let folder = try await fixture.fetch(["config.json", "model.safetensors"])
        #expect(folder.lastPathComponent == commit)
        #expect(fixture.server.requests.filter { $0.method == "GET" && $0.path.contains("model.safetensors") }.isEmpty)
        #expect(try Data(contentsOf: folder.appending(path: "config.json")).count == 22)
        #expect(try String(contentsOf: fixture.repositoryFolder.appending(path: "refs/main"), encoding: .utf8) == commit)
    }

    @Test("the token goes to the hub, never to where it redirects") func token() async throws {
        var configuration = fixture.configuration
        configuration.token = "secret-token"
        _ = try await fixture.fetch(["config.json", "model.safetensors"], configuration)
        let (storage, hub) = (fixture.server.requests.filter(\.isStorage), fixture.server.requests.filter { !$0.isStorage })
        #expect(storage.count == 1)
        #expect(storage.allSatisfy { $0.authorization == nil })
        #expect(hub.allSatisfy { $0.authorization == "Bearer secret-token" })
    }

    @Test(
        "breaks, full servers and servers that cannot continue are made good",
        arguments: [
            [.cut(after: 100_000)], [.cut(after: 0), .cut(after: 10), .cut(after: 0)],
            [.status(429, headers: [("Retry-After", "0")])], [.status(500), .status(502), .status(503), .status(504)],
            [.status(408)],
            [.cut(after: 70_000), .wholeFile], [.cut(after: 70_000), .status(416)],
            Array(repeating: .cut(after: 20_000), count: 12),
        ] as [[HubServer.Trouble]])
    func troubles(troubles: [HubServer.Trouble]) async throws {
        for trouble in troubles { fixture.server.trouble("model.safetensors", trouble) }
        _ = try await fixture.fetch(["model.safetensors"])
        #expect(try fixture.bytes("model.safetensors") == HubFixture.files["model.safetensors"]?.content)
    }

    @Test("questions are asked again, too") func listingTroubles() async throws {
        fixture.server.trouble("/revision/main", .status(503), .cut(after: 5), .status(429))
        fixture.server.trouble("config.json", .status(500))
        _ = try await fixture.fetch(["config.json"])
        #expect(try fixture.bytes("config.json") == HubFixture.files["config.json"]?.content)
    }

    @Test(
        "a file that is not what was announced never gets into the cache",
        arguments: [
            ("model.safetensors", .shortened(by: 3), "announced 300000 bytes and sent 299997"),
            ("model.safetensors", .altered, "the content's hash is"),
            ("config.json", .altered, "the content's hash is"), ("config.json", .shortened(by: 1), "and sent 22"),
        ] as [(String, HubServer.Trouble, String)])
    func wrong(file: String, trouble: HubServer.Trouble, message: String) async throws {
        fixture.server.trouble(file, trouble)
        let error = await #expect(throws: HubError.self) { try await fixture.fetch([file]) }
        switch error {
        case .wrongLength?, .wrongContent?: break
        default: Issue.record("\(String(describing: error))")
        }
        #expect(error?.description.contains(message) == true, "\(error?.description ?? "")")
        #expect(fixture.listing("blobs").isEmpty)
        #expect(fixture.listing("snapshots").filter { $0.hasSuffix(".json") || $0.hasSuffix(".safetensors") }.isEmpty)
        #expect(fixture.listing("refs").isEmpty)
        // The next time goes well.
        _ = try await fixture.fetch([file])
        #expect(try fixture.bytes(file) == HubFixture.files[file]?.content)
    }

    @Test("what an earlier run left is continued", arguments: [1, 150_000, 299_999, 300_000]) func resume(count: Int) async throws
    {
        let file = try #require(HubFixture.files["model.safetensors"])
        try leave(Array(file.content[..<count]), of: file)
        _ = try await fixture.fetch(["model.safetensors"])
        #expect(try fixture.bytes("model.safetensors") == file.content)
        #expect(fixture.server.requests.filter(\.isStorage).map(\.range) == (count < 300_000 ? ["bytes=\(count)-"] : []))
    }

    @Test("what an earlier run left is thrown away where it is wrong", arguments: [150_000, 300_000, 300_001, 400_000])
    func badRemains(count: Int) async throws {
        let file = try #require(HubFixture.files["model.safetensors"])
        try leave([UInt8](repeating: 7, count: count), of: file)
        _ = try await fixture.fetch(["model.safetensors"])
        #expect(try fixture.bytes("model.safetensors") == file.content)
        #expect(fixture.listing("blobs") == [file.etag])
    }

    private func leave(_ bytes: [UInt8], of file: HubServer.File) throws {
        let blobs = fixture.repositoryFolder.appending(path: "blobs")
        try FileManager.default.createDirectory(at: blobs, withIntermediateDirectories: true)
        try Data(bytes).write(to: blobs.appending(path: file.etag + ".incomplete"))
    }

    @Test("a download given up is continued by the next run") func givenUp() async throws {
        var configuration = fixture.configuration
        configuration.retries = 1
        fixture.server.trouble("model.safetensors", .cut(after: 120_000), .status(500), .status(500))
        let error = await #expect(throws: HubError.self) { try await fixture.fetch(["model.safetensors"], configuration) }
        guard case .refused(_, 500, _)? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(fixture.listing("blobs").map { $0.hasSuffix(".incomplete") } == [true])
        fixture.server.forgetRequests()
        _ = try await fixture.fetch(["model.safetensors"])
        #expect(fixture.server.requests.filter(\.isStorage).first?.range?.hasPrefix("bytes=") == true)
        #expect(try fixture.bytes("model.safetensors") == HubFixture.files["model.safetensors"]?.content)
    }

    @Test("two downloads at once fetch every byte once") func concurrent() async throws {
        fixture.server.delay(.milliseconds(100))
        async let first = fixture.fetch(["model.safetensors", "config.json"])
        async let second = fixture.fetch(["config.json", "model.safetensors"])
        _ = try await (first, second)
        #expect(fixture.server.requests.filter(\.isStorage).count == 1)
        #expect(try fixture.bytes("model.safetensors") == HubFixture.files["model.safetensors"]?.content)
        #expect(fixture.listing("blobs").count == 2)
    }

    @Test("without links the snapshot holds the files themselves") func withoutSymlinks() async throws {
        var configuration = fixture.configuration
        configuration.usesSymlinks = false
        let folder = try await fixture.fetch(["config.json", "model.safetensors"], configuration)
        #expect(fixture.listing("blobs").isEmpty)
        #expect((try? FileManager.default.destinationOfSymbolicLink(atPath: folder.appending(path: "config.json").path)) == nil)
        #expect(try fixture.bytes("model.safetensors") == HubFixture.files["model.safetensors"]?.content)
    }

    @Test("files of one content share a blob") func sharedBlob() async throws {
        fixture.server.change(HubFixture.name) { $0.files["copy.safetensors"] = $0.files["model.safetensors"] }
        _ = try await fixture.fetch(["model.safetensors", "copy.safetensors"])
        #expect(fixture.listing("blobs").count == 1)
        #expect(try fixture.bytes("copy.safetensors") == fixture.bytes("model.safetensors"))
        #expect(fixture.server.requests.filter(\.isStorage).count == 1)
    }

    @Test("empty files") func emptyFile() async throws {
        fixture.server.change(HubFixture.name) { $0.files["empty.txt"] = HubFixture.text("") }
        _ = try await fixture.fetch(["empty.txt"])
        #expect(try fixture.bytes("empty.txt").isEmpty)
    }

    @Test("branches, tags and commits", arguments: ["v1.0", "refs/pr/1", "0123456789abcdef0123456789abcdef01234567"])
    func revisions(revision: String) async throws {
        fixture.server.change(HubFixture.name) { $0.revisions += ["v1.0", "refs/pr/1"] }
        _ = try await fixture.fetch(["config.json"], revision: revision)
        let isCommit = revision.hasPrefix("0123")
        #expect(fixture.listing("refs").contains(revision) == !isCommit)
        #expect(try fixture.bytes("config.json") == HubFixture.files["config.json"]?.content)
    }

    @Test("progress grows to the whole") func progress() async throws {
        let seen = Log<DownloadProgress>()
        fixture.server.trouble("model.safetensors", .cut(after: 50_000))
        _ = try await fixture.fetch(["config.json", "model.safetensors"], progress: { seen.add($0) })
        let total = 300_000 + (HubFixture.files["config.json"]?.content.count ?? 0)
        #expect(seen.all.last == DownloadProgress(bytes: total, totalBytes: total))
        #expect(seen.all.map(\.bytes) == seen.all.map(\.bytes).sorted())
    }
}
