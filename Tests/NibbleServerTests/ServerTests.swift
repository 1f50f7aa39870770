import Foundation
import NIOCore
import NIOPosix
import Nibble
import NibbleCore
import NibbleServer
import NibbleTestSupport
import Testing

/// What surrounds the answers: keys, limits, health, metrics, connections.
@Suite struct ServerTests {
    @Test func keys() async throws {
        try await TestServer.with(TestServer.service("Hello"), TestServer.configured { $0.apiKeys = ["secret"] }) { server in
            #expect(try await server.send("/health").status == 200)
            #expect(try await server.send("/ready").status == 200)
            let refused = try await server.send("/v1/models")
            #expect(refused.status == 401)
            #expect(try refused.json()["error"]?["code"] == "invalid_api_key")
            for header in [("Authorization", "Bearer secret"), ("x-api-key", "secret")] {
                #expect(try await server.send("/v1/models", headers: [header]).status == 200)
            }
            #expect(try await server.send("/v1/models", headers: [("Authorization", "Bearer secreT")]).status == 401)
        }
    }

    @Test func modelsAndPaths() async throws {
        try await TestServer.with(TestServer.service("Hello"), TestServer.configured { $0.modelNames = ["owner/name", "other"] })
        { server in
            let list = try await server.send("/v1/models").json()
            let entries = try #require(list["data"]?.array)
            #expect(entries.compactMap { $0["id"]?.string } == ["owner/name", "other"])
            #expect(try await server.send("/v1/models/owner/name").json()["id"] == "owner/name")
            #expect(try await server.send("/v1/models/owner%2Fname").status == 200)
            #expect(try await server.send("/v1/models/none").json()["error"]?["code"] == "model_not_found")
            #expect(try await server.send("/nowhere").status == 404)
            let wrong = try await server.send("/v1/chat/completions")
            #expect(wrong.status == 405)
            #expect(wrong.headers["allow"] == "POST")
            #expect(try await server.send("/v1/completions", #"{"model":"none","prompt":"x"}"#).status == 404)
        }
    }

    @Test func bodies() async throws {
        try await TestServer.with(TestServer.service("Hello"), TestServer.configured { $0.bodyLimit = 1000 }) { server in
            let long = String(repeating: "x", count: 2000)
            #expect(try await server.send("/v1/completions", #"{"prompt":"\#(long)"}"#).status == 413)
            let form = [("Content-Type", "application/x-www-form-urlencoded")]
            #expect(try await server.send("/v1/completions", #"{"prompt":"x"}"#, headers: form).status == 415)
            for body in ["", "[", "[]", "null", #"{"prompt": 1e308e}"#, String(repeating: "[", count: 900)] {
                let answer = try await server.send("/v1/completions", body)
                #expect(answer.status == 400)
                #expect(try answer.json()["error"]?["message"]?.string?.isEmpty == false)
            }
        }
    }

    @Test func fullQueue() async throws {
        let service = TestServer.service("Hello", refusal: .busy("2 requests are waiting", retryAfter: 3))
        try await TestServer.with(service) { server in
            let answer = try await server.chat(#","stream":true"#)
            #expect(answer.status == 429)
            #expect(answer.headers["retry-after"] == "3")
            #expect(try answer.json()["error"]?["type"] == "rate_limit_exceeded")
        }
    }

    @Test("the API's description names only what is there")
    func openAPI() async throws {
        try await TestServer.with(RealModel.stories) { server, _ in
            let paths = try #require(try await server.send("/openapi.json").json()["paths"]?.object)
            #expect(paths.members.count > 20)
            for (path, operations) in paths.members {
                for method in operations.object?.keys ?? [] {
                    let place = path.replacing("{id}", with: "stories")
                    let answer = try await server.send(
                        place, method == "post" ? "{}" : nil, method: method.uppercased())
                    #expect(method == "post" ? [200, 400].contains(answer.status) : answer.status == 200, "\(method) \(path)")
                }
            }
        }
    }

    @Test func healthIsTheEngines() async throws {
        try await TestServer.with(TestServer.service("Hello")) { server in
            #expect(try await server.send("/health").status == 200)
            server.service.set(.stuck(seconds: 12))
            let answer = try await server.send("/health")
            #expect(answer.status == 503)
            #expect(answer.text.contains("12 s"))
        }
    }

    @Test("a failed engine is told by /health, and ends the server")
    func failedEngine() async throws {
        await #expect(throws: ServerFailure.self) {
            try await TestServer.with(TestServer.service("Hello")) { server in
                server.service.set(.failed("out of memory"))
                let answer = try await server.send("/health")
                #expect(answer.status == 503 && answer.text.contains("out of memory"))
                // Until the server ends.
                try await Task.sleep(for: .seconds(600))
            }
        }
    }

    @Test("the ids that clients choose cannot collide")
    func requestIDs() async throws {
        try await TestServer.with(TestServer.service("Hello")) { server in
            let body = #"{"prompt":"Hi","request_id":"same","id":"same"}"#
            async let first = server.send("/v1/completions", body, headers: [("x-request-id", "same")])
            async let second = server.send("/v1/completions", body, headers: [("x-request-id", "same")])
            let answers = try await [first, second]
            #expect(try answers.map { try $0.json()["choices"]?[0]?["text"] } == ["Hello", "Hello"])
            #expect(Set(try answers.map { try $0.json()["id"]?.string }).count == 2)
            #expect(Set(answers.map { $0.headers["x-request-id"] }).count == 2)
        }
    }

