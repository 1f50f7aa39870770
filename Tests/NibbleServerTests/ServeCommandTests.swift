import Foundation
import NibbleCore
import NibbleHub
import NibbleTestSupport
import Testing

/// `nibble serve` as a process.
@Suite struct ServeCommandTests {
    @Test("a seed gives the text of nibble generate; SIGTERM ends the process with 0")
    func seedAndSignal() async throws {
        let model = Fixtures.models.appending(path: "bloom-stories").path
        let outcome = try CommandLineTool.run([
            "generate", model, "Once upon a time", "--json", "--quiet", "--max-new-tokens", "24", "--temperature", "0.9",
            "--top-k", "0", "--seed", "5",
        ])
        try #require(outcome.status == 0, "\(outcome.errors)")
        let expected = try #require(try JSONValue.parse(outcome.output)["text"]?.string)

        let server = try ServeProcess([model, "--max-batch", "2", "--served-model-name", "stories"])
        var request = HTTPRequest("\(server.address)/v1/completions")
        request.method = "POST"
        request.headers = [("Content-Type", "application/json")]
        request.body = Array(#"{"prompt":"Once upon a time","max_tokens":24,"temperature":0.9,"seed":5,"echo":true}"#.utf8)
        let json = try await TestServer.answer(request).json()
        #expect(json["choices"]?[0]?["text"]?.string == expected)
        #expect(server.terminate() == 0)
    }

    @Test("a model without a limit of its own gets its tokenizer's")
    func context() async throws {
        let server = try ServeProcess([Fixtures.models.appending(path: "bloom-stories").path, "--max-batch", "1"])
        let json = try await TestServer.answer(HTTPRequest("\(server.address)/v1/models")).json()
        #expect(json["data"]?[0]?["max_model_len"] == 1024)
        #expect(server.terminate() == 0)
    }
}
