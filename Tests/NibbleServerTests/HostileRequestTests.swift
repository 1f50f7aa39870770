import Foundation
import NIOCore
import NIOPosix
import Nibble
import NibbleCore
import NibbleServer
import NibbleTestSupport
import Testing

/// Requests that no client should send: each gets a 4xx with a message, and the server goes on.
@Suite struct HostileRequestTests {
    /// Sends bytes as they are and reads what comes until the other side closes.
    private static func raw(_ port: Int, _ text: String) async throws -> String {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                }
            }
        return try await channel.executeThenClose { inbound, outbound in
            // A server that has answered may close before it has read everything.
            try? await outbound.write(ByteBuffer(string: text))
            var answer = ""
            do { for try await buffer in inbound { answer += String(buffer: buffer) } } catch  where !answer.isEmpty {}
            return answer
        }
    }

    @Test(
        "bodies",
        arguments: [
            String(repeating: "[", count: 100_000), String(repeating: #"{"a":"#, count: 20_000),
            #"{"prompt":"a","temperature":1e308,"top_p":1e999}"#, #"{"prompt":"a","max_tokens":1e308}"#,
            #"{"prompt":"a","seed":123456789012345678901234567890}"#, #"{"prompt":[[[1]]]}"#, #"{"prompt":"a","n":100000}"#,
            #"{"prompt":"a","stop":["a","b","c","d","e","f","g","h","i","j","k","l","m","n","o","p","q"]}"#,
            #"{"prompt":"a","logit_bias":{"99999999999999999999":1}}"#, #"{"prompt":[-1]}"#, #"{"prompt":[4294967296]}"#,
            #"{"prompt":{"a":1}}"#, "\u{FEFF}{}", "{\"prompt\":\"\u{0}\"}", #"{"prompt":"\ud800","logprobs":-1}"#,
        ])
    func bodies(body: String) async throws {
        try await TestServer.with(RealModel.stories) { server, _ in
            let answer = try await server.send("/v1/completions", body)
            #expect((400..<500).contains(answer.status))
            #expect(try answer.json()["error"]?["message"]?.string?.isEmpty == false)
        }
    }

    @Test("bytes that are no UTF-8", arguments: ["/v1/chat/completions", "/v1/embeddings", "/api/chat", "/tokenize"])
    func badText(path: String) async throws {
        try await TestServer.with(RealModel.stories) { server, _ in
            let bytes: [UInt8] = Array(#"{"model":"stories","input":""#.utf8) + [0xFF, 0xC0, 0x80, 0x22, 0x7D]
            let answer = try await server.send(path, body: bytes)
            #expect(answer.status == 400)
        }
    }

    @Test(
        "paths",
        arguments: [
            "/../../etc/passwd", "/v1/models/..%2f..%2fetc%2fpasswd", "/%00", "//v1/models", "/v1/models/%ff%fe", "/v1/models/",
            "/api/../v1/models", "/v1/chat/completions/", "/" + String(repeating: "a", count: 4000), "/?%zz",
        ])
    func paths(path: String) async throws {
        try await TestServer.with(TestServer.service("Hello")) { server in
            let answer = try await Self.raw(server.port, "GET \(path) HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            let status = answer.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
            #expect(status == (path == "/?%zz" ? 200 : 404), "\(answer.prefix(200))")
            #expect(!answer.contains("root:"))
        }
    }

    @Test(
        "heads that are too large, and requests that are no HTTP, end their connection alone",
        arguments: [
            (0..<2000).map { "X-\($0): a\r\n" }.joined(), "X-Long: " + String(repeating: "a", count: 100_000) + "\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n", "Content-Length: -1\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
            "bad header\r\n",
        ])
    func heads(lines: String) async throws {
        try await TestServer.with(TestServer.service("Hello")) { server in
            let answer = try await Self.raw(
                server.port, "POST /v1/completions HTTP/1.1\r\nHost: a\r\n\(lines)Connection: close\r\n\r\nab")
            let status = answer.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 400
            #expect((400..<500).contains(status), "\(answer.prefix(200))")
            #expect(try await server.send("/health").status == 200)
        }
    }

    /// The raw client returns when the server has closed the connection, although the body never ends.
    @Test(
        "a refused client whose body does not say how long it is, or is too long, cannot go on sending",
        arguments: [
            ("Transfer-Encoding: chunked", "secret", 413), ("Transfer-Encoding: chunked", "wrong", 401),
            ("Content-Length: 100000", "secret", 413), ("Content-Length: 100000", "wrong", 401),
        ])
    func endlessBody(length: String, key: String, status: Int) async throws {
        let configuration = TestServer.configured {
            $0.bodyLimit = 1000
            $0.apiKeys = ["secret"]
        }
        try await TestServer.with(TestServer.service("Hello"), configuration) { server in
            let chunk = "190\r\n" + String(repeating: "x", count: 400) + "\r\n"
            let head = ["Host: a", "Content-Type: application/json", "x-api-key: \(key)", length].joined(separator: "\r\n")
            let answer = try await Self.raw(
                server.port, "POST /v1/completions HTTP/1.1\r\n\(head)\r\n\r\n" + String(repeating: chunk, count: 10))
            #expect(answer.hasPrefix("HTTP/1.1 \(status)"), "\(answer.prefix(200))")
            #expect(answer.lowercased().contains("connection: close"))
            #expect(try await server.send("/health").status == 200)
        }
    }

    /// The raw client returns when the server has closed the connection.
    @Test(
        "a request that never becomes whole loses its connection; a long answer does not",
        arguments: [
            "POST /v1/completions HTTP/1.1\r\nHo", "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{",
        ])
    func endlessRequest(bytes: String) async throws {
        let configuration = TestServer.configured { $0.readTimeout = 0.2 }
        let service = TestServer.service("one two three four", pause: .milliseconds(200))
        try await TestServer.with(service, configuration) { server in
            _ = try? await Self.raw(server.port, bytes)
            let answer = try await server.chat(#","stream":true"#)
            #expect(answer.status == 200 && answer.frames.last == "[DONE]")
        }
    }

    @Test(
        "a wrong key opens nothing",
        arguments: [
            [], [("Authorization", "Bearer ")], [("Authorization", "Bearer secre")], [("Authorization", "Bearer secrets")],
            [("Authorization", "Basic secret")], [("Authorization", "secret")], [("x-api-key", "")], [("x-api-key", "SECRET")],
            [("x-api-key", "wrong"), ("Authorization", "Bearer secret")], [("Cookie", "x-api-key=secret")],
        ] as [[(String, String)]])
    func wrongKeys(headers: [(String, String)]) async throws {
        let configuration = TestServer.configured { $0.apiKeys = ["secret"] }
        try await TestServer.with(TestServer.service("Hello"), configuration) { server in
            let paths = try #require(try await server.send("/openapi.json").json()["paths"]?.object)
            let open = ["/health", "/ready", "/", "/openapi.json"]
            for (path, operations) in paths.members where !open.contains(path) {
                for method in operations.object?.keys ?? [] {
                    let answer = try await server.send(
                        path.replacing("{id}", with: "stories") + "?api_key=secret&key=secret", method == "post" ? "{}" : nil,
                        method: method.uppercased(), headers: headers)
                    #expect(answer.status == 401, "\(method) \(path)")
                    #expect(!answer.text.contains("secret"))
                }
            }
            #expect(server.service.jobs.isEmpty)
        }
    }

    @Test("connections that send nothing, or byte by byte, hold nobody up")
    func slowConnections() async throws {
        try await TestServer.with(TestServer.service("Hello")) { server in
            var channels: [any Channel] = []
            for index in 0..<200 {
                let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                    .connect(host: "127.0.0.1", port: server.port).get()
                if index % 2 == 0 { try await channel.writeAndFlush(ByteBuffer(string: "POST /v1/completions HTTP/1.1\r\nHo")) }
                channels.append(channel)
            }
            for _ in 0..<20 { #expect(try await server.chat().status == 200) }
            // The server may have closed some by itself.
            for channel in channels { try? await channel.close() }
            #expect(try await server.send("/health").status == 200)
        }
    }

    /// `NIBBLE_FUZZ` says how many.
    @Test("mutated bodies over an engine: 2xx and 4xx with a message, and nothing is held at the end")
    func mutations() async throws {
        let count = ProcessInfo.processInfo.environment["NIBBLE_FUZZ"].flatMap { Int($0) } ?? 200
        let seeds = [
            (
                "/v1/completions",
                #"{"prompt":["a",[1,2]],"logprobs":2,"logit_bias":{"3":1.5},"max_tokens":3,"stop":["a"],"seed":1}"#
            ),
            (
                "/v1/chat/completions",
                #"{"messages":[{"role":"user","content":[{"type":"text","text":"é"}]}],"max_tokens":2,"n":2,"top_logprobs":2,"logprobs":true}"#
            ),
            (
                "/v1/messages",
                #"{"messages":[{"role":"user","content":"a"}],"max_tokens":2,"system":[{"type":"text","text":"b"}]}"#
            ),
            ("/v1/responses", #"{"input":[{"role":"user","content":"a"}],"max_output_tokens":2}"#),
            ("/v1/embeddings", #"{"input":["a",[1]],"encoding_format":"base64","dimensions":8}"#),
            (
                "/api/generate",
                #"{"model":"stories","prompt":"a","stream":true,"options":{"num_predict":2,"temperature":0.5,"stop":["x"]}}"#
            ),
            ("/tokenize", #"{"prompt":"a b","add_special_tokens":true,"return_token_strs":true}"#),
        ]
        let configuration = TestServer.configured { $0.requestTimeout = 20 }
        try await TestServer.with(RealModel.stories, EngineConfiguration(maxBatch: 2, context: 64), configuration) {
            server, service in
            var random = RandomBytes(state: 11)
            for index in 0..<count {
                let (path, seed) = seeds[index % seeds.count]
                var bytes = Array(seed.utf8)
                for _ in 0..<(1 + random.next() % 3) {
                    let place = random.next() % bytes.count
                    switch random.next() % 4 {
                    case 0: bytes[place] = UInt8(truncatingIfNeeded: random.next())
                    case 1: bytes.remove(at: place)
                    case 2: bytes.insert(contentsOf: Array("1e308".utf8), at: place)
                    default: bytes.insert(contentsOf: Array("[{\"0e,]}".utf8).prefix(1 + random.next() % 7), at: place)
                    }
                }
                let answer = try await server.send(path, body: bytes)
                let isRefused = (400..<500).contains(answer.status)
                #expect(answer.status == 200 || isRefused, "\(path): \(bytes): \(answer.status) \(answer.text)")
                if isRefused { #expect(answer.text.contains("error")) }
            }
            try await EngineServerTests.idle(service)
            #expect(try await server.send("/health").status == 200)
        }
    }
}
