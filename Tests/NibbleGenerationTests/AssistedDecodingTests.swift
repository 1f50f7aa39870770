import NibbleCore
import NibbleGeneration
import NibbleModels
import Testing

@Suite struct AssistedDecodingTests {
    /// Much memory makes a draft of less memory agree sometimes only.
    private let model = HashModel(vocabularySize: 6, seed: 2, memory: 2)

    @Test("A draft model changes nothing about greedy decoding", arguments: 1...12)
    func greedyDraft(_ seed: Int) throws {
        let draft = HashModel(vocabularySize: 6, seed: seed % 3 == 0 ? 2 : UInt64(seed), memory: seed % 2 + 1)
        for schedule in AssistantSchedule.allCases {
            let config = config(new: 1 + seed * 4, eos: seed % 2 == 0 ? [4] : nil, pad: 0) {
                $0.numAssistantTokens = 1 + seed % 5
                $0.numAssistantTokensSchedule = schedule
                $0.assistantConfidenceThreshold = seed % 4 == 0 ? 0.4 : 0
                $0.repetitionPenalty = seed % 5 == 0 ? 1.2 : 1
                $0.outputScores = true
            }
            let plain = try Generator(model: model).generate(
                inputs: [[0, 5, 1, 2]], attentionMask: [[0, 1, 1, 1]], config: config)
            var request = GenerationRequest(inputs: [[0, 5, 1, 2]], attentionMask: [[0, 1, 1, 1]], config: config)
            request.assistant = draft
            let assisted = try Generator(model: model).generate(request)
            #expect(assisted.sequences == plain.sequences)
            #expect(assisted.finishReasons == plain.finishReasons)
            #expect(assisted.scores == plain.scores)
        }
    }

    @Test("A perfect draft saves runs of the model")
    func savesRuns() throws {
        let model = HashModel(vocabularySize: 6, seed: 2, memory: 2)
        var request = GenerationRequest(
            inputs: [[1, 2]],
            config: config(new: 21) {
                $0.numAssistantTokens = 4
                $0.assistantConfidenceThreshold = 0
            })
        request.assistant = HashModel(vocabularySize: 6, seed: 2, memory: 2)
        let output = try Generator(model: model).generate(request)
        #expect(Array(output.newTokens(row: 0)) == greedy(model, [1, 2], new: 21))
        // One for the prompt; then five tokens a run.
        #expect(model.feeds.load(ordering: .relaxed) == 1 + 5)
        #expect(output.modelRuns == 1 + 5)
    }

    @Test("Prompt look-up changes nothing about greedy decoding", arguments: 1...10)
    func lookup(_ seed: Int) throws {
        let model = HashModel(vocabularySize: 5, seed: UInt64(seed), memory: 2)
        let prompt: [Int32] = [1, 2, 3, 1, 2, 4, 1, 2]
        let config = config(new: 40, eos: seed % 2 == 0 ? [0] : nil) { $0.maxMatchingNgramSize = 1 + seed % 3 }
        let plain = try Generator(model: model).generate(inputs: [prompt], config: config)
        var assisted = config
        assisted.promptLookupNumTokens = 1 + seed % 4
        let output = try Generator(model: model).generate(inputs: [prompt], config: assisted)
        #expect(output.sequences == plain.sequences)
    }

    @Test("Look-up saves runs of a model that repeats itself")
    func lookupSavesRuns() throws {
        let model = HashModel(vocabularySize: 5, seed: 1, memory: 1)
        let output = try Generator(model: model).generate(
            inputs: [[1]], config: config(new: 40) { $0.promptLookupNumTokens = 4 })
        #expect(output.newTokenCounts == [40])
        // A memory of one token makes a cycle of at most five tokens.
        #expect(model.feeds.load(ordering: .relaxed) < 25)
    }

    @Test("Prompt look-up samples the same tokens as plain sampling")
    func lookupSampling() throws {
        var config = GenerationConfig(maxNewTokens: 60, doSample: true, temperature: 0.6, seed: 11)
        let prompt: [Int32] = [1, 2, 3, 1, 2]
        let plain = try Generator(model: model).generate(inputs: [prompt], config: config)
        config.promptLookupNumTokens = 3
        #expect(try Generator(model: model).generate(inputs: [prompt], config: config).sequences == plain.sequences)
    }

    @Test("A stop string inside a draft ends the row at once")
    func stopsInsideDraft() throws {
        let generator = Generator(model: model, tokenBytes: { [UInt8(ascii: "a") + UInt8($0)] })
        let free = greedy(model, [1, 2], new: 12)
        let stop = String(decoding: free[4...5].map { UInt8(ascii: "a") + UInt8($0) }, as: UTF8.self)
        let config = config(new: 12) { $0.stopStrings = [stop] }
        let plain = try generator.generate(inputs: [[1, 2]], config: config)
        var request = GenerationRequest(inputs: [[1, 2]], config: config)
        request.assistant = model
        #expect(try generator.generate(request).sequences == plain.sequences)
    }

    @Test("An encoder-decoder is assisted by an encoder-decoder")
    func encoderDecoder() throws {
        let model = HashModel(vocabularySize: 8, isEncoderDecoder: true, seed: 3, memory: 2)
        let config = config(new: 15, eos: [1]) { $0.decoderStartTokenId = [0] }
        var request = GenerationRequest(inputs: [[5, 6]], config: config)
        request.assistant = HashModel(vocabularySize: 8, isEncoderDecoder: true, seed: 3, memory: 1)
        #expect(
            try Generator(model: model).generate(request).sequences
                == Generator(model: model).generate(inputs: [[5, 6]], config: config).sequences)
    }

    @Test("What cannot be assisted is refused")
    func refusals() {
        let generator = Generator(model: model)
        func attempt(
            _ assistant: HashModel?, _ inputs: [[Int32]] = [[1]], _ change: (inout GenerationConfig) -> Void = { _ in }
        ) {
            var request = GenerationRequest(inputs: inputs, config: config(new: 3, change))
            request.assistant = assistant
            #expect(throws: GenerationError.self) { try generator.generate(request) }
        }
        attempt(HashModel(vocabularySize: 7))
        attempt(HashModel(vocabularySize: 6, isEncoderDecoder: true))
        attempt(model, [[1], [2]])
        attempt(nil, [[1], [2]]) { $0.promptLookupNumTokens = 2 }
        attempt(nil) {
            $0.promptLookupNumTokens = 2
            $0.numBeams = 2
        }
    }
}
