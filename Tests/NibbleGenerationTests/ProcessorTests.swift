import Foundation
import NibbleCore
import NibbleGeneration
import NibbleModels
import Testing

private let infinity = Float.infinity

/// Deterministic scores; every third comes from a few values only, so that there are ties.
private func randomScores(_ seed: UInt64, _ count: Int = 60) -> [Float] {
    (0..<count).map { index in
        let u = RandomStream.uniform(seed: seed, stream: 0, counter: UInt64(index))
        return index % 3 == 0 ? (u * 8).rounded() - 4 : (u - 0.5) * 12
    }
}

private func options(_ json: JSONValue, sampling: Bool = false) throws -> GenerationConfig {
    var config = try GenerationConfig(options: json)
    config.doSample = sampling
    if sampling, config.topK == nil { config.topK = 0 }
    return config
}

@Suite struct ProcessorTests {
    let flat: [Float] = [1, -2, 3, -4, 5, 0]

    @Test("Sequence bias adds to single tokens, and to tokens that complete a sequence")
    func sequenceBias() throws {
        let config = try options(["sequence_bias": [[[2], 1.5], [[0, 1, 2], 2], [[1, 3], -1], [[4, 5, 4, 5, 4], 9]]])
        #expect(try processed(flat, [0, 1], config) == [1, -2, 6.5, -5, 5, 0])
        #expect(try processed(flat, [1, 0], config) == [1, -2, 4.5, -4, 5, 0])
        // As long as the prefix is enough.
        #expect(try processed(flat, [4, 5, 4, 5], config)[4] == 14)
    }

    @Test(
        "Biased and forced tokens must be in the vocabulary",
        arguments: [
            ["sequence_bias": [[[6], 1]]], ["bad_words_ids": [[0, 6]]], ["forced_bos_token_id": 6], ["forced_eos_token_id": [-1]],
        ] as [JSONValue])
    func tokensInVocabulary(_ json: JSONValue) {
        #expect(throws: GenerationError.self) { try processed(flat, [0], try options(json)) }
    }

    @Test("Repetition penalty counts each token once and no left padding")
    func repetitionPenalty() throws {
        let config = try options(["repetition_penalty": 2])
        #expect(try processed(flat, [0, 1, 1, 3, 3, 3], config) == [0.5, -4, 3, -8, 5, 0])
        #expect(try processed(flat, [0, 0, 1], config, maskStart: 2) == [1, -4, 3, -4, 5, 0])
    }

    @Test("Encoder repetition penalty favours the input's tokens")
    func encoderRepetitionPenalty() throws {
        let config = try options(["encoder_repetition_penalty": 2])
        #expect(try processed(flat, [5], config, encoder: [0, 1, 1]) == [2, -1, 3, -4, 5, 0])
        #expect(try processed(flat, [0, 1, 4], config, prompt: 2) == [2, -1, 3, -4, 5, 0])
    }

    @Test("No n-gram is completed twice")
    func noRepeatNgram() throws {
        let ids: [Int32] = [0, 1, 2, 0, 1, 3, 0, 1]
        let seen = try processed(flat, ids, options(["no_repeat_ngram_size": 1]))
        #expect(seen == [-infinity, -infinity, -infinity, -infinity, 5, 0])
        #expect(try processed(flat, ids, options(["no_repeat_ngram_size": 2])) == [1, -2, -infinity, -infinity, 5, 0])
        #expect(try processed(flat, ids, options(["no_repeat_ngram_size": 4])) == flat)
        #expect(try processed(flat, [0], options(["no_repeat_ngram_size": 3])) == flat)
        let encoder = try options(["encoder_no_repeat_ngram_size": 2])
        #expect(try processed(flat, [5, 0], encoder, encoder: [0, 4, 1, 0, 2]) == [1, -2, -infinity, -4, -infinity, 0])
    }

    @Test("Bad words are forbidden, but a lone eos is not")
    func badWords() throws {
        let config = try options(["bad_words_ids": [[2], [0, 1], [4]], "eos_token_id": 4])
        #expect(try processed(flat, [3, 0], config) == [1, -infinity, -infinity, -4, 5, 0])
        #expect(try processed(flat, [0, 3], config) == [1, -2, -infinity, -4, 5, 0])
    }

    @Test("eos waits for the shortest length")
    func minimumLengths() throws {
        let config = try options(["eos_token_id": [1, 2, 99]])
        #expect(try processed(flat, [0, 0], config, minLength: 3) == [1, -infinity, -infinity, -4, 5, 0])
        #expect(try processed(flat, [0, 0], config, minLength: 2) == flat)
        let new = try options(["eos_token_id": 1, "min_new_tokens": 2])
        #expect(try processed(flat, [0, 0, 0], new, prompt: 2)[1] == -infinity)
        #expect(try processed(flat, [0, 0, 0, 0], new, prompt: 2) == flat)
    }

