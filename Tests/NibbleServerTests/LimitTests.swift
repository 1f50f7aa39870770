import Foundation
import Nibble
import NibbleCore
import NibbleServer
import NibbleTestSupport
import Testing

/// Limits of an engine behind the server, and what metrics tell of it.
@Suite struct LimitTests {
    private static let long = #"{"prompt":"The dog","max_tokens":50000,"ignore_eos":true}"#

    @Test("a full queue refuses before it reads the request, and says when to come again")
    func fullQueue() async throws {
        var size = EngineConfiguration(maxBatch: 1, context: 60_000)
        size.maxQueue = 1
        try await TestServer.with(RealModel.stories, size) { server, service in
            let first = Task { try await server.send("/v1/completions", Self.long) }
            try await wait { service.counts().running > 0 }
            let second = Task { try await server.send("/v1/completions", Self.long) }
            try await wait { service.counts().waiting > 0 }
            // The body is never looked at.
            let refused = try await server.send("/v1/completions", "no JSON")
            #expect(refused.status == 429)
            #expect(refused.headers["retry-after"].flatMap { Int($0) }.map { (1...60).contains($0) } == true)
            #expect(try refused.json()["error"]?["code"] == "rate_limit_exceeded")
            #expect(try await server.send("/tokenize", #"{"prompt":"a"}"#).status == 200)
            first.cancel()
            second.cancel()
            try await EngineServerTests.idle(service)
        }
    }

    @Test("the queue also has a limit of tokens")
    func queueTokens() async throws {
        var size = EngineConfiguration(maxBatch: 1, context: 4096)
        size.maxQueueTokens = 20
        try await TestServer.with(RealModel.stories, size) { server, service in
            let prompt = String(repeating: "word ", count: 40)
            let answer = try await server.send("/v1/completions", #"{"prompt":"\#(prompt)"}"#)
            #expect(answer.status == 429)
            #expect(answer.text.contains("20"))
            #expect(try await server.send("/v1/completions", #"{"prompt":"a","max_tokens":1}"#).status == 200)
        }
    }

    @Test("a request ends at its deadline, streamed or not", arguments: [false, true])
    func deadline(streams: Bool) async throws {
        let configuration = TestServer.configured { $0.requestTimeout = 0.1 }
        let size = EngineConfiguration(maxBatch: 1, context: 60_000)
        try await TestServer.with(RealModel.stories, size, configuration) { server, service in
            let body = #"{"prompt":"The dog","max_tokens":50000,"ignore_eos":true,"stream":\#(streams)}"#
            let answer = try await server.send("/v1/completions", body)
            if streams {
                #expect(answer.status == 200)
                let error = try JSONValue.parse(try #require(answer.frames.dropLast().last))
                #expect(error["error"]?["code"] == "deadline_exceeded")
            } else {
                #expect(answer.status == 504)
                #expect(answer.headers["x-should-retry"] == "false")
            }
            try await EngineServerTests.idle(service)
        }
    }

    @Test("histograms count what the engine did")
    func histograms() async throws {
        try await TestServer.with(RealModel.stories) { server, _ in
            _ = try await server.json("/v1/completions", ["prompt": "The dog", "max_tokens": 9, "ignore_eos": true])
            let text = try await server.send("/metrics").text
            func value(_ name: String) -> Double? {
                let line = text.split(separator: "\n").first { $0.hasPrefix("nibble_\(name){") }
                return line?.split(separator: " ").last.flatMap { Double($0) }
            }
            for name in ["queue", "prefill", "decode", "inference"] {
                #expect(value("request_\(name)_time_seconds_count") == 1, "\(name)")
            }
            let whole = value("request_inference_time_seconds_sum") ?? 0
            let parts = (value("request_prefill_time_seconds_sum") ?? 0) + (value("request_decode_time_seconds_sum") ?? 0)
            #expect(abs(whole - parts) < 1e-6)
            let prompt = try #require(value("prompt_tokens_total"))
            // The last token is chosen and not fed.
            #expect(value("iteration_tokens_total_sum") == prompt + 8)
            #expect(value("iteration_tokens_total_count") == 9)
            #expect(value("generation_tokens_total") == 9)
            #expect(text.contains(#"iteration_tokens_total_bucket{model_name="stories",engine="0",le="+Inf"} 9"#))
        }
    }
}
