import Foundation
import NibbleCore
import NibbleGeneration
import NibbleModels
import Testing

/// One setting, chosen by its number.
private struct BeamSetting: CustomStringConvertible, Sendable {
    let number: Int

    private func pick(_ purpose: Int, _ count: Int) -> Int {
        Int(RandomStream.mix(UInt64(number) << 16 | UInt64(purpose)) % UInt64(count))
    }

    var description: String { "setting \(number)" }
    var items: Int { 1 + pick(0, 3) }
    var beams: Int { 2 + pick(1, 4) }
    var lengthPenalty: Double { [-1, 0, 0.6, 1, 2][pick(2, 5)] }
    var earlyStopping: String { ["true", "false", "never"][pick(3, 3)] }
    var eos: [Int32] { Array([3, 5].prefix(pick(4, 3))) }
    var pad: Int32? { [nil, 0, 7][pick(5, 3)] }
    var isEncoderDecoder: Bool { pick(6, 3) == 0 }
    var newTokens: Int { 1 + pick(7, 9) }
    var returned: Int { 1 + pick(8, beams) }
    var repetitionPenalty: Double { pick(9, 4) == 0 ? 1.3 : 1 }
    var spread: Float { [1, 3, 8][pick(10, 3)] }
    func token(_ item: Int, _ position: Int) -> Int32 { Int32(8 + pick(100 + item * 10 + position, 4)) }
}

@Suite struct BeamSearchTests {
    @Test("Beam search gives what the listing gives", arguments: 0..<150)
    func listing(_ number: Int) throws {
        let setting = BeamSetting(number: number)
        let model = HashModel(
            vocabularySize: 12, isEncoderDecoder: setting.isEncoderDecoder, seed: UInt64(number), spread: setting.spread)
        // Item i is padded by i tokens on the left.
        let width = 4
        let texts = (0..<setting.items).map { item in (0..<(width - item)).map { setting.token(item, $0) } }
        let inputs = texts.map { Array(repeating: Int32(7), count: width - $0.count) + $0 }
        let mask = texts.map { Array(repeating: Int32(0), count: width - $0.count) + $0.map { _ in 1 } }
        let prompts = setting.isEncoderDecoder ? texts.map { _ in [Int32(1)] } : inputs
        let plain = PlainBeamSearch(
            model: model, prompts: prompts,
            starts: setting.isEncoderDecoder ? texts.map { _ in 0 } : texts.map { width - $0.count },
            encoders: setting.isEncoderDecoder ? texts : [], beams: setting.beams,
            maxLength: prompts[0].count + setting.newTokens, eos: setting.eos, pad: setting.pad ?? setting.eos.first,
            lengthPenalty: setting.lengthPenalty, earlyStopping: setting.earlyStopping, returned: setting.returned,
            repetitionPenalty: Float(setting.repetitionPenalty)
        ).run()

        var config = GenerationConfig(
            maxNewTokens: setting.newTokens, repetitionPenalty: setting.repetitionPenalty, numBeams: setting.beams,
            numReturnSequences: setting.returned)
        config.eosTokenId = setting.eos.isEmpty ? nil : setting.eos
        config.padTokenId = setting.pad
        config.lengthPenalty = setting.lengthPenalty
        config.earlyStopping = ["true": .whenAllBeamsAreDone, "never": .never][setting.earlyStopping] ?? .heuristic
        config.decoderStartTokenId = [1]
        let output = try Generator(model: model).generate(inputs: inputs, attentionMask: mask, config: config)
        #expect(output.sequences == plain.sequences)
        #expect(output.beamIndices?.map { $0.map(Int.init) } == plain.indices)
        let scores = try #require(output.sequencesScores)
        #expect(scores.count == plain.scores.count)
        #expect(zip(scores, plain.scores).allSatisfy { abs($0 - $1) < 1e-4 })
    }

