import Foundation
import NibbleHub
import NibbleTestSupport
import Testing

/// What cannot be had, and what the errors say.
@Suite struct HubErrorTests {
    let fixture: HubFixture

    init() async throws { fixture = try await HubFixture() }

    private func failure(
        _ files: [String] = ["config.json"], of name: String = HubFixture.name, revision: String = "main",
        _ edit: (inout HubConfiguration) -> Void = { _ in }
    ) async -> HubError? {
        var configuration = fixture.configuration
        configuration.retries = 0
        edit(&configuration)
        return await #expect(throws: HubError.self) {
            try await HubSession.run(configuration) { hub in
                let snapshot = try await hub.snapshot(of: HubRepository(name)!, revision: revision)
                try await hub.fetch(files, of: snapshot)
            }
        }
    }

    @Test func unknownRepository() async {
        let error = await failure(of: "owner/misspelled")
        #expect(
            error == .repositoryNotFound(HubRepository("owner/misspelled")!, endpoint: fixture.server.endpoint, sentToken: false))
        #expect(error?.description.contains("check the spelling") == true)
    }

    @Test func privateRepository() async throws {
        fixture.server.change(HubFixture.name) { $0.privateToken = "right" }
        #expect(await failure() == .repositoryNotFound(fixture.repository, endpoint: fixture.server.endpoint, sentToken: false))
        #expect(
            await failure { $0.token = "wrong" }
                == .repositoryNotFound(fixture.repository, endpoint: fixture.server.endpoint, sentToken: true))
        var configuration = fixture.configuration
        configuration.token = "right"
        _ = try await fixture.fetch(["config.json"], configuration)
    }

    @Test func gatedRepository() async throws {
        fixture.server.change(HubFixture.name) { $0.gate = "right" }
        let without = await failure()
        #expect(without == .gated(fixture.repository, endpoint: fixture.server.endpoint, sentToken: false))
        #expect(
            without?.description.contains("\(fixture.server.endpoint)/owner/tiny-model, then put an access token in HF_TOKEN")
                == true)
        #expect(
            await failure { $0.token = "wrong" } == .gated(fixture.repository, endpoint: fixture.server.endpoint, sentToken: true)
        )
        var configuration = fixture.configuration
        configuration.token = "right"
        _ = try await fixture.fetch(["config.json"], configuration)
    }

    @Test func refusedToken() async {
        #expect(await failure { $0.token = "expired" } == .tokenRefused(fixture.repository, endpoint: fixture.server.endpoint))
    }

    @Test func unknownRevision() async {
        #expect(await failure(revision: "v9") == .revisionNotFound(fixture.repository, revision: "v9"))
        #expect(await failure(revision: "../main") == .invalidRevision("../main"))
    }

    @Test func unknownFile() async {
        #expect(await failure(["weights.bin"]) == .fileNotFound("weights.bin", fixture.repository, revision: "main"))
    }

    @Test(
        "names that would leave the folder are refused",
        arguments: ["../../escape", "/etc/passwd", "a//b", "a/../b", "a\\b", "."])
    func unsafeNames(name: String) async {
        #expect(await failure([name]) == .unsafeName(name, fixture.repository))
    }

    @Test func serverTrouble() async {
        fixture.server.trouble("/revision/main", .status(500))
        guard case .refused(_, 500, _)? = await failure() else {
            Issue.record("expected status 500")
            return
        }
        fixture.server.trouble("/revision/main", .status(403))
        #expect(await failure() == .forbidden(fixture.repository, message: ""))
        fixture.server.trouble("config.json", .status(429))
        guard case .refused(_, 429, _)? = await failure() else {
            Issue.record("expected status 429")
            return
        }
        fixture.server.trouble("/revision/main", .cut(after: 20))
        guard case .unreachable? = await failure() else {
            Issue.record("expected no answer")
            return
        }
    }

    @Test("redirects without end") func circle() async {
        let path = fixture.server.endpoint + "/api/models/owner/tiny-model/revision/main"
        for _ in 0..<12 { fixture.server.trouble("/revision/main", .elsewhere(path)) }
        guard case .unexpectedAnswer? = await failure() else {
            Issue.record("expected an error")
            return
        }
    }

    @Test("an answer that never ends is left", arguments: ["200 OK", "403 Forbidden"]) func endless(status: String) async throws {
        let server = try await EndlessServer(status)
        #expect(await failure { $0.endpoint = server.endpoint } != nil)
        try await server.stop()
    }

    @Test func nobodyThere() async throws {
        try await fixture.server.stop()
        let error = await failure()
        guard case .unreachable(_, _, let reason)? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(reason == "Connection refused")
    }

    @Test("addresses that are none", arguments: ["", "hub", "ftp://hub", "http://"]) func endpoint(text: String) async {
        #expect(await failure { $0.endpoint = text } == .invalidEndpoint(text))
    }

    // MARK: Without a network

    @Test("offline, the cache answers and no request is made") func offline() async throws {
        _ = try await fixture.fetch(["config.json"])
        fixture.server.forgetRequests()
        var configuration = fixture.configuration
        configuration.isOffline = true
        #expect(try await fixture.fetch(["config.json"], configuration).path == fixture.snapshot.path)
        #expect(
            try await fixture.fetch(["config.json"], revision: fixture.snapshot.lastPathComponent, configuration).path
                == fixture.snapshot.path)
        #expect(fixture.server.requests.isEmpty)
        let part = await failure(["model.safetensors"]) { $0.isOffline = true }
        guard case .notCached("model.safetensors", _, "main", _)? = part else {
            Issue.record("\(String(describing: part))")
            return
        }
        let other = await failure(revision: "v1.0") { $0.isOffline = true }
        guard case .offline(_, "v1.0", _)? = other else {
            Issue.record("\(String(describing: other))")
            return
        }
    }

    @Test("a server that is away or unwell leaves the cache") func fallback() async throws {
        _ = try await fixture.fetch(["config.json"])
        var configuration = fixture.configuration
        configuration.retries = 0
        fixture.server.trouble("/revision/main", .status(503))
        _ = try await fixture.fetch(["config.json"], configuration)
        try await fixture.server.stop()
        _ = try await fixture.fetch(["config.json"], configuration)
        let reason = try await HubSession.run(configuration) {
            try await $0.snapshot(of: HubRepository(HubFixture.name)!).isCachedBecause
        }
        #expect(reason?.contains("cannot be reached") == true)
    }
}

