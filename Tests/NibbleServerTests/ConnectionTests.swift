import Foundation
import NIOCore
import Nibble
import NibbleCore
import NibbleServer
import Synchronization
import Testing

/// What connections may do, and for how long. Where a test waits for the end of a connection, the server has closed it.
@Suite struct ConnectionTests {
    private static let keptAlive = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    private static let body = #"{"model":"stories","messages":[{"role":"user","content":"Hi"}]}"#

    private static func post(_ body: String, _ fields: [String] = []) -> String {
        (["POST /v1/chat/completions HTTP/1.1", "Host: a", "Content-Length: \(body.utf8.count)"] + fields)
            .joined(separator: "\r\n") + "\r\n\r\n" + body
    }

    private static func answer(_ port: Int, _ text: String) async throws -> String {
        let connection = try await RawConnection(port)
        await connection.send(text)
        return await connection.read()
    }

    @Test(
        "answers to HEAD have no body",
        arguments: ["/health", "/v1/models", "/v1/chat/completions", "/nothing", "/metrics"])
    func head(path: String) async throws {
        try await TestServer.with(TestServer.service("Hello")) { server in
            let answer = try await Self.answer(
                server.port,
                "HEAD \(path) HTTP/1.1\r\nHost: a\r\n\r\n" + "HEAD \(path) HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n")
            let heads = answer.components(separatedBy: "\r\n\r\n")
            #expect(heads.count == 3 && heads.last?.isEmpty == true, "\(answer)")
            #expect(heads.prefix(2).allSatisfy { $0.hasPrefix("HTTP/1.1 ") && $0.contains("Content-Length: ") })
        }
    }

