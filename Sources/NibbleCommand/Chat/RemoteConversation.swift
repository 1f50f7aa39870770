import Foundation
import NibbleCore
import Synchronization

/// A chat with a model on a server: reads lines and sends them, with all that was said before.
struct RemoteConversation {
    private let server: RemoteChat
    private let model: String
    private let editor = LineEditor()
    private var system: String?
    private var messages: [JSONValue] = []
    /// Fields of the requests, as they were given or set.
    private var options: JSONObject

    init(_ server: RemoteChat, model: String, system: String?, options: JSONObject) {
        self.server = server
        self.model = model
        self.system = system
        self.options = options
    }

    var isTerminal: Bool { editor.isTerminal }

    mutating func run() async throws {
        while true {
            switch editor.read(prompt: "> ") {
            case .end: return
            case .interrupted: Console.error("(Ctrl-D or /exit ends)")
            case .text(let line):
                switch ChatLine(line) {
                case .command(.exit, argument: nil), .command(.quit, argument: nil): return
                case .command(let command, let argument): perform(command, argument)
                case .message(let text) where !text.allSatisfy(\.isWhitespace): try await answer(text)
                case .message: break
                }
                try Console.checkOutput()
            }
        }
    }

    private mutating func perform(_ command: ChatLineCommand, _ argument: String?) {
        switch command {
        case .exit, .quit: Console.error("/\(command.rawValue) stands alone")
        case .reset: messages = []
        case .system:
            system = argument
            messages = []
        case .set: set(argument)
        case .help: Console.output(ChatLineCommand.list)
        }
    }

    /// `/set temperature 0.5` sets a field of the requests; `default` takes it back.
    private mutating func set(_ argument: String?) {
        let words = argument?.split(maxSplits: 1, whereSeparator: \.isWhitespace).map(String.init) ?? []
        guard words.count == 2 else {
            return Console.output(options.members.isEmpty ? "nothing is set" : JSONValue.object(options).encoded())
        }
        let field = words[0].replacing("-", with: "_")
        options[field == "max_new_tokens" ? "max_tokens" : field] =
            words[1] == "default" ? nil : (try? JSONValue.parse(words[1])) ?? .string(words[1])
    }

    private mutating func answer(_ text: String) async throws {
        messages.append(["role": "user", "content": .string(text)])
        var body = options
        body["model"] = .string(model)
        body["stream"] = true
        body["messages"] = .array((system.map { [["role": "system", "content": .string($0)]] } ?? []) + messages)
        let request = JSONValue.object(body)
        let server = server
        let answer = Mutex("")
        do {
            try await Interrupts.catching {
                try await Self.untilInterrupted {
                    try await server.stream(request) { piece in
                        answer.withLock { $0 += piece }
                        Console.output(piece, newline: false)
                    }
                }
            }
        } catch  where isTerminal {
            Console.error("error: \(CommandFailure.shown(error))")
        }
        Console.output("")
        let said = answer.withLock(\.self)
        if said.isEmpty { messages.removeLast() } else { messages.append(["role": "assistant", "content": .string(said)]) }
    }

    /// Runs `body` until it ends or Ctrl-C is pressed.
    private static func untilInterrupted(_ body: @escaping @Sendable () async throws -> Void) async throws {
        try await withThrowingTaskGroup { group in
            group.addTask {
                do { try await body() } catch  where Interrupts.isRequested || Console.hasFailed {}
            }
            group.addTask {
                while !Interrupts.isRequested, !Console.hasFailed { try await Task.sleep(for: .milliseconds(20)) }
            }
            defer { group.cancelAll() }
            try await group.next()
        }
    }
}
