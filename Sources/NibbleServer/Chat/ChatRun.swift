import Hummingbird
import NibbleCore
import NibbleTokenizers

/// A chat on its way: rendered, submitted, and read as deltas. Every chat API is a translation of this.
struct ChatRun: Sendable {
    let core: ServerCore
    let source: AnswerSource
    let text: AnswerText
    let choice: ChatChoice
    let toolChoice: ToolChoice

    /// - Throws: ``APIError``, `JinjaError`, ``ServiceRefusal``.
    static func start(_ request: ChatRequest, _ core: ServerCore, _ context: ServerContext, client: String) async throws
        -> ChatRun
    {
        let shown = request.toolChoice.shown(of: request.tools)
        let prompt = try core.renderer.prompt(request.messages, tools: shown, request.rendering)
        var job = try core.job(prompt.tokens, request.sampling, model: request.model, client: client, param: "messages")
        job.logProbabilities = request.logProbabilities
        if let form = request.outputForm(shown, core.renderer.toolFormat) {
            job.grammar = try await core.grammar(form, request.sampling, hasCalls: !shown.isEmpty)
        }
        let source = try await core.start([job], context)
        let text = AnswerText(
            core.model.tokenizer, endTokens: job.endTokens, stop: request.sampling.stop,
            skipsSpecialTokens: request.sampling.skipsSpecialTokens, includesStop: request.sampling.includesStop,
            keptSpecials: shown.isEmpty ? [] : core.renderer.toolMarks)
        let scanner = shown.isEmpty ? nil : ToolCallScanner(core.renderer.toolFormat, names: Set(shown.map(\.name)))
        return ChatRun(
            core: core, source: source, text: text,
            choice: ChatChoice(tools: scanner, allowsParallelCalls: request.allowsParallelCalls), toolChoice: request.toolChoice)
    }

    enum Event: Sendable {
        case silence
        case delta(choice: Int, ChatDelta, tokens: [AnswerToken])
        /// The text behind the last delta belongs to no visible text; log probabilities of its tokens.
        case tokens(choice: Int, [AnswerToken])
        case finished(choice: Int, ChatChoice, AnswerEnd)
    }

    /// Reads all choices to their end. After each batch of events `flush` is called.
    /// - Throws: ``APIError``
    func read(
        _ take: (Event) throws -> Void, flush: (TokenUsage) async throws -> Void
    ) async throws -> TokenUsage {
        var reader = AnswerReader(source, text: text, core.metrics)
        var choices = Array(repeating: choice, count: source.choices)
        while !reader.isOver {
            let events = try await reader.next()
            if events.isEmpty { try take(.silence) }
            for event in events {
                switch event {
                case .piece(let index, let piece):
                    guard !choices[index].isComplete else { continue }
                    try emit(choices[index].push(piece.text), piece.tokens, index, take)
                    if choices[index].isComplete {
                        reader.finishEarly(index)
                        try end(choices[index], index, .stop(nil), take)
                    }
                case .finished(let index, let end):
                    guard !choices[index].isComplete else { continue }
                    try emit(choices[index].finish(), [], index, take)
                    try self.end(choices[index], index, end, take)
                }
            }
            try await flush(reader.usage)
        }
        return reader.usage
    }

    private func emit(
        _ deltas: [ChatDelta], _ tokens: [AnswerToken], _ index: Int, _ take: (Event) throws -> Void
    ) rethrows {
        var tokens = tokens
        for delta in deltas {
            try take(.delta(choice: index, delta, tokens: tokens))
            tokens = []
        }
        if !tokens.isEmpty { try take(.tokens(choice: index, tokens)) }
    }

    private func end(_ choice: ChatChoice, _ index: Int, _ end: AnswerEnd, _ take: (Event) throws -> Void) throws {
        try choice.check(toolChoice, end)
        try take(.finished(choice: index, choice, end))
    }
}
