import Foundation
import NibbleCore
import NibbleGeneration
import NibbleModels
import Testing

/// Greedy decoding of one row in the plainest words: the tokens behind `tokens`.
func greedy(
    _ model: HashModel, _ tokens: [Int32], encoder: [Int32] = [], new: Int, eos: [Int32] = []
) -> [Int32] {
    var tokens = tokens
    var result: [Int32] = []
    while result.count < new, result.isEmpty || !eos.contains(result[result.count - 1]) {
        let next = Int32(NaiveSampling.argmax(model.logits(tokens, encoder: encoder)))
        tokens.append(next)
        result.append(next)
    }
    return result
}

/// A configuration with special tokens.
func config(
    new: Int? = nil, eos: [Int32]? = nil, pad: Int32? = nil, _ change: (inout GenerationConfig) -> Void = { _ in }
) -> GenerationConfig {
    var config = GenerationConfig(maxNewTokens: new)
    config.eosTokenId = eos
    config.padTokenId = pad
    change(&config)
    return config
}

@Suite struct SamplingLoopTests {
    let model = HashModel()
    var generator: Generator { Generator(model: model) }

    @Test("Rows of a left-padded batch are what they are alone, padded behind their end", arguments: 1...20)
    func batch(_ seed: Int) throws {
        let model = HashModel(vocabularySize: 10, seed: UInt64(seed))
        let texts: [[Int32]] = [[4, 5, 6, 7], [8], [9, 4]]
        let inputs = texts.map { Array(repeating: Int32(0), count: 4 - $0.count) + $0 }
        let mask = texts.map { Array(repeating: Int32(0), count: 4 - $0.count) + $0.map { _ in 1 } }
        let output = try Generator(model: model).generate(
            inputs: inputs, attentionMask: mask, config: config(new: 12, eos: [2, 3], pad: 0))
        let expected = texts.map { greedy(model, $0, new: 12, eos: [2, 3]) }
        let longest = expected.map(\.count).max() ?? 0
        #expect(
            output.sequences
                == zip(inputs, expected).map { $0 + $1 + Array(repeating: 0, count: longest - $1.count) })
        #expect(output.newTokenCounts == expected.map(\.count))
        for row in texts.indices {
            #expect(Array(output.newTokens(row: row)) == expected[row])
            let last = expected[row].last ?? 0
            #expect(output.finishReasons[row] == ([2, 3].contains(last) ? .endOfSequence(last) : .maxLength))
        }
    }

    @Test("Masked positions are left out wherever they stand")
    func maskInside() throws {
        let output = try generator.generate(
            inputs: [[5, 9, 6]], attentionMask: [[1, 0, 1]], config: config(new: 4))
        #expect(output.sequences == [[5, 9, 6] + greedy(model, [5, 6], new: 4)])
    }

    @Test("Right padding is only warned of")
    func rightPadding() throws {
        let output = try generator.generate(
            inputs: [[5, 6], [7, 0]], attentionMask: [[1, 1], [1, 0]], config: config(new: 3))
        #expect(output.warnings.contains(.rightPadding(row: 1)))
        #expect(output.sequences[0] == [5, 6] + greedy(model, [5, 6], new: 3))
    }

    @Test("Without a mask padding is recognised by its id, unless that is an eos")
    func maskFromPadding() throws {
        let masked = try generator.generate(inputs: [[1, 5]], config: config(new: 3, eos: [2], pad: 1))
        #expect(Array(masked.newTokens(row: 0)) == greedy(model, [5], new: 3, eos: [2]))
        let whole = try generator.generate(inputs: [[1, 5]], config: config(new: 3, eos: [2, 1], pad: 1))
        #expect(Array(whole.newTokens(row: 0)) == greedy(model, [1, 5], new: 3, eos: [2, 1]))
    }

    @Test("Rows of different length are padded on the left")
    func raggedRows() throws {
        let output = try generator.generate(inputs: [[5], [6, 7, 8]], config: config(new: 2, eos: [3]))
        #expect(Array(output.sequences[0].prefix(3)) == [3, 3, 5])
        #expect(Array(output.newTokens(row: 0)) == greedy(model, [5], new: 2, eos: [3]))
        #expect(throws: GenerationError.missingToken(name: "pad_token_id", purpose: "to batch prompts of different length")) {
            try generator.generate(inputs: [[5], [6, 7]], config: config(new: 2))
        }
    }

    @Test("No input begins with bos")
    func noInput() throws {
        let output = try generator.generate(inputs: [], config: config(new: 2) { $0.bosTokenId = 4 })
        #expect(output.sequences == [[4] + greedy(model, [4], new: 2)])
        #expect(throws: GenerationError.self) { try generator.generate(inputs: [[]], config: config(new: 2)) }
    }

    @Test("Masks that do not fit, and rows of nothing but padding, are refused")
    func badMasks() {
        let config = config(new: 2)
        #expect(throws: GenerationError.emptyRow(row: 1)) {
            try generator.generate(inputs: [[5, 6], [7, 8]], attentionMask: [[1, 1], [0, 0]], config: config)
        }
        for mask in [[[1, 1]], [[1], [1]], [[1, 1], [1, 1, 1]]] as [[[Int32]]] {
            #expect(throws: GenerationError.self) {
                try generator.generate(inputs: [[5, 6], [7, 8]], attentionMask: mask, config: config)
            }
        }
    }

    @Test("Lengths: new tokens go before the total; neither means 20, within the model's positions")
    func lengths() throws {
        func length(_ config: GenerationConfig, positions: Int? = nil) throws -> Int {
            try Generator(model: HashModel(maximumPositions: positions)).generate(inputs: [[5, 6]], config: config)
                .sequences[0].count
        }
        #expect(try length(GenerationConfig(maxNewTokens: 3)) == 5)
        #expect(try length(GenerationConfig(maxLength: 7)) == 7)
        #expect(try length(GenerationConfig(maxNewTokens: 3, maxLength: 9)) == 5)
        #expect(try length(GenerationConfig()) == 22)
        #expect(try length(GenerationConfig(), positions: 10) == 10)
        #expect(throws: GenerationError.promptTooLong(length: 2, maximum: 2)) { try length(GenerationConfig(maxLength: 2)) }
        let output = try generator.generate(inputs: [[5]], config: GenerationConfig(maxNewTokens: 3, maxLength: 9))
        #expect(output.warnings == [.bothLengthsGiven(maxLength: 9, maxNewTokens: 3)])
        let long = Generator(model: model, modelConfig: GenerationConfig(maxLength: 4))
        #expect(try long.generate(inputs: [[5]]).sequences[0].count == 4)
    }

    @Test("Minima hold eos back")
    func minima() throws {
        let always = HashModel(vocabularySize: 2, seed: 3, spread: 0)
        func count(_ change: (inout GenerationConfig) -> Void) throws -> Int {
            try Generator(model: always).generate(inputs: [[1, 1]], config: config(new: 8, eos: [0], change)).newTokenCounts[0]
        }
        #expect(try count { _ in } == 1)
        #expect(try count { $0.minNewTokens = 3 } == 4)
        #expect(try count { $0.minLength = 4 } == 3)
        #expect(try count { $0.minNewTokens = 50 } == 8)
    }

    @Test("The time is checked behind each step")
    func maxTime() throws {
        let output = try generator.generate(inputs: [[5], [6]], config: config(new: 9) { $0.maxTime = 0 })
        #expect(output.newTokenCounts == [1, 1])
        #expect(output.finishReasons == [.maxTime, .maxTime])
        let ample = try generator.generate(inputs: [[5]], config: config(new: 9) { $0.maxTime = .infinity })
        #expect(ample.newTokenCounts == [9])
    }

    @Test("A caller's criterion ends a row; without eos the others keep it company")
    func customCriterion() throws {
        let plain = try generator.generate(inputs: [[5], [6]], config: config(new: 6))
        let output = try generator.generate(
            inputs: [[5], [6]], config: config(new: 6), stopping: [{ $0.row == 0 && $0.ids.count == 3 }])
        #expect(output.sequences == plain.sequences)
        #expect(output.newTokenCounts == [2, 6])
        let withEos = try generator.generate(
            inputs: [[5], [6]], config: config(new: 6, eos: [99], pad: 7),
            stopping: [{ $0.row == 0 && $0.ids.count == 3 }])
        #expect(withEos.sequences == [Array(plain.sequences[0].prefix(3)) + [7, 7, 7, 7], plain.sequences[1]])
        #expect(withEos.finishReasons == [.stoppingCriterion, .maxLength])
    }

    @Test(
        "Sampling on the device and on the host draws the same tokens",
        arguments: [
            GenerationConfig(doSample: true, topK: 0), GenerationConfig(doSample: true, temperature: 0.7),
            GenerationConfig(doSample: true, temperature: 1.7, topK: 5), GenerationConfig(doSample: true, topK: 0, topP: 0.8),
            GenerationConfig(doSample: true, temperature: 0.9, topK: 12, topP: 0.9, minP: 0.05),
            GenerationConfig(doSample: false),
        ])
    func deviceAndHost(_ base: GenerationConfig) throws {
        var config = base
        config.maxNewTokens = 200
        config.seed = 5
        let inputs: [[Int32]] = [[3], [4], [5]]
        let device = try generator.generate(inputs: inputs, config: config)
        config.outputScores = true
        let host = try generator.generate(inputs: inputs, config: config)
        #expect(device.sequences == host.sequences)
        #expect(device.scores == nil && host.scores?.count == 200)
    }

    @Test("Returned sequences of an item are drawn independently; a row's numbers depend on nothing but its number")
    func returnedSequences() throws {
        let several = GenerationConfig(maxNewTokens: 30, doSample: true, numReturnSequences: 3, seed: 9)
        let output = try generator.generate(inputs: [[3], [4]], config: several)
        #expect(output.sequences.map { $0[0] } == [3, 3, 3, 4, 4, 4])
        #expect(Set(output.sequences).count == 6)
        let single = GenerationConfig(maxNewTokens: 30, doSample: true, seed: 9)
        let rows = try generator.generate(inputs: [[3], [3], [3], [4], [4], [4]], config: single)
        #expect(rows.sequences == output.sequences)
    }

    @Test("Scores are processed, logits are not, log-probabilities are of the scores")
    func recordedScores() throws {
        var request = GenerationRequest(
            inputs: [[5], [6]],
            config: config(new: 4, eos: [2], pad: 0) {
                $0.suppressTokens = [1, 3]
                $0.outputScores = true
                $0.outputLogits = true
            })
        request.logProbabilities = true
        let output = try generator.generate(request)
        let scores = try #require(output.scores)
        let logits = try #require(output.logits)
        let logs = try #require(output.tokenLogProbabilities)
        #expect(scores.count == output.sequences[0].count - 1)
        let first = model.logits([5])
        #expect(Array(logits[0].prefix(24)) == first)
        #expect(scores[0][1] == -.infinity && scores[0][0] == first[0])
        for row in 0..<2 {
            for (step, log) in logs[row].enumerated() {
                let probabilities = NaiveSampling.softmax(Array(scores[step][(row * 24)..<((row + 1) * 24)]))
                let token = Int(output.newTokens(row: row)[1 + step])
                #expect(abs(Double(log) - probabilities[token].logarithm) < 1e-5)
            }
        }
    }

    @Test("Guidance moves scores away from the other prompt")
    func guidance() throws {
        for negative in [nil, [[7, 8, 9]]] as [[[Int32]]?] {
            var request = GenerationRequest(inputs: [[5, 6]], config: config(new: 8) { $0.guidanceScale = 1.8 })
            request.negativePrompt = negative
            let output = try generator.generate(request)
            var tokens: [Int32] = [5, 6]
            for _ in 0..<8 {
                let s = NaiveSampling.softmax(model.logits(tokens)).map(\.logarithm)
                let u = NaiveSampling.softmax(model.logits((negative?[0] ?? [6]) + tokens.dropFirst(2))).map(\.logarithm)
                let scores = zip(s, u).map { Float($1 + 1.8 * ($0 - $1)) }
                tokens.append(Int32(NaiveSampling.argmax(scores)))
            }
            #expect(output.sequences == [tokens])
        }
    }

    @Test("Guidance follows beams")
    func guidedBeams() throws {
        // With scale 0 the scores are those of the other prompt alone, whatever the beams do.
        var request = GenerationRequest(
            inputs: [[5, 6, 7]],
            config: config(new: 7, eos: [2], pad: 0) {
                $0.guidanceScale = 0
                $0.numBeams = 3
            })
        request.negativePrompt = [[9, 8, 7]]
        let guided = try generator.generate(request)
        let plain = try generator.generate(inputs: [[9, 8, 7]], config: config(new: 7, eos: [2], pad: 0) { $0.numBeams = 3 })
        #expect(guided.newTokens(row: 0) == plain.newTokens(row: 0))
        #expect(abs((guided.sequencesScores?[0] ?? 0) - (plain.sequencesScores?[0] ?? 1)) < 1e-4)
    }
}

extension Double {
    var logarithm: Double { Foundation.log(self) }
}
