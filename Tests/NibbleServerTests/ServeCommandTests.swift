import AsyncHTTPClient
import Foundation
import NibbleCore
import NibbleTestSupport
import Testing

/// `nibble serve` as a process.
@Suite struct ServeCommandTests {
    /// Reads standard error up to the line that names the port.
    private static func port(_ pipe: Pipe) throws -> Int {
        var text = ""
        while true {
            let data = pipe.fileHandleForReading.availableData
            try #require(!data.isEmpty, "the server ended: \(text)")
            text += String(decoding: data, as: UTF8.self)
            if let match = text.firstMatch(of: /listening on http:\/\/127.0.0.1:(\d+)\n/), let port = Int(match.1) { return port }
        }
    }

    @Test("a seed gives the text of nibble generate; SIGTERM ends the process with 0")
    func seedAndSignal() async throws {
        let model = Fixtures.models.appending(path: "bloom-stories").path
        let outcome = try CommandLineTool.run([
            "generate", model, "Once upon a time", "--json", "--quiet", "--max-new-tokens", "24", "--temperature", "0.9",
            "--top-k", "0", "--seed", "5",
        ])
        try #require(outcome.status == 0, "\(outcome.errors)")
        let expected = try #require(try JSONValue.parse(outcome.output)["text"]?.string)

        let process = Process()
        let errors = Pipe()
        process.executableURL = CommandLineTool.url
        process.arguments = ["serve", model, "--port", "0", "--quiet", "--max-batch", "2", "--served-model-name", "stories"]
        process.standardError = errors
        try process.run()
        defer { process.terminate() }
        var request = HTTPClientRequest(url: "http://127.0.0.1:\(try Self.port(errors))/v1/completions")
        request.method = .POST
        request.headers.add(name: "Content-Type", value: "application/json")
        request.body = .bytes(
            Array(#"{"prompt":"Once upon a time","max_tokens":24,"temperature":0.9,"seed":5,"echo":true}"#.utf8))
        let response = try await HTTPClient.shared.execute(request, timeout: .seconds(60))
        let json = try JSONValue.parse(String(buffer: try await response.body.collect(upTo: 1 << 20)))
        #expect(json["choices"]?[0]?["text"]?.string == expected)
        process.terminate()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
    }
}