    @Test("First and last tokens can be forced")
    func forcedTokens() throws {
        let forced: [Float] = [-infinity, -infinity, 0, -infinity, -infinity, -infinity]
        let bos = try options(["forced_bos_token_id": 2])
        #expect(try processed(flat, [0], bos) == forced)
        #expect(try processed(flat, [0, 0], bos) == flat)
        let eos = try options(["forced_eos_token_id": [2]])
        #expect(try processed(flat, [0, 0], eos, maxLength: 3) == forced)
        #expect(try processed(flat, [0], eos, maxLength: 3) == flat)
    }

    @Test("Numbers that are none are replaced")
    func invalidValues() throws {
        let config = try options(["remove_invalid_values": true])
        let most = Float.greatestFiniteMagnitude
        #expect(try processed([.nan, infinity, -infinity, 2], [0], config) == [0, most, -most, 2])
    }

    @Test("eos grows behind a length")
    func exponentialDecay() throws {
        let config = try options(["exponential_decay_length_penalty": [1, 1.5], "eos_token_id": [2, 3]])
        #expect(try processed(flat, [0, 0], config, prompt: 1) == flat)
        let later = try processed(flat, [0, 0, 0, 0], config, prompt: 1)
        #expect(abs(later[2] - (3 + 3 * 1.25)) < 1e-5)
        #expect(abs(later[3] - (-4 + 4 * 1.25)) < 1e-5)
        let forbidden = try processed([0, 0, -infinity, 0], [0, 0, 0, 0], config, prompt: 1)
        #expect(forbidden[2] == -infinity)
    }

    @Test("Tokens are suppressed always, or at the beginning")
    func suppression() throws {
        #expect(try processed(flat, [0, 0], options(["suppress_tokens": [0, 5, 77]])) == [-infinity, -2, 3, -4, 5, -infinity])
        let begin = try options(["begin_suppress_tokens": [0]])
        #expect(try processed(flat, [1, 2], begin)[0] == -infinity)
        #expect(try processed(flat, [1, 2, 3], begin, prompt: 2) == flat)
        let behindBos = try options(["begin_suppress_tokens": [0], "forced_bos_token_id": 3])
        #expect(try processed(flat, [1, 3], behindBos, prompt: 1)[0] == -infinity)
        #expect(try processed(flat, [1], behindBos, prompt: 1)[3] == 0)
    }

    @Test("Renormalized scores are log-probabilities")
    func renormalize() throws {
        let scores = try processed(flat, [0], options(["renormalize_logits": true]))
        #expect(abs(scores.map { exp(Double($0)) }.reduce(0, +) - 1) < 1e-6)
        #expect(abs((scores[4] - scores[2]) - 2) < 1e-6)
    }

