import CNibblePage
import HTTPTypes
import Hummingbird
import NIOCore
import NIOHTTPTypes
import NibbleCore

/// What lies at which path.
struct Routes: Sendable {
    typealias Handler = @Sendable (_ request: RequestHead, _ context: ServerContext) async throws -> Response

    struct Route: Sendable {
        /// Paths that differ in an id have one name in metrics.
        var name: String
        var handlers: [String: Handler]
        /// Whether a key is asked for.
        var isOpen = false
    }

    private let paths: [String: Route]
    private let models: Handler

    /// A path's route. A method that it does not have is for the caller to find.
    func route(_ path: String) -> Route? {
        if let route = paths[path] { return route }
        guard path.hasPrefix("/v1/models/"), path.utf8.count > 11 else { return nil }
        return Route(name: "/v1/models/{id}", handlers: ["GET": models])
    }

    init(_ core: ServerCore) {
        let chat = ChatCompletions(core: core)
        let completions = Completions(core: core)
        let tokens = TokenizeEndpoints(core: core)
        let about = AboutEndpoints(core: core)
        func post(_ handle: @escaping @Sendable (JSONField, RequestHead, ServerContext) async throws -> Response) -> [String:
            Handler]
        {
            [
                "POST": { head, context in
                    try await handle(try await head.json(core.configuration, context.channel), head, context)
                }
            ]
        }
        /// Requests that wait for the engine.
        func generate(_ handle: @escaping @Sendable (JSONField, RequestHead, ServerContext) async throws -> Response)
            -> [String: Handler]
        {
            post(handle).mapValues { handler in
                { head, context in
                    try core.checkQueue()
                    return try await handler(head, context)
                }
            }
        }
        func get(_ handle: @escaping @Sendable () throws -> Response) -> [String: Handler] {
            ["GET": { _, _ in try handle() }, "HEAD": { _, _ in try handle() }]
        }
        var paths: [String: [String: Handler]] = [
            "/v1/chat/completions": generate { try await chat.respond($0, $2, client: $1.client) },
            "/v1/completions": generate { try await completions.respond($0, $2, client: $1.client) },
            "/tokenize": post { body, _, _ in try tokens.tokenize(body) },
            "/detokenize": post { body, _, _ in try tokens.detokenize(body) },
            "/apply-template": post { body, _, _ in try tokens.applyTemplate(body) },
            "/v1/models": get { about.models() },
        ]
        let messages = Messages(core: core)
        paths["/v1/messages"] = generate { try await messages.respond($0, $2, client: $1.client) }
        paths["/v1/messages/count_tokens"] = post { body, _, _ in try messages.countTokens(body) }
        let responses = ResponsesEndpoint(core: core)
        paths["/v1/responses"] = generate { try await responses.respond($0, $2, client: $1.client) }
        let embeddings = Embeddings(core: core)
        paths["/v1/embeddings"] = generate { body, _, context in try await embeddings.respond(body, context) }
        let ollama = OllamaAnswers(core: core)
        paths["/api/chat"] = generate { try await ollama.respond($0, .chat, $2, client: $1.client) }
        paths["/api/generate"] = generate { try await ollama.respond($0, .generate, $2, client: $1.client) }
        paths["/api/embed"] = generate { body, _, context in try await embeddings.ollama(body, context) }
        paths["/api/embeddings"] = generate { body, _, context in try await embeddings.ollamaPrompt(body, context) }
        let adapters = AdapterEndpoints(core: core)
        paths["/lora-adapters"] = get { adapters.list() }
        if core.configuration.allowsAdapterUpdates {
            paths["/v1/load_lora_adapter"] = post { body, _, _ in try await adapters.load(body) }
            paths["/v1/unload_lora_adapter"] = post { body, _, _ in try await adapters.unload(body) }
        }
        let models = OllamaModels(core: core)
        paths["/api/show"] = post { body, _, _ in try models.show(body) }
        paths["/api/tags"] = get { models.tags() }
        paths["/api/ps"] = get { models.running() }
        paths["/api/version"] = get { models.version() }
        paths["/placement"] = get { .text(core.model.placement, type: "application/json") }
        var routes = Dictionary(uniqueKeysWithValues: paths.map { ($0.key, Route(name: $0.key, handlers: $0.value)) })
        let open: [String: [String: Handler]] = [
            "/health": get { try about.health() }, "/ready": get { try about.ready() }, "/metrics": get { about.metrics() },
            "/": get { about.page() }, "/openapi.json": get { try about.openAPI() },
        ]
        for (path, handlers) in open {
            // Metrics say who asks for what: they need the key where there is one.
            routes[path] = Route(name: path, handlers: handlers, isOpen: path != "/metrics")
        }
        self.paths = routes
        self.models = { head, _ in try about.model(head.path.dropFirst("/v1/models/".count)) }
    }
}

