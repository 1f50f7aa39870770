import ArgumentParser
import Foundation
import Nibble
import NibbleCore

/// Generation options as flags. What is not given falls to `--generation-config`, then to the model's own file.
struct GenerationOptionsGroup: ParsableArguments {
    @Option(help: "Tokens to generate at most (default: 20).")
    var maxNewTokens: Int?

    @Option(help: "Tokens to generate at least.")
    var minNewTokens: Int?

    @Flag(help: "Sample instead of taking the most likely token.")
    var doSample = false

    @Option(help: "Sample with this temperature.")
    var temperature: Double?

    @Option(help: "Sample from the k most likely tokens.")
    var topK: Int?

    @Option(help: "Sample from the smallest set of tokens with this probability.")
    var topP: Double?

    @Option(help: "Sample from tokens with at least this share of the best one's probability.")
    var minP: Double?

    @Option(help: "Seed of sampling; equal seeds give equal texts.")
    var seed: UInt64?

    @Option(help: "Beams of beam search.")
    var numBeams: Int?

    @Option(help: "Sequences to return for each prompt.")
    var numReturnSequences: Int?

    @Option(help: "Exponent on the length in beam scores.")
    var lengthPenalty: Double?

    @Option(help: "Divides the logits of tokens that were seen before.")
    var repetitionPenalty: Double?

    @Option(help: "No run of this many tokens occurs twice.")
    var noRepeatNgramSize: Int?

    @Option(help: "Stop when this text appears; may be repeated.")
    var stop: [String] = []

    @Option(help: "Stop after this many seconds.")
    var maxTime: Double?

    @Option(help: "Draft this many tokens from earlier occurrences in the text.")
    var promptLookupNumTokens: Int?

    @Option(help: "A JSON file with the fields of GenerationConfig.")
    var generationConfig: String?

    /// What the flags say, over what the file says.
    func config() throws -> GenerationConfig {
        var config = GenerationConfig()
        if let generationConfig {
            config = try GenerationConfig(options: JSONValue(contentsOf: URL(filePath: generationConfig)), source: generationConfig)
        }
        if let maxNewTokens { config.maxNewTokens = maxNewTokens }
        if let minNewTokens { config.minNewTokens = minNewTokens }
        if let temperature { config.temperature = temperature }
        if let topK { config.topK = topK }
        if let topP { config.topP = topP }
        if let minP { config.minP = minP }
        if let seed { config.seed = seed }
        if let numBeams { config.numBeams = numBeams }
        if let numReturnSequences { config.numReturnSequences = numReturnSequences }
        if let lengthPenalty { config.lengthPenalty = lengthPenalty }
        if let repetitionPenalty { config.repetitionPenalty = repetitionPenalty }
        if let noRepeatNgramSize { config.noRepeatNgramSize = noRepeatNgramSize }
        if !stop.isEmpty { config.stopStrings = stop }
        if let maxTime { config.maxTime = maxTime }
        if let promptLookupNumTokens { config.promptLookupNumTokens = promptLookupNumTokens }
        if doSample || temperature != nil || topK != nil || topP != nil || minP != nil { config.doSample = true }
        // Greedy unless sampling is asked for here, whatever the model's file would do.
        if config.doSample == nil { config.doSample = false }
        return config
    }
}
