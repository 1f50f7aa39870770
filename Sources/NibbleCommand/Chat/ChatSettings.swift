import Nibble
import NibbleCore
import NibbleGeneration
import NibbleTokenizers

/// The generation options of a chat: those it began with, and those that `/set` changed.
struct ChatSettings {
    struct SettingError: Error, CustomStringConvertible {
        let description: String
    }

    private(set) var config: GenerationConfig
    /// What was given to `/set`, by field.
    private(set) var changes: [(field: String, value: String)] = []
    private let initial: GenerationConfig
    private let model: GenerationConfig
    private let tokenizer: Tokenizer

    /// A chat answers with one sequence at a time, as text.
    private static let fixedFields: Set<String> = [
        "num_beams", "num_return_sequences", "output_scores", "output_logits", "return_dict_in_generate",
    ]

    init(_ config: GenerationConfig, model: GenerationConfig, tokenizer: Tokenizer) {
        self.config = config
        initial = config
        self.model = model
        self.tokenizer = tokenizer
    }

    /// What `/set` lists.
    var summary: String {
        if changes.isEmpty { return "nothing is changed; /set NAME VALUE changes an option, such as /set temperature 0.4" }
        return changes.map { "\(Self.shown($0.field)) \($0.value)" }.joined(separator: "\n")
    }

    /// Performs `/set TEXT`. Where it throws, nothing has changed.
    /// - Throws: ``SettingError``
    mutating func set(_ text: String) throws(SettingError) {
        let words = text.split(maxSplits: 1, whereSeparator: \.isWhitespace)
        let field = Self.field(String(words[0]))
        guard words.count == 2 else {
            throw SettingError(description: "/set \(words[0]) needs a value, or the word default")
        }
        let value = String(words[1])
        var remaining = changes.filter { $0.field != field }
        if value != "default" { remaining.append((field, value)) }
        do {
            if Self.fixedFields.contains(field) {
                throw SettingError(description: "a chat answers with one sequence: \(Self.shown(field)) cannot be changed")
            }
            // Known fields only, also where a change is taken back.
            if value == "default" { _ = try GenerationConfig(options: .object(JSONObject([(field, .null)]))) }
            config = try applied(remaining)
            changes = remaining
        } catch let error as SettingError {
            throw error
        } catch {
            throw SettingError(description: OptionNames.inChat("\(error)"))
        }
    }

    private func applied(_ changes: [(field: String, value: String)]) throws -> GenerationConfig {
        var changed = GenerationConfig()
        for (field, value) in changes {
            changed = try read(field, value).filling(from: changed)
            changed.chooseSampling()
        }
        // An option of sampling asks for it, so the start's choice between sampling and the likeliest token must not stand.
        let config = changed.filling(from: changed.doSample == false ? initial.removing("temperature") : initial)
        try ChatSession.resolved(config, model: model).validate()
        return config
    }

    /// One value in the form its field has in JSON, as plain text, or as ids separated by commas.
    private func read(_ field: String, _ text: String) throws -> GenerationConfig {
        if field == "bad_words_ids", (try? JSONValue.parse(text))?.array == nil {
            var config = GenerationConfig()
            config.badWordsIds = RarerGenerationOptionsGroup.badWordsIds([text], tokenizer)
            return config
        }
        let numbers = text.split(separator: ",").map { Int($0.trimmingPrefix(while: \.isWhitespace)) }
        let readings: [JSONValue?] = [
            try? JSONValue.parse(text), Double(text).map(JSONValue.double), .string(text),
            numbers.contains(nil) ? nil : .array(numbers.compactMap { $0.map(JSONValue.int) }),
        ]
        var failure: (any Error)?
        for reading in readings.compactMap(\.self) where !reading.isNull {
            do {
                return try GenerationConfig(options: .object(JSONObject([(field, reading)])))
            } catch GenerationError.invalidValue(let field, let expected, _, _) {
                failure = failure ?? GenerationError.invalidValue(field: field, expected: expected, found: text, source: nil)
            }
        }
        throw failure ?? SettingError(description: "\(Self.shown(field)) has no value \(text)")
    }

    /// `--top-p`, `top-p` and `top_p` are one field.
    private static func field(_ name: String) -> String {
        let name = name.hasPrefix("--") ? String(name.dropFirst(2)) : name
        let field = name.split(separator: "-", omittingEmptySubsequences: false).joined(separator: "_")
        return OptionNames.options.first { $0.value == "--" + OptionNames.dashed(field) }?.key ?? field
    }

    private static func shown(_ field: String) -> String {
        OptionNames.options[field].map { String($0.dropFirst(2)) } ?? OptionNames.dashed(field)
    }
}