@Suite struct HubConfigurationTests {
    private static func cache(_ environment: [String: String]) -> String {
        HubConfiguration(environment: environment.merging(["HOME": "/home/me"]) { given, _ in given }).cacheFolder.path
    }

    @Test(
        "the cache's folder",
        arguments: [
            ([:], "/home/me/.cache/huggingface/hub"), (["XDG_CACHE_HOME": "/x"], "/x/huggingface/hub"),
            (["XDG_CACHE_HOME": "/x", "HF_HOME": "/hf"], "/hf/hub"), (["HF_HOME": "~/hf"], "/home/me/hf/hub"),
            (["HF_HOME": "$DATA/${WHO}/$NONE", "DATA": "/d", "WHO": "w"], "/d/w/$NONE/hub"),
            (["HF_HOME": "/hf", "HUGGINGFACE_HUB_CACHE": "/old"], "/old"),
            (["HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "/new"], "/new"),
            (["HF_HOME": ""], "/home/me/.cache/huggingface/hub"),
        ] as [([String: String], String)])
    func folder(environment: [String: String], expected: String) { #expect(Self.cache(environment) == expected) }

    @Test func switches() {
        let plain = HubConfiguration(environment: ["HOME": "/nowhere"])
        #expect(plain.endpoint == "https://huggingface.co" && !plain.isOffline && plain.token == nil && plain.usesSymlinks)
        let set = HubConfiguration(environment: [
            "HOME": "/nowhere", "HF_ENDPOINT": "http://mirror:1/", "TRANSFORMERS_OFFLINE": "yes", "HF_HUB_DISABLE_SYMLINKS": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "On", "HF_HUB_DOWNLOAD_TIMEOUT": "30", "HF_TOKEN": " t\n",
        ])
        #expect(set.endpoint == "http://mirror:1" && set.isOffline && !set.usesSymlinks && !set.showsProgress)
        #expect(set.downloadTimeout == .seconds(30) && set.token == "t")
        #expect(!HubConfiguration(environment: ["HF_HUB_OFFLINE": "0"]).isOffline)
        #expect(HubConfiguration(environment: ["HF_TOKEN": "t", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"]).token == nil)
    }

    @Test func tokenFile() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        try Data("from-file\n".utf8).write(to: folder.appending(path: "token"))
        #expect(HubConfiguration(environment: ["HF_HOME": folder.path]).token == "from-file")
        #expect(HubConfiguration(environment: ["HF_HOME": folder.path, "HUGGING_FACE_HUB_TOKEN": "old"]).token == "old")
        #expect(
            HubConfiguration(environment: ["HF_HOME": "/nowhere", "HF_TOKEN_PATH": folder.path + "/token"]).token == "from-file")
    }

    @Test func proxy() {
        func proxy(_ environment: [String: String]) -> String? { HubConfiguration(environment: environment).proxy }
        #expect(proxy(["https_proxy": "http://p:3128"]) == "http://p:3128")
        #expect(proxy(["http_proxy": "http://p:3128"]) == nil)
        #expect(proxy(["HTTPS_PROXY": "http://p:3128", "NO_PROXY": "a.b, .huggingface.co"]) == nil)
        #expect(proxy(["ALL_PROXY": "http://p:3128", "HF_ENDPOINT": "http://127.0.0.1:80"]) == nil)
    }

    @Test(
        "names of repositories",
        arguments: [
            ("gpt2", true), ("owner/name", true), ("Owner-1/na_me.v2", true), ("a/b/c", false), ("/a", false), ("a/", false),
            ("", false),
            ("a--b/c", false), ("a..b", false), ("../a", false), ("./a", false), ("-a/b", false), ("a b", false), ("ä/b", false),
            ("a/b.git", false),
            ("a/" + String(repeating: "x", count: 95), false), ("~/model", false), ("http://a", false),
        ])
    func names(name: String, isValid: Bool) { #expect((HubRepository(name) != nil) == isValid) }
}
