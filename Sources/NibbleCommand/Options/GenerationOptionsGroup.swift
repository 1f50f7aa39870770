import ArgumentParser
import Foundation
import Nibble
import NibbleCore
import NibbleGeneration

/// Generation options as flags. What is not given falls to `--generation-config`, then to the model's own file.
struct GenerationOptionsGroup: ParsableArguments {
    @Option(help: "Tokens to generate at most (default: 20; in chats as many as the model has positions for).")
    var maxNewTokens: Int?

    @Option(help: "Tokens to generate at least.")
    var minNewTokens: Int?

    // `CommandArguments.joiningValues` adds the value where there is none.
    @Option(
        help: ArgumentHelp(
            "Sample instead of taking the most likely token; false: never sample. The value may be left out.",
            valueName: "true|false"), completion: .list(["true", "false"]))
    var doSample: Bool?

    @Option(help: "Sample with this temperature; 0: take the most likely token.")
    var temperature: Double?

    @Option(help: "Sample from the k most likely tokens.")
    var topK: Int?

    @Option(help: "Sample from the smallest set of tokens with this probability.")
    var topP: Double?

    @Option(help: "Sample from tokens with at least this share of the best one's probability.")
    var minP: Double?

    @Option(help: "Seed of sampling; equal seeds give equal texts.", transform: GenerationOptionsGroup.seed)
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

    @Option(help: "A JSON file with the fields of GenerationConfig.", completion: .file(extensions: ["json"]))
    var generationConfig: String?

    @OptionGroup(title: "Rarer generation options")
    var rarer: RarerGenerationOptionsGroup

    /// Values out of range are wrong usage, found before anything is loaded.
    func validate() throws {
        do {
            try GenerationConfig.resolved(call: flags()).validateValues()
        } catch let error as GenerationError {
            throw ValidationError(OptionNames.onCommandLine("\(error)"))
        }
    }

    /// What the flags say, over what the file says.
    ///
    /// - Parameter isGreedyByDefault: greedy unless sampling is asked for here, whatever the model's file would do.
    /// - Throws: `JSONError`, `GenerationError` for `--generation-config`.
    func config(isGreedyByDefault: Bool = true) throws -> GenerationConfig {
        var config = try flags()
        if let generationConfig {
            let file = try GenerationConfig(
                options: JSONValue(contentsOf: URL(filePath: generationConfig)), source: generationConfig)
            config = config.filling(from: file)
        }
        if isGreedyByDefault, config.doSample == nil { config.doSample = false }
        return config
    }

    private func flags() throws -> GenerationConfig {
        var config = GenerationConfig(
            maxNewTokens: maxNewTokens, minNewTokens: minNewTokens, doSample: doSample, temperature: temperature, topK: topK,
            topP: topP, minP: minP, repetitionPenalty: repetitionPenalty, numBeams: numBeams,
            numReturnSequences: numReturnSequences, seed: seed)
        config.noRepeatNgramSize = noRepeatNgramSize
        if !stop.isEmpty { config.stopStrings = stop }
        config.maxTime = maxTime
        try rarer.apply(to: &config)
        config.chooseSampling()
        return config
    }

    private static func seed(_ text: String) throws -> UInt64 {
        guard let seed = UInt64(text) else { throw ValidationError("--seed must be a whole number from 0, found \(text)") }
        return seed
    }
}

extension GenerationConfig {
    /// Lets options of sampling ask for it, and a temperature of 0 for the most likely token.
    mutating func chooseSampling() {
        guard doSample == nil else { return }
        if temperature == 0 {
            doSample = false
            temperature = nil
        } else if temperature != nil || topK != nil || topP != nil || minP != nil || typicalP != nil || topH != nil
            || epsilonCutoff != nil || etaCutoff != nil
        {
            doSample = true
        }
    }
}
