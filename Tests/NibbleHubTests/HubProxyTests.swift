import Foundation
import NibbleHub
import NibbleTestSupport
import Testing

@Suite struct HubProxyTests {
    @Test(
        "the forms of a proxy variable",
        arguments: [
            ("http://p:3128", "p", 3128, nil, nil), ("p:3128", "p", 3128, nil, nil), ("p", "p", 1080, nil, nil),
            ("http://p", "p", 1080, nil, nil), ("HTTP://p:1/", "p", 1, nil, nil), (" p:8080\n", "p", 8080, nil, nil),
            ("user:word@p:1", "p", 1, "user", "word"), ("http://user@p:1", "p", 1, "user", nil),
            ("http://u%40x:a%3Ab@p:1", "p", 1, "u@x", "a:b"), ("http://u:a@b@p:1", "p", 1, "u", "a@b"),
            ("u:a:b@p", "p", 1080, "u", "a:b"), ("[::1]:8080", "::1", 8080, nil, nil),
            ("http://[fe80::1]", "fe80::1", 1080, nil, nil),
        ] as [(String, String, Int, String?, String?)])
    func forms(text: String, host: String, port: Int, user: String?, password: String?) throws {
        let proxy = try HubProxy(text)
        #expect(proxy.host == host && proxy.port == port && proxy.user == user && proxy.password == password)
    }

    @Test(
        "proxies of another protocol are refused by its name",
        arguments: ["socks", "socks4", "socks4a", "socks5", "SOCKS5h", "https", "ftp"])
    func otherProtocols(scheme: String) {
        let error = #expect(throws: HubError.self) { try HubProxy("\(scheme)://u:hidden@p:1080") }
        #expect(error == .unsupportedProxy(scheme: scheme.lowercased()))
        #expect(error?.description.contains(scheme.lowercased()) == true)
        #expect(error?.description.contains("hidden") == false)
    }

    @Test(
        "texts that are no proxy are not repeated",
        arguments: ["", "http://", "http://u:hidden@", "u:hidden@:80", "p:hidden", "p:0", "p:65536", "p q:1", "[::1:80"])
    func invalid(text: String) {
        let error = #expect(throws: HubError.self) { try HubProxy(text) }
        #expect(error == .invalidProxy)
        #expect(error?.description.contains("hidden") == false)
    }

    @Test(
        "the forms of no_proxy",
        arguments: [
            ("*", "a.b", true), ("", "a.b", false), ("a.b", "a.b", true), ("a.b", "x.a.b", true), ("a.b", "xa.b", false),
            (".a.b", "x.a.b", true), (".a.b", "a.b", true), ("*.a.b", "x.a.b", true), ("*.a.b", "a.b", true),
            ("*.a.b", "xa.b", false), ("q, .a.b ,z", "x.a.b", true), ("q a.b", "a.b", true), ("A.B", "a.b", true),
            ("a.b.", "a.b", true), ("a.b", "A.b.", true), ("a.b:443", "a.b", true), ("a.b:80", "a.b", false),
            ("*.a.b:443", "x.a.b", true), ("10.0.0.0/8", "10.1.2.3", true), ("10.0.0.0/8", "11.1.2.3", false),
            ("192.168.1.0/24", "192.168.2.1", false), ("0.0.0.0/0", "1.2.3.4", true), ("10.0.0.0/8", "a.b", false),
            ("10.0.0.1", "10.0.0.1", true), ("[fe80::1]", "fe80::1", true), ("fe80::1", "[fe80::1]", true), (".", "a.b", false),
            ("10.0.0.0/x", "10.0.0.1", false),
        ])
    func exceptions(text: String, host: String, isExcepted: Bool) {
        #expect(ProxyExceptions(text).contains(host: host, port: 443) == isExcepted)
    }

    @Test("which variable applies") func variables() {
        func proxy(_ environment: [String: String]) -> String? { HubConfiguration(environment: environment).proxy }
        #expect(proxy(["https_proxy": "p:1", "HF_ENDPOINT": "https://hub.test", "no_proxy": "*.test"]) == nil)
        #expect(proxy(["https_proxy": "p:1", "HF_ENDPOINT": "https://hub.test", "no_proxy": "hub.test:80"]) == "p:1")
        #expect(proxy(["http_proxy": "p:1", "HF_ENDPOINT": "http://hub.test:8080", "no_proxy": "hub.test:8080"]) == nil)
        #expect(proxy(["http_proxy": "p:1", "HF_ENDPOINT": "http://[::1]:80"]) == nil)
    }

    // MARK: Against a proxy

    /// A name that only the proxy can resolve.
    private func configuration(_ fixture: HubFixture, proxy: String) -> HubConfiguration {
        var configuration = fixture.configuration
        configuration.endpoint = "http://hub.test"
        configuration.proxy = proxy
        configuration.retries = 0
        return configuration
    }

    @Test(
        "user and password go to the proxy",
        arguments: [
            ("", nil), ("user:p%40ss@", "Basic " + Data("user:p@ss".utf8).base64EncodedString()),
            ("user@", "Basic " + Data("user:".utf8).base64EncodedString()),
        ] as [(String, String?)])
    func credentials(credentials: String, header: String?) async throws {
        let fixture = try await HubFixture()
        let proxy = try await ProxyServer(target: fixture.server.port, requiring: header)
        _ = try await fixture.fetch(["config.json"], configuration(fixture, proxy: "\(credentials)127.0.0.1:\(proxy.port)"))
        #expect(try fixture.bytes("config.json") == HubFixture.files["config.json"]?.content)
        #expect(Set(proxy.connects.map(\.target)) == ["hub.test:80"])
        #expect(proxy.connects.allSatisfy { $0.authorization == header })
        #expect(fixture.server.requests.allSatisfy { $0.authorization == nil })
    }

    @Test(
        "status 407 is explained, without the password", arguments: [("", "give them as"), ("user:hidden@", "refuses the user")])
    func authenticationRequired(credentials: String, words: String) async throws {
        let fixture = try await HubFixture()
        let proxy = try await ProxyServer(target: fixture.server.port, requiring: "Basic other")
        let error = await #expect(throws: HubError.self) {
            try await fixture.fetch(["config.json"], configuration(fixture, proxy: "\(credentials)127.0.0.1:\(proxy.port)"))
        }
        let text = error?.description ?? ""
        #expect(text.contains("127.0.0.1:\(proxy.port)") && text.contains("407") && text.contains(words), "\(text)")
        #expect(!text.contains("hidden"))
        #expect(fixture.server.requests.isEmpty)
    }
}
