import NibbleCore
import NibbleGeneration
import NibbleModels

/// What a request says about how its answers are made. `nil`: not said.
struct SamplingFields: Sendable {
    var temperature: Double?
    var topP: Double?
    var topK: Int?
    var minP: Double?
    var repetitionPenalty: Double?
    var presencePenalty: Double?
    var frequencyPenalty: Double?
    var seed: UInt64?
    var bias: [TokenBias] = []
    var stop: [String] = []
    var stopTokens: [Int32] = []
    var ignoresEnd = false
    var minTokens = 0
    var maxTokens: Int?
    var choices = 1
    var skipsSpecialTokens = true
    var includesStop = false
    var client: String?
    var cacheSalt = ""
    var priority = 0
    /// llama.cpp's `lora`; replaces the adapter that is the request's model.
    var adapters: [AdapterScale]?

    static let biasLimit = 1024

    init() {}

    /// Reads the fields that chat and completions have in common.
    /// - Throws: `JSONError`, ``APIError``: each names the field.
    init(_ body: JSONField, vocabulary: Int) throws {
        temperature = try body.number("temperature", in: 0...100)
        topP = try body.number("top_p", in: 0...1)
        topK = try body.child("top_k")?.integer(in: -1...Int(Int32.max))
        minP = try body.number("min_p", in: 0...1)
        repetitionPenalty = try body.number("repetition_penalty", in: 0.01...100)
        presencePenalty = try body.number("presence_penalty", in: -2...2)
        frequencyPenalty = try body.number("frequency_penalty", in: -2...2)
        if let field = body.child("seed") {
            guard let seed = field.value.int.map({ UInt64(bitPattern: Int64($0)) }) ?? field.value.uint64 else {
                throw field.unexpected("a whole number")
            }
            self.seed = seed
        }
        bias = try Self.bias(body, vocabulary: vocabulary)
        stop = try Self.texts(body.child("stop"))
        stopTokens = try body.child("stop_token_ids")?.elements().map { try $0.token(vocabulary) } ?? []
        ignoresEnd = try body.flag("ignore_eos", default: false)
        minTokens = try body.child("min_tokens")?.integer(in: 0...Int(Int32.max)) ?? 0
        choices = try body.child("n")?.integer(in: 1...128) ?? 1
        skipsSpecialTokens = try body.flag("skip_special_tokens", default: true)
        includesStop = try body.flag("include_stop_str_in_output", default: false)
        client = try body.child("user")?.string()
        cacheSalt = try body.child("cache_salt")?.string() ?? ""
        adapters = try AdapterScale.list(body.child("lora"))
        priority = try body.child("priority")?.integer(in: -1_000_000...1_000_000) ?? 0
    }

    /// A text or up to 16 of them, none empty.
    static func texts(_ field: JSONField?) throws -> [String] {
        guard let field else { return [] }
        let texts = field.value.string.map { [$0] }
        guard let texts = try texts ?? field.value.array.map({ _ in try field.elements().map { try $0.string() } }) else {
            throw field.unexpected("a string or an array of strings")
        }
        guard texts.count <= 16 else { throw field.unexpected("at most 16 texts") }
        return texts.filter { !$0.isEmpty }
    }

    private static func bias(_ body: JSONField, vocabulary: Int) throws -> [TokenBias] {
        guard let field = body.child("logit_bias") else { return [] }
        let members = try field.members()
        guard members.count <= biasLimit else { throw field.unexpected("at most \(biasLimit) tokens") }
        return try members.map { key, member in
            guard let token = Int32(key), token >= 0, token < vocabulary else {
                throw APIError.invalid(
                    "field 'logit_bias': expected token ids from 0 to \(vocabulary - 1), found '\(key.prefix(40))'",
                    param: "logit_bias")
            }
            let value = try member.double()
            guard (-100...100).contains(value) else { throw member.unexpected("a number from -100 to 100") }
            // -100 is a ban, as in OpenAI's documentation.
            return TokenBias(token: token, value: value == -100 ? -.infinity : Float(value))
        }
    }
}

extension SamplingFields {
    /// Fills what was not said from the model's generation_config.json, then from OpenAI's defaults.
    /// - Parameter end: the model's own end tokens.
    func job(prompt: [Int32], room: Int, defaults: GenerationConfig, end: [Int32], drawnSeed: UInt64) -> CompletionJob {
        var job = CompletionJob(prompt: prompt, maxNewTokens: max(min(maxTokens ?? room, room), 1))
        job.selection.temperature = Float(temperature ?? defaults.temperature ?? 1)
        // transformers' own default of top_k = 50 counts only where the model's file says it.
        job.selection.topK = max(topK ?? defaults.topK ?? 0, 0)
        // 0 leaves the most probable token, as do numbers that are 0 as a Float.
        job.selection.topP = max(Float(topP ?? defaults.topP ?? 1), .leastNormalMagnitude)
        job.selection.minP = Float(minP ?? defaults.minP ?? 0)
        job.selection.repetitionPenalty = Float(repetitionPenalty ?? defaults.repetitionPenalty ?? 1)
        job.selection.presencePenalty = Float(presencePenalty ?? 0)
        job.selection.frequencyPenalty = Float(frequencyPenalty ?? 0)
        job.selection.seed = seed ?? drawnSeed
        job.selection.bias = bias
        job.endTokens = (ignoresEnd ? [] : end) + stopTokens
        job.selection.endTokens = end + stopTokens
        job.selection.minimumTokens = minTokens
        job.stopStrings = stop
        job.choices = choices
        job.cacheSalt = cacheSalt
        job.client = client ?? ""
        job.priority = priority
        return job
    }
}

extension JSONField {
    /// The number `key`, if it is there.
    func number(_ key: String, in range: ClosedRange<Double>) throws -> Double? {
        guard let field = child(key) else { return nil }
        let number = try field.double()
        guard range.contains(number) else {
            throw field.unexpected("a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// A token id.
    func token(_ vocabulary: Int) throws -> Int32 { Int32(try integer(in: 0...max(vocabulary - 1, 0))) }
}
