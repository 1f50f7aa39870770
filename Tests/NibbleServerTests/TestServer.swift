import Foundation
import Nibble
import NibbleCore
import NibbleHub
import NibbleModels
import NibbleServer
import NibbleTestSupport
import NibbleTokenizers
import UnixSignals

/// A server on a free port of loopback for the time of a test.
struct TestServer: Sendable {
    let port: Int
    private let scripted: ScriptedService?

    /// The service of servers that were started with one that is scripted.
    var service: ScriptedService {
        guard let scripted else { preconditionFailure("this server has an engine") }
        return scripted
    }

    static let tokenizer: Tokenizer = {
        do {
            return try AutoTokenizer.from(model: Fixtures.models.appending(path: "bloom-stories"))
        } catch {
            fatalError("\(error)")
        }
    }()

    /// What the tests' chats look like.
    static let template = """
        {%- for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}\
        {%- if tools %}{{ tools | tojson }}<tool_call>{% endif %}<assistant>
        """

    static func service(
        _ text: String, context: Int = 256, pause: Duration = .zero, finish: CompletionFinish = .stop,
        refusal: ServiceRefusal? = nil
    ) -> ScriptedService {
        ScriptedService(
            tokenizer.encode(text, addSpecialTokens: false), vocabularySize: tokenizer.vocabularySize, context: context,
            pause: pause, finish: finish, refusal: refusal)
    }

    /// The tests' configuration, changed.
    static func configured(_ change: (inout ServerConfiguration) -> Void) -> ServerConfiguration {
        var configuration = ServerConfiguration(modelNames: ["stories"])
        configuration.port = 0
        configuration.chatTemplate = template
        change(&configuration)
        return configuration
    }

    /// Runs `body` beside a server.
    static func with(
        _ service: ScriptedService, _ configuration: ServerConfiguration = configured { _ in }, signals: [UnixSignal] = [],
        _ body: @Sendable @escaping (TestServer) async throws -> Void
    ) async throws {
        let model = ServedModel(tokenizer: tokenizer, defaults: GenerationConfig())
        try await run(Server(configuration, model: model, service: service), signals: signals) { port in
            try await body(TestServer(port: port, scripted: service))
        }
    }

    /// Runs `body` beside a server that answers with a shipped model, in float32.
    static func with(
        _ model: RealModel, _ size: EngineConfiguration = EngineConfiguration(maxBatch: 4, context: 512),
        _ configuration: ServerConfiguration = configured { _ in }, signals: [UnixSignal] = [],
        readAdapter: (@Sendable (URL, String) throws -> LowRankAdapter)? = nil,
        _ body: @Sendable @escaping (TestServer, EngineService) async throws -> Void
    ) async throws {
        let service = EngineService(
            try await model.model.engine(size, tokenizer: model.tokenizer), readAdapter: readAdapter)
        let served = ServedModel(model.model, tokenizer: model.tokenizer)
        try await run(Server(configuration, model: served, service: service), signals: signals) { port in
            try await body(TestServer(port: port, scripted: nil), service)
        }
    }

    private static func run(
        _ server: Server, signals: [UnixSignal], _ body: @Sendable @escaping (_ port: Int) async throws -> Void
    ) async throws {
        let (ports, continuation) = AsyncStream.makeStream(of: Int.self)
        try await withThrowingTaskGroup { group in
            group.addTask { try await server.run(signals: signals) { port in continuation.yield(port) } }
            group.addTask {
                for await port in ports {
                    try await body(port)
                    return
                }
            }
            try await group.next()
            group.cancelAll()
        }
    }

    struct Answer: Sendable {
        var status: Int
        var headers: [String: String]
        var text: String

        func json() throws -> JSONValue { try JSONValue.parse(text) }

        /// The data of server-sent events.
        var frames: [String] {
            text.components(separatedBy: "\n\n").compactMap { frame in
                frame.components(separatedBy: "\n").first { $0.hasPrefix("data: ") }.map { String($0.dropFirst(6)) }
            }
        }

        func chunks() throws -> [JSONValue] { try frames.filter { $0 != "[DONE]" }.map { try JSONValue.parse($0) } }
    }

    /// Sends a body and reads the answer, which must be JSON with status 200.
    func json(_ path: String, _ body: JSONValue) async throws -> JSONValue {
        let answer = try await send(path, body.encoded())
        guard answer.status == 200 else { throw UnexpectedAnswer(path: path, answer: answer) }
        return try answer.json()
    }

    struct UnexpectedAnswer: Error {
        var path: String
        var answer: Answer
    }

    func send(
        _ path: String, _ body: String? = nil, method: String? = nil, headers: [(String, String)] = []
    ) async throws -> Answer {
        try await send(path, body: body.map { Array($0.utf8) }, method: method, headers: headers)
    }

    func send(
        _ path: String, body: [UInt8]?, method: String? = nil, headers: [(String, String)] = []
    ) async throws -> Answer {
        var request = HTTPRequest("http://127.0.0.1:\(port)\(path)")
        request.method = method ?? (body == nil ? "GET" : "POST")
        request.headers = headers.map { (name: $0.0, value: $0.1) }
        if let body {
            if !headers.contains(where: { $0.0 == "Content-Type" }) {
                request.headers.append(("Content-Type", "application/json"))
            }
            request.body = body
        }
        return try await Self.answer(request)
    }

    private static let client = HTTPClient()

    static func answer(_ request: HTTPRequest) async throws -> Answer {
        var answer = Answer(status: 0, headers: [:], text: "")
        var bytes: [UInt8] = []
        try await client.perform(request) { head in
            let pairs = head.headers.map { ($0.name.lowercased(), $0.value) }
            answer.status = head.status
            answer.headers = Dictionary(pairs, uniquingKeysWith: { a, _ in a })
        } body: {
            bytes += $0
        }
        answer.text = String(decoding: bytes, as: UTF8.self)
        return answer
    }

    func chat(_ more: String = "") async throws -> Answer {
        try await send("/v1/chat/completions", #"{"model":"stories","messages":[{"role":"user","content":"Hi"}]\#(more)}"#)
    }
}
