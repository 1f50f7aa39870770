import NibbleCore
import NibbleGeneration
import NibbleModels
import Testing

@Suite struct DrawTests {
    /// Every token of every row is one draw from the same distribution.
    private let model = HashModel(vocabularySize: 12, seed: 12, spread: 5, memory: 0)

    private func counts(_ sequences: [[Int32]], from start: Int = 1) -> [Int] {
        var counts = [Int](repeating: 0, count: 12)
        for sequence in sequences {
            for token in sequence[start...] { counts[Int(token)] += 1 }
        }
        return counts
    }

    @Test(
        "100,000 draws follow the processed distribution",
        arguments: [
            GenerationConfig(topK: 0), GenerationConfig(topK: 5), GenerationConfig(topK: 0, topP: 0.7),
            GenerationConfig(temperature: 1.8, topK: 0, minP: 0.1),
        ])
    func plain(_ base: GenerationConfig) throws {
        var config = base
        config.doSample = true
        config.maxNewTokens = 1000
        config.seed = 2024
        // A warper without effect here keeps the selection on the host.
        config.epsilonCutoff = 1e-12
        let output = try Generator(model: model).generate(inputs: Array(repeating: [1], count: 100), config: config)
        let expected = NaiveSampling.softmax(try processed(model.logits([]), [1], config))
        let test = ChiSquare(counts(output.sequences), expected)
        #expect(test.isPlausible, "deviate \(test.deviate), impossible \(test.impossible)")
    }

    @Test("Speculative sampling has the distribution of plain sampling", arguments: [0, 5])
    func speculative(_ topK: Int) throws {
        let draft = HashModel(vocabularySize: 12, seed: 13, spread: 4, memory: 0)
        var config = GenerationConfig(maxNewTokens: 1000, doSample: true, temperature: 1.3, topK: topK)
        config.numAssistantTokens = 3
        var total = [Int](repeating: 0, count: 12)
        for seed in 0..<100 {
            config.seed = UInt64(seed)
            var request = GenerationRequest(inputs: [[1]], config: config)
            request.assistant = draft
            let output = try Generator(model: model).generate(request)
            total = zip(total, counts(output.sequences)).map { $0 + $1 }
        }
        #expect(total.reduce(0, +) == 100_000)
        let expected = NaiveSampling.softmax(try processed(model.logits([]), [1], config))
        let test = ChiSquare(total, expected)
        #expect(test.isPlausible, "deviate \(test.deviate), impossible \(test.impossible)")
    }

    @Test("Pairs of tokens of speculative sampling are independent draws")
    func speculativePairs() throws {
        let model = HashModel(vocabularySize: 4, seed: 12, spread: 3, memory: 0)
        let draft = HashModel(vocabularySize: 4, seed: 15, spread: 3, memory: 0)
        var config = GenerationConfig(maxNewTokens: 2000, doSample: true, topK: 0)
        var pairs = [Int](repeating: 0, count: 16)
        for seed in 0..<20 {
            config.seed = UInt64(seed)
            var request = GenerationRequest(inputs: [[1]], config: config)
            request.assistant = draft
            let tokens = try Generator(model: model).generate(request).sequences[0].dropFirst()
            for (a, b) in zip(tokens, tokens.dropFirst()) { pairs[Int(a) * 4 + Int(b)] += 1 }
        }
        let p = NaiveSampling.softmax(model.logits([]))
        let test = ChiSquare(pairs, (0..<16).map { p[$0 / 4] * p[$0 % 4] })
        #expect(test.isPlausible, "deviate \(test.deviate)")
    }

    @Test("The test itself notices a distribution that is off")
    func testHasPower() {
        let p = NaiveSampling.softmax(model.logits([]))
        let fair = p.map { Int(($0 * 100_000).rounded()) }
        #expect(ChiSquare(fair, p).isPlausible)
        var skewed = fair
        let moved = skewed[0] / 10
        skewed[0] -= moved
        skewed[1] += moved
        #expect(!ChiSquare(skewed, p).isPlausible)
        #expect(!ChiSquare([10, 1], [1, 0]).isPlausible)
    }

    @Test("A draw is the first token whose cumulative probability exceeds the random number")
    func inverseCumulative() throws {
        let config = GenerationConfig(maxNewTokens: 300, doSample: true, topK: 0, seed: 31)
        let output = try Generator(model: model).generate(inputs: [[1], [1]], config: config)
        let p = NaiveSampling.softmax(model.logits([]))
        for row in 0..<2 {
            for step in 0..<300 {
                let u = RandomStream.uniform(seed: 31, stream: UInt64(row), counter: UInt64(step))
                #expect(Int(output.sequences[row][1 + step]) == NaiveSampling.draw(p, u))
            }
        }
    }
}
