import Foundation
import Nibble
import NibbleCore
import NibbleServer
import NibbleTestSupport
import Testing
import UnixSignals

/// What a signal does to requests that run.
@Suite(.serialized) struct DrainTests {
    /// A stream ends by itself within the time that it gets, and with an error event after it.
    @Test(arguments: [(900.0, false), (0.1, true)]) func signalDrains(timeout: Double, isCut: Bool) async throws {
        let text = String(repeating: "word ", count: isCut ? 200 : 8)
        let service = TestServer.service(text, pause: .milliseconds(40))
        try await TestServer.with(service, TestServer.configured { $0.shutdownTimeout = timeout }, signals: [.sigusr2]) {
            server in
            server.service.hold(!isCut)
            async let streamed = server.chat(#","stream":true"#)
            try await wait { !server.service.jobs.isEmpty }
            kill(getpid(), SIGUSR2)
            if !isCut {
                try await wait { try await server.send("/ready").status != 200 }
                let refused = try await server.chat()
                #expect(refused.status == 503)
                #expect(refused.headers["connection"] == "close")
                server.service.hold(false)
            }
            let frames = try await streamed.frames
            #expect(frames.last == "[DONE]")
            let hasError = frames.contains { $0.hasPrefix(#"{"error""#) }
            #expect(hasError == isCut)
        }
    }
}

extension DrainTests {
    /// An engine's requests end by themselves after a signal, and the server with them.
    @Test func engineDrains() async throws {
        let body = #"{"prompt":"The dog","max_tokens":300,"ignore_eos":true,"stream":true}"#
        let configuration = TestServer.configured { $0.shutdownTimeout = 900 }
        let size = EngineConfiguration(maxBatch: 4, context: 512)
        try await TestServer.with(RealModel.stories, size, configuration, signals: [.sigusr2]) { server, service in
            async let streamed = server.send("/v1/completions", body)
            try await wait { service.counts().steps > 0 }
            kill(getpid(), SIGUSR2)
            let answer = try await streamed
            #expect(answer.frames.last == "[DONE]")
            #expect(!answer.text.contains(#""error""#))
            #expect(try answer.chunks().last?["choices"]?[0]?["finish_reason"] == "length")
        }
    }
}
