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

    @Option(help: "Divides the logits of tokens that were seen before.")
    var repetitionPenalty: Double?

    @Option(help: "No run of this many tokens occurs twice.")
    var noRepeatNgramSize: Int?

    @Option(help: "Stop when this text appears; may be repeated.")
    var stop: [String] = []

    @Option(help: "Stop after this many seconds.")
    var maxTime: Double?

    @Option(help: "A JSON file with the fields of GenerationConfig.")
    var generationConfig: String?

    @OptionGroup(title: "Rarer generation options")
    var rarer: RarerGenerationOptionsGroup

    /// Refuses values out of range before a model is loaded. What also depends on the model's own file is checked later.
    func validate() throws {
        do {
            var config = try config()
            if numBeams == nil { config.numReturnSequences = nil }
            try config.validate()
        } catch {
            throw ValidationError("\(error)")
        }
    }

    /// What the flags say, over what the file says.
    ///
    /// - Parameter isGreedyByDefault: greedy unless sampling is asked for here, whatever the model's file would do.
    func config(isGreedyByDefault: Bool = true) throws -> GenerationConfig {
        var config = GenerationConfig(
            maxNewTokens: maxNewTokens, minNewTokens: minNewTokens, temperature: temperature, topK: topK, topP: topP, minP: minP,
            repetitionPenalty: repetitionPenalty, numBeams: numBeams, numReturnSequences: numReturnSequences, seed: seed)
        config.noRepeatNgramSize = noRepeatNgramSize
        if !stop.isEmpty { config.stopStrings = stop }
        config.maxTime = maxTime
        try rarer.apply(to: &config)
        let asksForSampling = doSample || rarer.asksForSampling || temperature != nil || topK != nil || topP != nil || minP != nil
        if asksForSampling { config.doSample = true }
        if let generationConfig {
            config = config.filling(
                from: try GenerationConfig(
                    options: JSONValue(contentsOf: URL(filePath: generationConfig)), source: generationConfig))
        }
        if isGreedyByDefault, config.doSample == nil { config.doSample = false }
        return config
    }
}
