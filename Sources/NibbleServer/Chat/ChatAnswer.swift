import NibbleCore
import NibbleTokenizers

/// A call of a function in an answer.
struct AnsweredCall: Sendable, Equatable {
    var id: String
    var name: String
    var arguments: String
}

/// What has changed in an answer.
enum ChatDelta: Sendable, Equatable {
    case content(String)
    case call(index: Int, id: String, name: String)
    case arguments(index: Int, String)
}

/// One choice of a chat as it comes: content and calls.
struct ChatChoice: Sendable {
    private var scanner: ToolCallScanner?
    private let isLimitedToOneCall: Bool
    private(set) var content = ""
    private(set) var calls: [AnsweredCall] = []
    var tokens: [AnswerToken] = []

    /// - Parameter tools: nil: no calls are looked for.
    init(tools: ToolCallScanner?, allowsParallelCalls: Bool) {
        scanner = tools
        isLimitedToOneCall = !allowsParallelCalls
    }

    /// Whether nothing may follow: the one call that is allowed is complete.
    var isComplete: Bool { isLimitedToOneCall && !calls.isEmpty && scanner?.isBetweenCalls == true }

    mutating func push(_ text: String) -> [ChatDelta] {
        guard scanner != nil else {
            guard !text.isEmpty else { return [] }
            content += text
            return [.content(text)]
        }
        return scanner.map { _ in deltas(scanner!.push(text)) } ?? []
    }

    mutating func finish() -> [ChatDelta] { scanner == nil ? [] : deltas(scanner!.finish()) }

    private mutating func deltas(_ output: [ToolCallScanner.Output]) -> [ChatDelta] {
        var deltas: [ChatDelta] = []
        for item in output {
            switch item {
            case .content(let text):
                // White space around calls is the format's, not the answer's.
                guard calls.isEmpty || text.contains(where: { !$0.isWhitespace }) else { continue }
                content += text
                deltas.append(.content(text))
            case .call(let index, let id, let name):
                guard index == 0 || !isLimitedToOneCall else { continue }
                calls.append(AnsweredCall(id: id, name: name, arguments: ""))
                deltas.append(.call(index: index, id: id, name: name))
            case .arguments(let index, let text):
                guard index < calls.count else { continue }
                calls[index].arguments += text
                deltas.append(.arguments(index: index, text))
            }
        }
        return deltas
    }

    func finishReason(_ end: AnswerEnd) -> String {
        if end == .length { return "length" }
        return calls.isEmpty ? "stop" : "tool_calls"
    }

    /// - Throws: ``APIError`` if a call was demanded and none came.
    func check(_ choice: ToolChoice, _ end: AnswerEnd) throws {
        guard choice.demandsCall, end != .length else { return }
        if case .named(let name) = choice, calls.contains(where: { $0.name == name }) { return }
        if choice == .required, !calls.isEmpty { return }
        throw APIError.server("the model did not call a function, although tool_choice demands it", code: "tool_choice_not_met")
    }
}

/// Log probabilities as chat completions show them.
struct ChatLogProbabilities {
    let tokenizer: Tokenizer

    func json(_ tokens: [AnswerToken]) -> JSONValue {
        ["content": .array(tokens.map(entry)), "refusal": .null]
    }

    private func entry(_ token: AnswerToken) -> JSONValue {
        var entry = entry(token.id, token.scores?.chosen)
        entry["top_logprobs"] = .array((token.scores?.top ?? []).map { .object(self.entry($0.token, $0.logProbability)) })
        return .object(entry)
    }

    private func entry(_ id: Int32, _ value: Float?) -> JSONObject {
        let bytes = tokenizer.tokenBytes(id)
        return [
            "token": .string(String(decoding: bytes, as: UTF8.self)), "logprob": .double(Self.finite(value)),
            "bytes": .array(bytes.map { .int(Int($0)) }),
        ]
    }

    /// JSON has no infinity; OpenAI writes -9999 for it.
    static func finite(_ value: Float?) -> Double {
        guard let value, value.isFinite else { return -9999 }
        return max(Double(value), -9999)
    }
}
