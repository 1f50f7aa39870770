import Foundation
import NibbleHub
import NibbleTestSupport
import Testing

/// Tokens and passwords must not appear in errors, in logs or at other hosts.
@Suite struct SecretsTests {
    let fixture: HubFixture

    init() async throws { fixture = try await HubFixture() }

    private func failure(_ edit: (inout HubConfiguration) -> Void) async -> HubError? {
        var configuration = fixture.configuration
        configuration.retries = 0
        edit(&configuration)
        return await #expect(throws: HubError.self) { try await fixture.fetch(["config.json"], configuration) }
    }

    @Test(
        "a token that no header can carry is refused before it is sent",
        arguments: ["hf_a\nX: hf_b", "hf_a\r\nhf_b", "hf a", "hf_\u{E9}", "a\0b"])
    func invalidToken(token: String) async {
        let error = await failure { $0.token = token }
        #expect(error == .invalidToken)
        #expect(error?.description.contains("hf") == false)
        #expect(fixture.server.requests.isEmpty)
    }

    @Test("white space around a token is cut off", arguments: [" hf_t\n", "hf_t\r\n", "\thf_t"]) func trimmedToken(token: String)
        async throws
    {
        var configuration = fixture.configuration
        configuration.token = token
        _ = try await fixture.fetch(["config.json"], configuration)
        #expect(fixture.server.requests.allSatisfy { $0.authorization == "Bearer hf_t" })
        configuration.token = " \n"
        fixture.server.forgetRequests()
        _ = try await fixture.fetch(["tokenizer.json"], configuration)
        #expect(fixture.server.requests.allSatisfy { $0.authorization == nil })
    }

    @Test("a token that a server repeats is not shown", arguments: [403, 418, 503]) func echo(status: Int) async {
        fixture.server.trouble("/revision/main", .status(status, headers: [("X-Error-Message", "bad token hf_secret")]))
        let error = await failure { $0.token = "hf_secret" }
        #expect(error?.description.contains("bad token") == true)
        #expect(error?.description.contains("hf_secret") == false)
        #expect(error?.description.unicodeScalars.allSatisfy { $0.value >= 0x20 } == true)
    }

    @Test("user and password of the endpoint are not shown") func endpoint() async throws {
        let address = fixture.server.endpoint.replacing("://", with: "://me:hidden@")
        fixture.server.trouble("/revision/main", .status(404, headers: [("X-Error-Code", "RepoNotFound")]))
        let first = await failure { $0.endpoint = address }
        try await fixture.server.stop()
        let second = await failure { $0.endpoint = address }
        let third = await failure { $0.endpoint = "ftp://me:hidden@host" }
        for error in [first, second, third] {
            #expect(error != nil && error?.description.contains("hidden") == false, "\(error?.description ?? "")")
        }
    }

    @Test(
        "addresses as errors show them",
        arguments: [
            ("https://a/b", "https://a/b"), ("https://u:p@a/b", "https://a/b"), ("https://a/b?s=1", "https://a/b"),
            ("https://u:p@x@a:1/b?s=1#f", "https://a:1/b"), ("https://a/b@c", "https://a/b@c"), ("", ""), ("hub", "hub"),
        ])
    func addresses(text: String, expected: String) { #expect(text.publicAddress == expected) }

    @Test("a redirect to another host carries no token, and its signature is not shown") func redirect() async throws {
        let other = try await HubServer()
        fixture.server.trouble(
            "/revision/main", .elsewhere(other.endpoint + "/api/models/owner/tiny-model/revision/main?token=hidden"))
        let error = await failure { $0.token = "hf_secret" }
        #expect(other.requests.count == 1 && other.requests[0].authorization == nil)
        #expect(error?.description.contains("hidden") == false)
    }
}