    @Test("Processors are applied in transformers' order")
    func order() throws {
        let config = try options(
            [
                "sequence_bias": [[[1], 1]], "encoder_repetition_penalty": 1.1, "repetition_penalty": 1.1,
                "no_repeat_ngram_size": 2, "encoder_no_repeat_ngram_size": 2, "bad_words_ids": [[1]], "min_new_tokens": 1,
                "eos_token_id": 2, "forced_bos_token_id": 1, "forced_eos_token_id": 2, "remove_invalid_values": true,
                "exponential_decay_length_penalty": [1, 1.1], "suppress_tokens": [1], "begin_suppress_tokens": [1],
                "temperature": 0.5, "top_h": 0.5, "top_k": 5, "top_p": 0.5, "min_p": 0.5, "typical_p": 0.5,
                "epsilon_cutoff": 0.1, "eta_cutoff": 0.1, "renormalize_logits": true,
            ], sampling: true)
        let list = try LogitsProcessorList.make(
            GenerationConfig.resolved(call: config),
            ProcessorSetting(
                vocabularySize: 6, promptLength: 1, maxLength: 9, minLength: 2, eos: [2],
                prefixAllowedTokens: { _, _ in [1] }, custom: [Doubling()])
        ).list
        #expect(
            list.processors.map { "\(type(of: $0))" } == [
                "SequenceBiasProcessor", "EncoderRepetitionPenaltyProcessor", "RepetitionPenaltyProcessor",
                "NoRepeatNgramProcessor", "EncoderNoRepeatNgramProcessor", "NoBadWordsProcessor", "MinLengthProcessor",
                "MinNewTokensProcessor", "PrefixConstrainedProcessor", "ForcedBosProcessor", "ForcedEosProcessor",
                "InfNanRemoveProcessor", "ExponentialDecayProcessor", "SuppressTokensProcessor",
                "SuppressTokensAtBeginProcessor", "Doubling", "TemperatureWarper", "TopHWarper", "TopKWarper", "TopPWarper",
                "MinPWarper", "TypicalWarper", "EpsilonWarper", "EtaWarper", "LogitNormalizationProcessor",
            ])
    }

    @Test("A caller's processor replaces a standard one of its type, with a warning")
    func replacement() throws {
        let config = GenerationConfig.resolved(call: try options(["suppress_tokens": [1], "repetition_penalty": 2]))
        let made = try LogitsProcessorList.make(
            config,
            ProcessorSetting(
                vocabularySize: 6, promptLength: 1, maxLength: 9,
                custom: [Doubling(), RepetitionPenaltyProcessor(penalty: 3)]))
        #expect(
            made.list.processors.map { "\(type(of: $0))" } == [
                "RepetitionPenaltyProcessor", "SuppressTokensProcessor", "Doubling",
            ])
        #expect(made.warnings == [.replacedProcessor("RepetitionPenaltyProcessor")])
        let scores = try processed(
            [3, 3], [0], try options(["repetition_penalty": 2]),
            custom: [RepetitionPenaltyProcessor(penalty: 3)])
        #expect(scores == [1, 3])
    }

    @Test("Only what the device has, in its order, can run there")
    func deviceForm() throws {
        func parameters(_ json: JSONValue, sampling: Bool = true) throws -> SamplingParameters? {
            try LogitsProcessorList.make(
                GenerationConfig.resolved(call: try options(json, sampling: sampling)),
                ProcessorSetting(vocabularySize: 6, promptLength: 1, maxLength: 9)
            ).list.deviceParameters(sampling: sampling)
        }
        let all = try #require(try parameters(["temperature": 0.5, "top_k": 3, "top_p": 0.75, "min_p": 0.25]))
        #expect(all.temperature == 0.5 && all.topK == 3 && all.topP == 0.75 && all.minP == 0.25)
        #expect(try parameters(["top_k": 0])?.temperature == 1)
        #expect(try parameters([:], sampling: false)?.temperature == 0)
        #expect(try parameters(["typical_p": 0.5]) == nil)
        for sampling in [true, false] {
            let masked = try parameters(
                ["repetition_penalty": 1.5, "suppress_tokens": [1, 2], "bad_words_ids": [[4]]], sampling: sampling)
            #expect(masked?.repetitionPenalty == 1.5 && Set(masked?.forbiddenTokens ?? []) == [1, 2, 4])
        }
        #expect(try parameters(["bad_words_ids": [[4, 5]]]) == nil)
        #expect(try parameters(["encoder_repetition_penalty": 1.5]) == nil)
    }
}

/// A caller's own processor.
struct Doubling: LogitsProcessor {
    func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        for index in scores.indices { scores[index] *= 2 }
    }
}

@Suite struct WarperTests {
    @Test("top-k keeps what equals the k-th", arguments: 1...40)
    func topK(_ k: Int) throws {
        let scores = randomScores(UInt64(k))
        #expect(try processed(scores, [0], options(["top_k": .int(k)], sampling: true)) == NaiveSampling.topK(scores, k))
    }

    @Test("top-p keeps the fewest tokens with the probability", arguments: [0, 0.01, 0.2, 0.5, 0.77, 0.9, 0.99, 0.9999])
    func topP(_ p: Double) throws {
        for seed in 0..<40 {
            let scores = randomScores(UInt64(seed))
            let kept = try processed(scores, [0], options(["top_p": .double(p)], sampling: true))
            #expect(kept == NaiveSampling.topP(scores, p), "seed \(seed)")
        }
    }

    @Test("top-p works on what top-k has left")
    func topKThenTopP() throws {
        let scores = randomScores(3)
        let kept = try processed(scores, [0], options(["top_k": 12, "top_p": 0.7], sampling: true))
        #expect(kept == NaiveSampling.topP(NaiveSampling.topK(scores, 12), 0.7))
    }