    @Test("requests of HTTP/1.0 are answered in that version, without chunks", arguments: [false, true])
    func oldVersion(streams: Bool) async throws {
        try await TestServer.with(TestServer.service("Hello there")) { server in
            let body = Self.body.dropLast() + #","stream":\#(streams)}"#
            let answer = try await Self.answer(
                server.port,
                "POST /v1/chat/completions HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
            #expect(answer.hasPrefix("HTTP/1.0 200 "), "\(answer)")
            #expect(!answer.lowercased().contains("chunked"))
            #expect(answer.hasSuffix(streams ? "data: [DONE]\n\n" : "}"))
        }
    }

    @Test("a client that asks whether to send its body is told so, or why not")
    func expect() async throws {
        let configuration = TestServer.configured { $0.bodyLimit = 200 }
        try await TestServer.with(TestServer.service("Hello"), configuration) { server in
            let connection = try await RawConnection(server.port)
            let request = Self.post(Self.body, ["Expect: 100-continue", "Connection: close"])
            await connection.send(String(request.dropLast(Self.body.count)))
            #expect(await connection.read(until: "\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n")
            await connection.send(Self.body)
            #expect(await connection.read().hasPrefix("HTTP/1.1 200 OK"))
            let refused = try await Self.answer(
                server.port,
                "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 201\r\nExpect: 100-continue\r\n\r\n")
            #expect(refused.hasPrefix("HTTP/1.1 413"))
        }
    }

    @Test(
        "bytes that are no HTTP get a status and a message",
        arguments: [
            ("GET /health HTTP/1.1\r\nX: \(String(repeating: "a", count: 100_000))\r\n\r\n", 431),
            ("GET /health HTTP/1.1\r\n" + (0..<300).map { "X\($0): a\r\n" }.joined() + "\r\n", 431),
            ("GET /\(String(repeating: "a", count: 100_000)) HTTP/1.1\r\n\r\n", 431), ("\u{16}\u{3}\u{1}\u{2}", 400),
            ("BREW /health HTTP/1.1\r\n\r\n", 400), (keptAlive + "nonsense\r\n\r\n", 400),
            ("POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400),
            ("POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n", 400),
            ("POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n{}", 400),
        ])
    func noHTTP(text: String, status: Int) async throws {
        try await TestServer.with(TestServer.service("Hello")) { server in
            let answer = try await Self.answer(server.port, text)
            let last = try #require(answer.components(separatedBy: "HTTP/1.1 ").last)
            #expect(last.hasPrefix("\(status) "), "\(answer)")
            #expect(last.lowercased().contains("connection: close"))
            let parts = last.components(separatedBy: "\r\n\r\n")
            #expect(try JSONValue.parse(try #require(parts.last))["error"]?["message"]?.string?.isEmpty == false)
        }
    }

    @Test(
        "each request of a connection has its own time to become whole, however slowly bytes come",
        arguments: ["GET /health HTTP/1.1\r\nX: ", "POST /health HTTP/1.1\r\nContent-Length: 9999\r\n\r\n"])
    func dribble(text: String) async throws {
        let configuration = TestServer.configured { $0.readTimeout = 0.3 }
        try await TestServer.with(TestServer.service("Hello"), configuration) { server in
            let connection = try await RawConnection(server.port)
            await connection.send(Self.keptAlive)
            _ = await connection.read(until: #"{"status":"ok"}"#)
            // Between requests it may rest for longer.
            try await Task.sleep(for: .seconds(0.5))
            await connection.send(text)
            let writer = Task {
                while connection.channel.isActive, !Task.isCancelled {
                    await connection.send("a")
                    try await Task.sleep(for: .milliseconds(20))
                }
            }
            _ = await connection.read()
            #expect(!connection.channel.isActive)
            writer.cancel()
        }
    }

    @Test("a client that asks and never reads loses its connection")
    func noReader() async throws {
        let configuration = TestServer.configured { $0.writeTimeout = 0.3 }
        try await TestServer.with(TestServer.service("Hello"), configuration) { server in
            let connection = try await RawConnection(server.port)
            try await connection.stopReading()
            let requests = String(repeating: "GET / HTTP/1.1\r\nHost: a\r\n\r\n", count: 100)
            // The server reads no further requests while it cannot write, so that this does not end by itself.
            while connection.channel.isActive {
                connection.channel.writeAndFlush(ByteBuffer(string: requests), promise: nil)
                try await Task.sleep(for: .milliseconds(20))
            }
            #expect(try await server.send("/health").status == 200)
        }
    }

    @Test("clients that keep the server waiting make room for others, the oldest first")
    func room() async throws {
        let reports = Reports()
        let configuration = TestServer.configured {
            $0.maxConnections = 4
            $0.report = { reports.add($0) }
        }
        try await TestServer.with(TestServer.service("Hello"), configuration) { server in
            var connections: [RawConnection] = []
            for index in 0..<12 {
                let connection = try await RawConnection(server.port)
                if index % 3 == 0 { await connection.send("GET /health HTTP/1.1\r\nHo") }
                if index % 3 == 1 { await connection.send(Self.keptAlive) }
                if index % 3 == 2 { await connection.send(String(Self.post(Self.body).dropLast(5))) }
                connections.append(connection)
            }
            for _ in 0..<5 {
                #expect(try await Self.answer(server.port, Self.post(Self.body, ["Connection: close"])).hasPrefix("HTTP/1.1 200"))
            }
            for connection in connections.prefix(8) { _ = await connection.read() }
            #expect(reports.all.count == 1 && reports.all[0].contains("4"))
        }
    }

    @Test("where all connections are being answered, further ones are told so")
    func noRoom() async throws {
        let configuration = TestServer.configured { $0.maxConnections = 2 }
        let service = TestServer.service("Hello there")
        try await TestServer.with(service, configuration) { server in
            service.hold(true)
            let busy = [try await RawConnection(server.port), try await RawConnection(server.port)]
            for connection in busy { await connection.send(Self.post(Self.body, ["Connection: close"])) }
            while service.counts().running < 2 { try await Task.sleep(for: .milliseconds(2)) }
            let refused = try await Self.answer(server.port, "")
            #expect(refused.hasPrefix("HTTP/1.1 503"))
            #expect(refused.contains("too_many_connections"))
            service.hold(false)
            for connection in busy { #expect(await connection.read().hasPrefix("HTTP/1.1 200")) }
            #expect(
                try await Self.answer(server.port, Self.keptAlive.dropLast() + "Connection: close\r\n\r\n").hasPrefix(
                    "HTTP/1.1 200"))
        }
    }

    @Test("numbers that are 0 in single precision are answered", arguments: ["top_p", "temperature", "min_p"])
    func smallNumbers(field: String) async throws {
        try await TestServer.with(RealModel.stories) { server, _ in
            for value in ["0", "1e-300"] {
                let answer = try await server.send("/v1/completions", #"{"prompt":"a","max_tokens":2,"\#(field)":\#(value)}"#)
                #expect(answer.status == 200, "\(answer.text)")
            }
        }
    }

    @Test("nothing is sent for tokens that add no text")
    func silentTokens() async throws {
        // Each character is made of several tokens.
        try await TestServer.with(TestServer.service("🦉🦔")) { server in
            let answer = try await server.chat(#","stream":true"#)
            #expect(!answer.text.contains(": ping"))
            let text = try answer.chunks().compactMap { $0["choices"]?[0]?["delta"]?["content"]?.string }.joined()
            #expect(text == "🦉🦔")
        }
    }
}

private final class Reports: Sendable {
    private let texts = Mutex<[String]>([])
    var all: [String] { texts.withLock { $0 } }
    func add(_ text: String) { texts.withLock { $0.append(text) } }
}
