import Foundation
import NibbleHub
import NibbleTestSupport
import Testing

/// Servers that answer almost as the Hub does.
@Suite struct MirrorTests {
    let fixture: HubFixture

    init() async throws { fixture = try await HubFixture() }

    private static let md5 = "d41d8cd98f00b204e9800998ecf8427e"

    @Test(
        "an ETag that is not a hash says nothing about the content",
        arguments: [
            "\"\(md5)\"", "W/\"\(md5)\"", "\"0123456789abcdef0123456789abcdef01234567-gzip\"", "\"abc+/d==\"", "\"5f-18b\"",
            "\"any text, even \u{E9}\"", "unquoted", "\"\"", "\"../../escape\"", "\"\(String(repeating: "x", count: 300))\"",
            "\"ABCDEF0123456789ABCDEF0123456789ABCDEF01\"",
        ])
    func opaqueTags(tag: String) async throws {
        // The same tag for two files must not make them one.
        fixture.server.change(HubFixture.name) { repository in
            for name in ["config.json", "generation_config.json", "tokenizer_config.json"] { repository.files[name]?.tag = tag }
        }
        let names = ["config.json", "generation_config.json", "tokenizer_config.json"]
        _ = try await fixture.fetch(names)
        for name in names { #expect(try fixture.bytes(name) == HubFixture.files[name]?.content) }
        #expect(fixture.listing("blobs").allSatisfy { !$0.contains("/") && $0.count == 64 })
        fixture.server.forgetRequests()
        _ = try await fixture.fetch(names)
        #expect(fixture.server.requests.count == 1)
    }

    @Test("the SHA-1 of the content is a hash, too") func plainSHA1() async throws {
        // sha1sum of the content, as some mirrors state it.
        fixture.server.change(HubFixture.name) { $0.files["config.json"]?.tag = "\"c5c5333fabb8e4e572b19cfaf03553c8e239e5cb\"" }
        _ = try await fixture.fetch(["config.json"])
        #expect(fixture.listing("blobs") == ["c5c5333fabb8e4e572b19cfaf03553c8e239e5cb"])
        fixture.server.change(HubFixture.name) {
            $0.files["tokenizer.json"]?.tag = "\"c5c5333fabb8e4e572b19cfaf03553c8e239e5cc\""
        }
        let error = await #expect(throws: HubError.self) { try await fixture.fetch(["tokenizer.json"]) }
        guard case .wrongContent? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    @Test("an opaque tag of a new commit is another content") func newCommit() async throws {
        fixture.server.change(HubFixture.name) { $0.files["config.json"]?.tag = "\"1\"" }
        _ = try await fixture.fetch(["config.json"])
        fixture.server.change(HubFixture.name) {
            $0.commit = String(repeating: "ab", count: 20)
            $0.files["config.json"]?.content = Array("{\"model_type\": \"llama\"}".utf8)
        }
        let folder = try await fixture.fetch(["config.json"])
        #expect(try String(contentsOf: folder.appending(path: "config.json"), encoding: .utf8).contains("llama"))
    }

    @Test(
        "a name that is not a plain path costs that file only",
        arguments: ["a//b", "../../escape", "/etc/passwd", "a/../b", ".", "./x", "../\u{338}y"])
    func oddNames(name: String) async throws {
        fixture.server.change(HubFixture.name) { $0.files[name] = HubFixture.text("x") }
        _ = try await fixture.fetch(["config.json"])
        let files = try await HubSession.run(fixture.configuration) { try await $0.snapshot(of: fixture.repository).files }
        #expect(Set(files) == Set(HubFixture.files.keys))
        let error = await #expect(throws: HubError.self) { try await fixture.fetch([name]) }
        #expect(error == .unsafeName(name, fixture.repository))
    }
}