    @Test("min-p compares with the best", arguments: [0.01, 0.1, 0.5, 1])
    func minP(_ fraction: Double) throws {
        let scores = randomScores(9)
        #expect(
            try processed(scores, [0], options(["min_p": .double(fraction)], sampling: true))
                == NaiveSampling.minP(scores, fraction))
    }

    @Test("Cut-offs remove what is improbable", arguments: [0.001, 0.01, 0.03, 0.5])
    func cutoffs(_ epsilon: Double) throws {
        let scores = randomScores(11)
        let probabilities = NaiveSampling.softmax(scores)
        let best = NaiveSampling.argmax(scores)
        let entropy = -probabilities.map { $0 * log($0) }.reduce(0, +)
        let eta = min(epsilon, epsilon.squareRoot() * exp(-entropy))
        for (name, bound) in [("epsilon_cutoff", epsilon), ("eta_cutoff", eta)] {
            let expected = scores.indices.map { probabilities[$0] < bound && $0 != best ? -infinity : scores[$0] }
            #expect(try processed(scores, [0], options(.object([name: .double(epsilon)]), sampling: true)) == expected)
        }
    }

    @Test("Typical sampling keeps tokens whose surprise is expected", arguments: [0.1, 0.3, 0.6, 0.9, 0.999])
    func typical(_ mass: Double) throws {
        for seed in 20..<40 {
            let scores = randomScores(UInt64(seed))
            let logs = NaiveSampling.softmax(scores).map { log($0) }
            let entropy = -logs.map { exp($0) * $0 }.reduce(0, +)
            let distances = logs.map { abs(-$0 - entropy) }
            let order = scores.indices.sorted { (distances[$0], $0) < (distances[$1], $1) }
            var sum = 0.0
            var last = 0
            for index in order {
                sum += exp(logs[index])
                if sum < mass { last += 1 }
            }
            let bound = distances[order[min(last, scores.count - 1)]]
            let expected = scores.indices.map { distances[$0] > bound + 1e-9 && $0 != order[0] ? -infinity : scores[$0] }
            #expect(try processed(scores, [0], options(["typical_p": .double(mass)], sampling: true)) == expected, "seed \(seed)")
        }
    }

    @Test("top-H keeps a prefix within a part of the entropy", arguments: [0.1, 0.4, 0.8])
    func topH(_ fraction: Double) throws {
        let scores = (0..<150).map { RandomStream.uniform(seed: 5, stream: 1, counter: UInt64($0)) * 9 }
        let order = scores.indices.sorted { (-scores[$0], $0) < (-scores[$1], $1) }.prefix(100)
        let probabilities = NaiveSampling.softmax(order.map { scores[$0] })
        let terms = probabilities.map { -$0 * log($0) }
        let bound = terms.reduce(0, +) * fraction
        var sum = 0.0
        var kept: Set<Int> = [order[0]]
        for (index, term) in zip(order, terms) {
            sum += term
            if sum <= bound { kept.insert(index) }
        }
        let expected = scores.indices.map { kept.contains($0) ? scores[$0] : -infinity }
        #expect(try processed(scores, [0], options(["top_h": .double(fraction)], sampling: true)) == expected)
    }

    @Test("With beams, one token more than there are eos survives every warper")
    func minimumKept() throws {
        let scores: [Float] = [0, 9, 8, -5, 7, 1]
        var config = try options(["top_p": 0.01, "eos_token_id": [0, 1]], sampling: true)
        config.numBeams = 2
        #expect(try processed(scores, [0], config).count { $0 > -infinity } == 3)
        config.topP = nil
        config.topK = 1
        #expect(try processed(scores, [0], config) == [-infinity, 9, 8, -infinity, 7, -infinity])
        config.eosTokenId = nil
        #expect(try processed(scores, [0], config) == [-infinity, 9, 8, -infinity, -infinity, -infinity])
        config.topK = 0
        config.minP = 0.99
        #expect(try processed(scores, [0], config) == [-infinity, 9, 8, -infinity, -infinity, -infinity])
    }

    @Test("Rows of nothing but −∞ or NaN neither trap nor hang, and a forbidden token stays forbidden")
    func degenerateRows() throws {
        let json: JSONValue = [
            "temperature": 0.5, "top_h": 0.5, "top_k": 2, "top_p": 0.5, "min_p": 0.5, "typical_p": 0.5,
            "epsilon_cutoff": 0.1, "eta_cutoff": 0.1, "renormalize_logits": true, "repetition_penalty": 2,
        ]
        for row in [[-infinity, -infinity, -infinity], [Float.nan, .nan, .nan], [infinity, 0, .nan], [0, -infinity, .nan]] {
            let scores = try processed(row, [0], options(json, sampling: true))
            #expect(zip(row, scores).allSatisfy { $0 > -infinity || !($1 > -infinity) }, "\(row) became \(scores)")
        }
    }
}
