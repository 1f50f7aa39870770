import Foundation
import Hummingbird
import Nibble

/// A tiny HTTP service: `service [MODEL] [PORT]`. The text streams as it is made:
///
///     curl -N http://127.0.0.1:8080/generate -d '{"prompt": "Once upon a time", "length": 60}'
///
/// `nibble serve` is the large one, with OpenAI's API.
@main struct Service {
    struct Question: Decodable {
        var prompt: String
        var length: Int?
        var temperature: Double?
    }

    static func main() async throws {
        let arguments = Array(CommandLine.arguments.dropFirst())
        let name = arguments.first ?? "Models/bloom-stories"
        let model = try await AutoModelForCausalLM.from(pretrained: name)
        let tokenizer = try await AutoTokenizer.from(pretrained: name)
        // Up to eight requests run side by side; further ones wait.
        let engine = try await model.engine(EngineConfiguration(maxBatch: 8, context: 1024), tokenizer: tokenizer)

        let router = Router()
        router.post("generate") { request, _ -> Response in
            // curl's -d does not say that it sends JSON, so the body is decoded here.
            let body = try await request.body.collect(upTo: 1 << 20)
            guard let question = try? JSONDecoder().decode(Question.self, from: Data(body.readableBytesView)) else {
                throw HTTPError(.badRequest, message: #"expected {"prompt": "…", "length": 60, "temperature": 0.7}"#)
            }
            let events = engine.submit(try engineRequest(question, tokenizer))
            return Response(
                status: .ok, headers: [.contentType: "text/plain; charset=utf-8"],
                body: ResponseBody { writer in
                    do {
                        for try await event in events {
                            // A client that goes away ends this loop, and with it the request.
                            guard case .delta(_, let text, _) = event else { continue }
                            try await writer.write(ByteBuffer(string: text))
                        }
                    } catch let error as EngineError {
                        try await writer.write(ByteBuffer(string: "error: \(error)"))
                    } catch let error as GenerationError {
                        try await writer.write(ByteBuffer(string: "error: \(error)"))
                    }
                    try await writer.finish(nil)
                })
        }
        let port = arguments.dropFirst().first.flatMap { Int($0) } ?? 8080
        let server = Application(router: router, configuration: .init(address: .hostname("127.0.0.1", port: port)))
        try await server.runService()  // Returns after SIGTERM or Ctrl-C.
        await engine.shutdown(timeout: .seconds(5))
    }

    static func engineRequest(_ question: Question, _ tokenizer: Tokenizer) throws -> EngineRequest {
        var config = GenerationConfig(maxNewTokens: question.length ?? 100)
        // Without a temperature the most likely token is taken.
        if let temperature = question.temperature, temperature != 0 {
            config.doSample = true
            config.temperature = temperature
        }
        return EngineRequest(try tokenizer(question.prompt).inputIDs[0], config)
    }
}
