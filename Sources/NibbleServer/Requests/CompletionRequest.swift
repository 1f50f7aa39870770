import NibbleCore
import NibbleTokenizers

/// A body of /v1/completions.
struct CompletionRequest: Sendable {
    enum Prompt: Sendable {
        case text(String)
        case tokens([Int32])
    }

    var model: String?
    var prompts: [Prompt]
    var sampling: SamplingFields
    var logProbabilities: Int?
    var echoes: Bool
    var stream: StreamOptions
    var addsSpecialTokens: Bool
    var form: OutputForm?

    /// Prompts of one request.
    static let promptLimit = 128

    /// - Throws: `JSONError`, ``APIError``: each names the field.
    init(_ body: JSONField, vocabulary: Int) throws {
        model = try body.child("model")?.string()
        prompts = try Self.prompts(try body.required("prompt"), vocabulary: vocabulary)
        sampling = try SamplingFields(body, vocabulary: vocabulary)
        sampling.maxTokens = try body.child("max_tokens")?.integer(in: 0...Int(Int32.max)) ?? 16
        logProbabilities = try body.child("logprobs").flatMap { field in
            // `false` is sent by clients that fill every field.
            field.value.bool == false ? nil : try field.integer(in: 0...20)
        }
        echoes = try body.flag("echo", default: false)
        stream = try StreamOptions(body)
        addsSpecialTokens = try body.flag("add_special_tokens", default: true)
        if let suffix = try body.child("suffix")?.string(), !suffix.isEmpty {
            throw APIError.invalid("field 'suffix': this server completes at the end only", param: "suffix")
        }
        if let best = try body.child("best_of")?.integer(in: 1...128), best != sampling.choices {
            throw APIError.invalid("field 'best_of': must equal n", param: "best_of")
        }
        if echoes, logProbabilities != nil {
            throw APIError.invalid("echo and logprobs exclude each other on this server", param: "echo")
        }
        if sampling.maxTokens == 0, !echoes { throw try body.required("max_tokens").unexpected("a whole number from 1") }
        form = try OutputForm(body)
    }

    /// A text, texts, token ids, or lists of token ids.
    private static func prompts(_ field: JSONField, vocabulary: Int) throws -> [Prompt] {
        if let text = field.value.string { return [.text(text)] }
        guard field.value.array != nil else { throw field.unexpected("a string, an array of strings, or token ids") }
        let elements = try field.elements()
        guard let first = elements.first else { throw field.unexpected("at least one prompt") }
        if first.value.int != nil { return [.tokens(try elements.map { try $0.token(vocabulary) })] }
        guard elements.count <= promptLimit else { throw field.unexpected("at most \(promptLimit) prompts") }
        return try elements.map { element in
            if let text = element.value.string { return .text(text) }
            guard element.value.array != nil else { throw element.unexpected("a string or an array of token ids") }
            return .tokens(try element.elements().map { try $0.token(vocabulary) })
        }
    }
}
