import ArgumentParser
import Foundation
import Nibble

/// Options that few people need. Fields without an option can be set with `--generation-config`.
struct RarerGenerationOptionsGroup: ParsableArguments {
    @Option(help: "Tokens of prompt and answer together at most; --max-new-tokens takes precedence.")
    var maxLength: Int?

    @Option(help: "Tokens of prompt and answer together at least.")
    var minLength: Int?

    @Option(
        help:
            "When beam search ends: true (as soon as there are enough answers), false (when a better answer is unlikely) or never (when it is impossible); default: false.",
        completion: .list(["true", "false", "never"])
    )
    var earlyStopping: String?

    @Option(help: "Exponent on the length in beam scores.")
    var lengthPenalty: Double?

    @Option(help: "Sample from the most typical tokens with this probability.")
    var typicalP: Double?

    @Option(help: "Sample from the best tokens whose entropy is at most this share of the whole.")
    var topH: Double?

    @Option(help: "Sample only from tokens with at least this probability.")
    var epsilonCutoff: Double?

    @Option(help: "As --epsilon-cutoff, lower where the distribution is flat.")
    var etaCutoff: Double?

    @Option(help: "Raises the logits of tokens that occur in the prompt, or in the encoder's text.")
    var encoderRepetitionPenalty: Double?

    @Option(help: "No run of this many tokens of the encoder's text occurs in the answer.")
    var encoderNoRepeatNgramSize: Int?

    @Option(help: "How strongly the prompt guides the answer (classifier-free guidance; 1: no guidance).")
    var guidanceScale: Double?

    @Option(name: .customLong("bad-words"), help: "A text that must not appear; may be repeated.")
    var badWords: [String] = []

    @Option(help: "Ids that are never generated, separated by commas.")
    var suppressTokens: String?

    @Option(help: "Ids that do not begin the answer, separated by commas.")
    var beginSuppressTokens: String?

    @Option(help: "Id that the decoder's first token is forced to be.")
    var forcedBosTokenId: Int32?

    @Option(help: "Ids, separated by commas, one of which ends an answer that reaches its maximum length.")
    var forcedEosTokenId: String?

    @Option(help: "Ids that end an answer, separated by commas (default: the model's).")
    var eosTokenId: String?

    @Option(help: "Id that fills shorter rows (default: the model's).")
    var padTokenId: Int32?

    @Flag(help: "Normalize scores after all processing.")
    var renormalizeLogits = false

    @Flag(help: "Replace scores that are not finite.")
    var removeInvalidValues = false

    @Option(help: "Draft this many tokens from earlier occurrences in the text.")
    var promptLookupNumTokens: Int?

    @Option(help: "Longest run of tokens looked up (default: 2).")
    var maxMatchingNgramSize: Int?

    @Option(help: "Tokens the assistant drafts before the model checks them (default: 20).")
    var numAssistantTokens: Int?

    @Option(
        help: "How that number changes: constant, heuristic or heuristic_transient.",
        completion: .list(["constant", "heuristic", "heuristic_transient"]))
    var numAssistantTokensSchedule: String?

    @Option(help: "The assistant ends a draft at a token it gives less than this probability (default: 0.4).")
    var assistantConfidenceThreshold: Double?

    /// Values that cannot be read are wrong usage, found before anything is loaded.
    func validate() throws {
        var config = GenerationConfig()
        try apply(to: &config)
        if badWords.contains("") { throw ValidationError("--bad-words must not be empty") }
    }

    func apply(to config: inout GenerationConfig) throws {
        config.maxLength = maxLength
        config.minLength = minLength
        config.earlyStopping = try earlyStoppingValue()
        config.lengthPenalty = lengthPenalty
        config.typicalP = typicalP
        config.topH = topH
        config.epsilonCutoff = epsilonCutoff
        config.etaCutoff = etaCutoff
        config.encoderRepetitionPenalty = encoderRepetitionPenalty
        config.encoderNoRepeatNgramSize = encoderNoRepeatNgramSize
        config.guidanceScale = guidanceScale
        config.suppressTokens = try ids(suppressTokens, "--suppress-tokens", atLeast: 0)
        config.beginSuppressTokens = try ids(beginSuppressTokens, "--begin-suppress-tokens", atLeast: 0)
        config.forcedBosTokenId = forcedBosTokenId
        let forcedEnds = try ids(forcedEosTokenId, "--forced-eos-token-id", atLeast: 0)
        if forcedEnds?.isEmpty == true { throw ValidationError("--forced-eos-token-id should be an id, found nothing") }
        config.forcedEosTokenId = forcedEnds
        config.eosTokenId = try ids(eosTokenId, "--eos-token-id")
        config.padTokenId = padTokenId
        if renormalizeLogits { config.renormalizeLogits = true }
        if removeInvalidValues { config.removeInvalidValues = true }
        config.promptLookupNumTokens = promptLookupNumTokens
        config.maxMatchingNgramSize = maxMatchingNgramSize
        config.numAssistantTokens = numAssistantTokens
        config.numAssistantTokensSchedule = try schedule()
        config.assistantConfidenceThreshold = assistantConfidenceThreshold
    }

    /// The tokens of the texts that must not appear; `nil` if there are none.
    func badWordsIds(_ tokenizer: Tokenizer) -> [[Int32]]? {
        badWords.isEmpty ? nil : Self.badWordsIds(badWords, tokenizer)
    }

    /// The tokens of each text with a space before it, as it stands within a text, and without one, as it stands at the
    /// beginning.
    static func badWordsIds(_ badWords: [String], _ tokenizer: Tokenizer) -> [[Int32]] {
        var rows: [[Int32]] = []
        for text in badWords.flatMap({ [$0, " " + $0] }) {
            let ids = tokenizer.encode(text, addSpecialTokens: false)
            if !ids.isEmpty, !rows.contains(ids) { rows.append(ids) }
        }
        return rows
    }

    private func earlyStoppingValue() throws -> EarlyStopping? {
        switch earlyStopping {
        case nil: nil
        case "true": .whenAllBeamsAreDone
        case "false": .heuristic
        case "never": .never
        case let word?: throw ValidationError("--early-stopping must be true, false or never, found \"\(word)\"")
        }
    }

    private func schedule() throws -> AssistantSchedule? {
        guard let word = numAssistantTokensSchedule else { return nil }
        guard let schedule = AssistantSchedule(rawValue: word) else {
            let words = AssistantSchedule.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("--num-assistant-tokens-schedule must be one of \(words), found \"\(word)\"")
        }
        return schedule
    }

    private func ids(_ text: String?, _ option: String, atLeast least: Int32 = .min) throws -> [Int32]? {
        try text?.split(separator: ",").map { part in
            guard let id = Int32(part.trimmingCharacters(in: .whitespaces)), id >= least else {
                throw ValidationError("\(option) must be ids separated by commas, found \"\(part)\"")
            }
            return id
        }
    }
}