/// A request as handlers see it.
struct RequestHead: Sendable {
    let path: String
    let method: String
    /// Whose turn it is: the key, or nothing.
    let client: String
    let request: Request

    /// The body as JSON.
    /// - Throws: ``APIError``
    func json(_ configuration: ServerConfiguration, _ channel: any Channel) async throws -> JSONField {
        let limit = configuration.bodyLimit
        guard saysJSON || isFromCommandLine else { throw APIError.wrongMediaType }
        if let length = request.headers[.contentLength].flatMap({ Int($0) }), length > limit {
            throw APIError.bodyTooLarge(limit: limit)
        }
        if request.headers[.expect]?.lowercased() == "100-continue" {
            channel.writeAndFlush(HTTPResponsePart.head(HTTPResponse(status: .continue)), promise: nil)
        }
        let buffer: ByteBuffer
        do {
            buffer = try await request.body.collect(upTo: limit)
        } catch is NIOTooManyBytesError {
            throw APIError.bodyTooLarge(limit: limit)
        }
        let value = try buffer.withUnsafeReadableBytes { try JSONValue.parse($0) }
        guard value.object != nil else { throw APIError.invalid("the body must be a JSON object, found \(value.kind)") }
        return JSONField(value, file: "body")
    }

    private var saysJSON: Bool {
        guard let type = request.headers[.contentType] else { return true }
        let media = type.prefix { $0 != ";" }.lowercased().filter { $0 != " " }
        return media == "application/json" || media.hasSuffix("+json")
    }

    /// Ollama's documentation calls its API with `curl -d`, which names a form. Browsers send forms of foreign pages without
    /// asking, but they always say from where.
    private var isFromCommandLine: Bool { path.hasPrefix("/api/") && request.headers[.origin] == nil }
}

/// Health, models, metrics and the page.
struct AboutEndpoints: Sendable {
    let core: ServerCore

    /// Judges the engine's heartbeat, not whether this thread lives.
    func health() throws -> Response {
        switch core.service.health() {
        case .alive: return .json(["status": "ok"])
        case .stuck(let seconds):
            throw APIError(
                .serviceUnavailable, "the engine has not finished a step for \(Int(seconds)) s", type: "server_error",
                code: "engine_stuck")
        case .failed(let reason):
            throw APIError(
                .serviceUnavailable, "the engine has failed: \(reason)", type: "server_error", code: "engine_failed")
        }
    }

    func ready() throws -> Response {
        guard core.life.phase == .ready else { throw APIError.stopping }
        return try health()
    }

    func models() -> Response {
        .json(["object": "list", "data": .array(core.modelNames.map(entry))])
    }

    func model(_ id: some StringProtocol) throws -> Response {
        let name = id.removingPercentEncoding ?? String(id)
        try core.checkModel(name)
        return .json(entry(name))
    }

    private func entry(_ name: String) -> JSONValue {
        var entry: JSONObject = [
            "id": .string(name), "object": "model", "created": .int(core.started), "owned_by": "nibble",
            "max_model_len": .int(core.service.context),
        ]
        if let adapter = core.service.adapters.first(where: { $0.name == name }) {
            entry["root"] = .string(adapter.path)
            entry["parent"] = .string(core.configuration.modelName)
        }
        return .object(entry)
    }

    func metrics() -> Response {
        let text = MetricsText.text(
            core.metrics.values, core.service.counts(), prefix: core.configuration.metricsPrefix,
            model: core.configuration.modelName)
        return .text(text, type: "text/plain; version=0.0.4; charset=utf-8")
    }

    func page() -> Response {
        var count = 0
        let bytes = UnsafeRawBufferPointer(start: nibble_page(&count), count: count)
        return Response(
            status: .ok,
            headers: [.contentType: "text/html; charset=utf-8", .cacheControl: "no-cache"],
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: bytes)))
    }

    func openAPI() throws -> Response {
        .json(
            try OpenAPI.document(
                core.configuration, vocabulary: core.vocabulary, embeddingWidth: core.service.embeddingWidth))
    }
}
