import Foundation
import Hummingbird
import NibbleCore
import NibbleModels

/// POST /v1/embeddings, and Ollama's /api/embed and /api/embeddings: texts as vectors of length 1.
struct Embeddings: Sendable {
    let core: ServerCore

    /// Texts of one request.
    static let inputLimit = 2048

    func respond(_ body: JSONField, _ context: ServerContext) async throws -> Response {
        let model = try body.child("model")?.string()
        try core.checkModel(model)
        let format = try body.child("encoding_format")?.string() ?? "float"
        guard format == "float" || format == "base64" else {
            throw try body.required("encoding_format").unexpected("float or base64")
        }
        let texts = try inputs(try body.required("input"), truncates: false)
        let vectors = try await vectors(texts, model, dimensions: try dimensions(body), param: "input", context)
        let data = vectors.enumerated().map { index, vector -> JSONValue in
            ["object": "embedding", "index": .int(index), "embedding": format == "float" ? json(vector) : Self.base64(vector)]
        }
        let tokens = texts.reduce(0) { $0 + $1.count }
        return .json([
            "object": "list", "data": .array(data), "model": .string(model ?? core.configuration.modelName),
            "usage": ["prompt_tokens": .int(tokens), "total_tokens": .int(tokens)],
        ])
    }

    /// POST /api/embed
    func ollama(_ body: JSONField, _ context: ServerContext) async throws -> Response {
        let started = ContinuousClock.now
        let name = try OllamaRequest.model(body, served: core.modelNames)
        try core.checkModel(name)
        // Ollama cuts unless it is told not to; here nothing is cut that nobody asked to cut.
        let texts = try inputs(try body.required("input"), truncates: try body.flag("truncate", default: false))
        let vectors = try await vectors(texts, name, dimensions: try dimensions(body), param: "input", context)
        return .json([
            "model": .string(name), "embeddings": .array(vectors.map(json)),
            "total_duration": .int(Int((ContinuousClock.now - started) / .nanoseconds(1))), "load_duration": 0,
            "prompt_eval_count": .int(texts.reduce(0) { $0 + $1.count }),
        ])
    }

    /// POST /api/embeddings, the older form for one text.
    func ollamaPrompt(_ body: JSONField, _ context: ServerContext) async throws -> Response {
        let name = try OllamaRequest.model(body, served: core.modelNames)
        try core.checkModel(name)
        let texts = [try tokens(try body.text("prompt"), param: "prompt")]
        let vectors = try await vectors(texts, name, dimensions: nil, param: "prompt", context)
        return .json(["embedding": json(vectors[0])])
    }

    // MARK: Reading

    private func dimensions(_ body: JSONField) throws -> Int? {
        guard let field = body.child("dimensions") else { return nil }
        return try field.integer(in: 1...max(core.service.embeddingWidth ?? 1, 1))
    }

    /// A text, texts, token ids, or lists of token ids.
    private func inputs(_ field: JSONField, truncates: Bool) throws -> [[Int32]] {
        let texts: [[Int32]]
        if let text = field.value.string {
            texts = [try tokens(text, param: "input")]
        } else {
            guard field.value.array != nil else { throw field.unexpected("a string, an array of strings, or token ids") }
            let elements = try field.elements()
            guard let first = elements.first else { throw field.unexpected("at least one text") }
            if first.value.int != nil {
                texts = [try elements.map { try $0.token(core.vocabulary) }]
            } else {
                guard elements.count <= Self.inputLimit else { throw field.unexpected("at most \(Self.inputLimit) texts") }
                texts = try elements.map { element in
                    if let text = element.value.string { return try tokens(text, param: element.path) }
                    guard element.value.array != nil else { throw element.unexpected("a string or an array of token ids") }
                    return try element.elements().map { try $0.token(core.vocabulary) }
                }
            }
        }
        return truncates ? texts.map { Array($0.prefix(core.service.context)) } : texts
    }

    private func tokens(_ text: String, param: String) throws -> [Int32] {
        try core.encode(text, addSpecialTokens: true, param: param)
    }

    // MARK: Computing

    private func vectors(
        _ texts: [[Int32]], _ model: String?, dimensions: Int?, param: String, _ context: ServerContext
    ) async throws -> [[Float]] {
        guard core.service.embeddingWidth != nil else {
            throw APIError.invalid("this model has an encoder and makes no embeddings", param: "model", code: "unsupported_model")
        }
        for text in texts {
            guard !text.isEmpty else { throw APIError.invalid("the text has no tokens", param: param) }
            guard text.count <= core.service.context else {
                throw APIError.inputTooLong(tokens: text.count, context: core.service.context, param: param)
            }
        }
        let adapters = try core.adapters(model, nil)
        let vectors = try await context.cancelling(core.life, core.configuration.requestTimeout) {
            try await core.service.embeddings(of: texts, core.model.pooling, adapters: adapters)
        }
        core.metrics.embedded(tokens: texts.reduce(0) { $0 + $1.count })
        return vectors.map { Self.normalized($0.prefix(dimensions ?? $0.count)) }
    }

    /// The vector with a length of 1.
    static func normalized(_ vector: some Collection<Float>) -> [Float] {
        let length = vector.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot()
        return vector.map { length > 0 ? Float(Double($0) / length) : 0 }
    }

    // MARK: Writing

    /// JSON has no numbers that are not finite.
    private func json(_ vector: [Float]) -> JSONValue { .array(vector.map { .double($0.isFinite ? Double($0) : 0) }) }

    /// float32, the lowest byte first.
    private static func base64(_ vector: [Float]) -> JSONValue {
        var data = Data(capacity: vector.count * 4)
        for value in vector { withUnsafeBytes(of: value.bitPattern.littleEndian) { data.append(contentsOf: $0) } }
        return .string(data.base64EncodedString())
    }
}

extension ServerContext {
    /// Runs `body`, and cancels it if the client goes, the server stops, or it takes longer than `limit` seconds.
    /// - Throws: ``APIError/timeLimit``, and what `body` throws.
    func cancelling<Value: Sendable>(
        _ life: ServerLife, _ limit: Double?, _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        let task = Task { try await body() }
        let open = try life.begin { _ in task.cancel() }
        let watcher = try await watcher()
        let number = watcher.whenGone { task.cancel() }
        // Answers whether the time is over.
        let timer = limit.map { limit in
            Task {
                guard (try? await Task.sleep(for: .seconds(limit))) != nil else { return false }
                task.cancel()
                return true
            }
        }
        defer {
            timer?.cancel()
            watcher.forget(number)
            withExtendedLifetime(open) {}
        }
        do {
            return try await withTaskCancellationHandler {
                try await task.value
            } onCancel: {
                task.cancel()
            }
        } catch let error as CancellationError {
            timer?.cancel()
            throw await timer?.value == true ? APIError.timeLimit : error
        }
    }
}