    @Test("The score of a sequence is the sum of its tokens' log-probabilities over its length")
    func scoresAddUp() throws {
        let model = HashModel(vocabularySize: 16, seed: 4)
        var config = GenerationConfig(maxNewTokens: 6, numBeams: 3, numReturnSequences: 3)
        config.eosTokenId = [2]
        config.outputScores = true
        var request = GenerationRequest(inputs: [[4, 5]], config: config)
        request.logProbabilities = true
        let output = try Generator(model: model).generate(request)
        let scores = try #require(output.scores)
        let logs = try #require(output.tokenLogProbabilities)
        let origins = try #require(output.beamIndices)
        for row in 0..<3 {
            let sum = logs[row].reduce(0, +)
            #expect(abs(sum / Float(logs[row].count) - (output.sequencesScores?[row] ?? 0)) < 1e-5)
            for (step, log) in logs[row].enumerated() {
                let token = Int(output.newTokens(row: row)[output.promptLength + step])
                #expect(scores[step][Int(origins[row][step]) * 16 + token] == log)
            }
        }
    }

    @Test("Beam sampling draws candidates without replacement")
    func beamSampling() throws {
        let model = HashModel(vocabularySize: 6, seed: 3, spread: 4)
        let p = NaiveSampling.softmax(model.logits([1]))
        var counts = [Int](repeating: 0, count: 36)
        let generator = Generator(model: model)
        var config = GenerationConfig(
            maxNewTokens: 1, doSample: true, topK: 0, numBeams: 2, numReturnSequences: 2)
        for seed in 0..<20_000 {
            config.seed = UInt64(seed)
            let output = try generator.generate(inputs: [[1]], config: config)
            let pair = output.sequences.map { Int($0[1]) }.sorted()
            counts[pair[0] * 6 + pair[1]] += 1
        }
        let expected = (0..<36).map { index in
            let (a, b) = (index / 6, index % 6)
            return a < b ? p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b]) : 0
        }
        let test = ChiSquare(counts, expected)
        #expect(test.isPlausible, "deviate \(test.deviate), impossible \(test.impossible)")
    }

    @Test("The same seed gives the same beam sample")
    func beamSamplingIsDeterministic() throws {
        let model = HashModel(seed: 8)
        let config = GenerationConfig(
            maxNewTokens: 12, doSample: true, temperature: 1.5, topK: 3, numBeams: 4, numReturnSequences: 4, seed: 77)
        let generator = Generator(model: model)
        let first = try generator.generate(inputs: [[1, 2], [3, 4]], config: config)
        #expect(try generator.generate(inputs: [[1, 2], [3, 4]], config: config).sequences == first.sequences)
        #expect(first.seed == 77)
    }

    @Test("Beams cannot be streamed, nor be combined with an assistant")
    func conflicts() {
        let model = HashModel()
        let config = GenerationConfig(maxNewTokens: 2, numBeams: 2)
        #expect(throws: GenerationError.self) {
            try Generator(model: model).generate(inputs: [[1]], config: config, onToken: { _ in })
        }
        var request = GenerationRequest(inputs: [[1]], config: config)
        request.assistant = model
        #expect(throws: GenerationError.self) { try Generator(model: model).generate(request) }
    }

    @Test("A stop string or a criterion finishes a beam")
    func stopConditions() throws {
        let model = HashModel(vocabularySize: 8, seed: 5)
        let generator = Generator(model: model, tokenBytes: { [UInt8(ascii: "a") + UInt8($0)] })
        var config = GenerationConfig(maxNewTokens: 12, numBeams: 3)
        config.stopStrings = ["c"]
        config.earlyStopping = .whenAllBeamsAreDone
        let output = try generator.generate(inputs: [[1]], config: config)
        #expect(output.finishReasons == [.stopString("c")])
        #expect(output.sequences[0].last == 2)
        config.stopStrings = nil
        let short = try generator.generate(
            inputs: [[1]], config: config, stopping: [{ $0.ids.count == 4 }])
        #expect(short.sequences[0].count == 4)
        #expect(short.finishReasons == [.stoppingCriterion])
    }
}
