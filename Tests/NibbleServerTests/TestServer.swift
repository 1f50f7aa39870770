import AsyncHTTPClient
import Foundation
import NIOCore
import Nibble
import NibbleCore
import NibbleServer
import NibbleTestSupport
import NibbleTokenizers
import UnixSignals

/// A server on a free port of loopback for the time of a test.
struct TestServer: Sendable {
    let port: Int
    let service: ScriptedService

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
        let server = Server(
            configuration, model: ServedModel(tokenizer: tokenizer, defaults: GenerationConfig()), service: service)
        let (ports, continuation) = AsyncStream.makeStream(of: Int.self)
        try await withThrowingTaskGroup { group in
            group.addTask { try await server.run(signals: signals) { port in continuation.yield(port) } }
            group.addTask {
                for await port in ports {
                    try await body(TestServer(port: port, service: service))
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

    func send(
        _ path: String, _ body: String? = nil, method: String? = nil, headers: [(String, String)] = []
    ) async throws -> Answer {
        try await send(path, body: body.map { Array($0.utf8) }, method: method, headers: headers)
    }

    func send(
        _ path: String, body: [UInt8]?, method: String? = nil, headers: [(String, String)] = []
    ) async throws -> Answer {
        var request = HTTPClientRequest(url: "http://127.0.0.1:\(port)\(path)")
        request.method = .init(rawValue: method ?? (body == nil ? "GET" : "POST"))
        for (name, value) in headers { request.headers.add(name: name, value: value) }
        if let body {
            if !headers.contains(where: { $0.0 == "Content-Type" }) {
                request.headers.add(name: "Content-Type", value: "application/json")
            }
            request.body = .bytes(ByteBuffer(bytes: body))
        }
        let response = try await HTTPClient.shared.execute(request, timeout: .seconds(30))
        let data = try await response.body.collect(upTo: 16 << 20)
        let pairs = response.headers.map { ($0.name.lowercased(), $0.value) }
        return Answer(
            status: Int(response.status.code), headers: Dictionary(pairs, uniquingKeysWith: { a, _ in a }),
            text: String(buffer: data))
    }

    func chat(_ more: String = "") async throws -> Answer {
        try await send("/v1/chat/completions", #"{"model":"stories","messages":[{"role":"user","content":"Hi"}]\#(more)}"#)
    }
}