    @Test("an answer ends at the latest where the context ends", arguments: [false, true])
    func contextEnd(streams: Bool) async throws {
        try await TestServer.with(RealModel.stories, EngineConfiguration(maxBatch: 1, context: 64)) { server, service in
            let body = #"{"prompt":"The dog","max_tokens":100000,"ignore_eos":true,"stream":\#(streams)}"#
            let answer = try await server.send("/v1/completions", body)
            let last = streams ? try answer.chunks().last : try answer.json()
            #expect(last?["choices"]?[0]?["finish_reason"] == "length")
            try await EngineServerTests.idle(service)
        }
    }

    @Test func origins() async throws {
        try await TestServer.with(TestServer.service("Hello")) { server in
            let near = try await server.send("/v1/models", method: "OPTIONS", headers: [("Origin", "http://localhost:3000")])
            #expect(near.status == 204)
            #expect(near.headers["access-control-allow-origin"] == "http://localhost:3000")
            let far = try await server.send("/v1/models", headers: [("Origin", "https://example.com")])
            #expect(far.headers["access-control-allow-origin"] == nil)
        }
    }

    @Test func metrics() async throws {
        try await TestServer.with(TestServer.service("Hello there"), TestServer.configured { $0.metricsPrefix = "vllm:" }) {
            server in
            _ = try await server.chat()
            let text = try await server.send("/metrics").text
            #expect(text.contains(#"vllm:request_success_total{model_name="stories",engine="0",finished_reason="stop"} 1"#))
            #expect(text.contains(#"vllm:time_to_first_token_seconds_count{model_name="stories",engine="0"} 1"#))
            #expect(text.contains(#"handler="/v1/chat/completions",method="POST",status="200"} 1"#))
        }
    }

    @Test func pageAndPings() async throws {
        try await TestServer.with(
            TestServer.service("a b", pause: .milliseconds(400)), TestServer.configured { $0.pingInterval = 0.05 }
        ) { server in
            #expect(try await server.send("/").text.hasPrefix("<!doctype html>"))
            let answer = try await server.chat(#","stream":true"#)
            #expect(answer.text.contains("\n\n: ping\n\n"))
        }
    }

    /// A client that goes is noticed while its answer is made, streamed or not, although connections may be half closed.
    @Test(arguments: [false, true], [false, true]) func disconnectCancels(streams: Bool, halfCloses: Bool) async throws {
        let service = TestServer.service("word")
        service.hold(true)
        try await TestServer.with(service) { server in
            let body = #"{"messages":[{"role":"user","content":"Hi"}],"stream":\#(streams)}"#
            let head =
                "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                + "Content-Length: \(body.utf8.count)\r\n\r\n"
            let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .channelOption(.allowRemoteHalfClosure, value: true)
                .connect(host: "127.0.0.1", port: server.port).get()
            try await channel.writeAndFlush(ByteBuffer(string: head + body))
            try await wait { !server.service.jobs.isEmpty }
            if halfCloses { try await channel.close(mode: .output) } else { try await channel.close() }
            try await wait { server.service.cancelled > 0 }
            #expect(server.service.cancelled == 1)
            if halfCloses { channel.close(promise: nil) }
        }
    }

    @Test func hostileBodies() async throws {
        let count = ProcessInfo.processInfo.environment["NIBBLE_FUZZ"].flatMap { Int($0) } ?? 300
        let seeds = [
            #"{"messages":[{"role":"user","content":[{"type":"text","text":"é"}]}],"stream":true,"n":2,"stop":["a"]}"#,
            #"{"prompt":["a",[1,2]],"logprobs":2,"logit_bias":{"3":1.5},"max_tokens":3,"echo":false}"#,
        ]
        try await TestServer.with(TestServer.service("Hello")) { server in
            var random = RandomBytes(state: 7)
            for index in 0..<count {
                var bytes = Array(seeds[index % 2].utf8)
                for _ in 0..<(1 + random.next() % 4) {
                    let place = random.next() % bytes.count
                    switch random.next() % 3 {
                    case 0: bytes[place] = UInt8(truncatingIfNeeded: random.next())
                    case 1: bytes.remove(at: place)
                    default: bytes.insert(contentsOf: Array("[{\"0e,]}".utf8).prefix(1 + random.next() % 7), at: place)
                    }
                }
                let body = bytes
                let answer = try await server.send(
                    index % 2 == 0 ? "/v1/chat/completions" : "/v1/completions", body: body)
                #expect((200..<300).contains(answer.status) || (400..<500).contains(answer.status), "\(body)")
            }
            #expect(try await server.send("/health").status == 200)
        }
    }
}

/// A fixed sequence of numbers.
struct RandomBytes {
    var state: UInt64

    mutating func next() -> Int {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Int(state >> 33)
    }
}
