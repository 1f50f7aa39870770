import HTTPTypes
import Hummingbird
import NIOCore
import NibbleCore
import NibbleTokenizers

/// What all handlers share.
struct ServerCore: Sendable {
    let configuration: ServerConfiguration
    let model: ServedModel
    let service: any CompletionService
    let renderer: PromptRenderer
    let life: ServerLife
    let metrics: ServerMetrics
    let grammars = GrammarCache()
    let started = Int(Clock.seconds)

    init(_ configuration: ServerConfiguration, _ model: ServedModel, _ service: any CompletionService, _ life: ServerLife) {
        self.configuration = configuration
        self.model = model
        self.service = service
        self.life = life
        renderer = PromptRenderer(
            model.tokenizer, template: configuration.chatTemplate, isEncoderDecoder: service.encoderContext != nil)
        metrics = ServerMetrics()
    }

    var vocabulary: Int { service.vocabularySize }

    /// - Throws: ``APIError`` for a name that neither the model nor an adapter has.
    func checkModel(_ name: String?) throws {
        guard let name else { return }
        let names = modelNames
        if !names.contains(name) { throw APIError.unknownModel(name, served: names) }
    }

    /// A prompt with its settings.
    /// - Throws: ``APIError`` for a prompt that the context has no room for.
    func job(
        _ prompt: [Int32], _ sampling: SamplingFields, model name: String?, client: String, param: String
    ) throws -> CompletionJob {
        var prompt = prompt
        if prompt.isEmpty, let bos = model.tokenizer.specialTokens.bos?.id { prompt = [bos] }
        guard !prompt.isEmpty else { throw APIError.invalid("the prompt has no tokens", param: param) }
        try checkLength(prompt.count, param: param)
        // An encoder's input takes no room from the answer, which begins with one token of its own.
        let room = service.context - (service.encoderContext == nil ? prompt.count : 1)
        var job = sampling.job(
            prompt: prompt, room: room, defaults: model.defaults, end: model.endTokens,
            drawnSeed: .random(in: 0...UInt64(Int.max)))
        job.adapters = try adapters(name, sampling.adapters)
        if job.client.isEmpty { job.client = client }
        if !configuration.allowsPriority { job.priority = 0 }
        job.timeLimit = configuration.requestTimeout.map { .seconds($0) }
        return job
    }

    private func checkLength(_ tokens: Int, param: String) throws {
        if let limit = service.encoderContext {
            guard tokens > limit else { return }
            throw APIError.encoderInputTooLong(tokens: tokens, limit: limit, param: param)
        }
        guard tokens >= service.context else { return }
        throw APIError.promptTooLong(tokens: tokens, context: service.context, param: param)
    }

    func start(_ jobs: [CompletionJob], _ context: ServerContext) async throws -> AnswerSource {
        do {
            let source = try await AnswerSource.start(jobs, service, life, context)
            metrics.began(source)
            return source
        } catch ServiceRefusal.busy(let message, let seconds) {
            throw busy(message, seconds)
        }
    }

    /// Refuses a request that the queue has no room for, before its body is read.
    /// - Throws: ``APIError``
    func checkQueue() throws {
        do {
            try service.checkQueue()
        } catch ServiceRefusal.busy(let message, let seconds) {
            throw busy(message, seconds)
        }
    }

    private func busy(_ message: String, _ seconds: Int) -> APIError {
        .busy(message, retryAfter: max(seconds, metrics.retryAfter(waiting: service.counts().waiting)))
    }

    func encode(_ text: String, addSpecialTokens: Bool, param: String) throws -> [Int32] {
        do {
            return try model.tokenizer.encodeCompletely(text, addSpecialTokens: addSpecialTokens)
        } catch {
            throw APIError.invalid("\(error)", param: param)
        }
    }
}

extension Response {
    static func json(_ value: JSONValue, status: HTTPResponse.Status = .ok) -> Response {
        text(value.encoded(), type: "application/json", status: status)
    }

    static func text(_ text: String, type: String, status: HTTPResponse.Status = .ok) -> Response {
        Response(status: status, headers: [.contentType: type], body: ResponseBody(byteBuffer: ByteBuffer(string: text)))
    }
}
