import NibbleGeneration
import NibbleModels
import Testing

@Suite struct EncoderDecoderTests {
    let model = HashModel(isEncoderDecoder: true, seed: 6)
    var generator: Generator { Generator(model: model) }

    private func t5(new: Int, _ change: (inout GenerationConfig) -> Void = { _ in }) -> GenerationConfig {
        config(new: new, eos: [1], pad: 0) {
            $0.decoderStartTokenId = [0]
            change(&$0)
        }
    }

    @Test("The decoder begins with its start token; the encoder's padding does not count, on either side")
    func startToken() throws {
        let output = try generator.generate(
            inputs: [[5, 6, 7], [8, 9, 0], [0, 8, 9]], config: t5(new: 9))
        let texts: [[Int32]] = [[5, 6, 7], [8, 9], [8, 9]]
        for (row, text) in texts.enumerated() {
            #expect(Array(output.newTokens(row: row)) == greedy(model, [0], encoder: text, new: 9, eos: [1]))
            #expect(output.sequences[row][0] == 0)
        }
        #expect(output.promptLength == 1)
        #expect(output.warnings.isEmpty)
    }

    @Test("bos stands in for a missing start token; neither is an error")
    func missingStartToken() throws {
        let output = try generator.generate(inputs: [[5]], config: config(new: 2) { $0.bosTokenId = 4 })
        #expect(output.sequences[0][0] == 4)
        #expect(
            throws: GenerationError.missingToken(
                name: "decoder_start_token_id", purpose: "to begin the decoder's sequence")
        ) { try generator.generate(inputs: [[5]], config: config(new: 2)) }
    }

    @Test("Each item may have its own start token")
    func startTokens() throws {
        let output = try generator.generate(
            inputs: [[5], [5]], config: t5(new: 3) { $0.decoderStartTokenId = [8, 9] })
        #expect(output.sequences.map { $0[0] } == [8, 9])
        #expect(throws: GenerationError.self) {
            try generator.generate(inputs: [[5], [5]], config: t5(new: 3) { $0.decoderStartTokenId = [8, 9, 7] })
        }
    }

    @Test("Given decoder tokens get the start token in front where it is missing")
    func decoderInputs() throws {
        func sequences(_ given: [[Int32]]) throws -> [[Int32]] {
            var request = GenerationRequest(inputs: [[5], [6]], decoderInputs: given, config: t5(new: 2))
            request.config.eosTokenId = nil
            return try generator.generate(request).sequences
        }
        #expect(try sequences([[0, 9], [0, 8]]).map(\.count) == [4, 4])
        #expect(try sequences([[9], [8]])[0].prefix(2) == [0, 9])
        #expect(try sequences([[0, 9], [7, 8]])[1].prefix(3) == [0, 7, 8])
        #expect(throws: GenerationError.self) { try sequences([[0]]) }
        #expect(throws: GenerationError.self) { try sequences([[0], [0, 1]]) }
    }

    @Test("First and last tokens are forced at the decoder's lengths")
    func forcedTokens() throws {
        let output = try generator.generate(
            inputs: [[5]],
            config: config(new: 5, eos: [99]) {
                $0.decoderStartTokenId = [0]
                $0.forcedBosTokenId = 17
                $0.forcedEosTokenId = [2]
            })
        #expect(output.sequences[0].count == 6)
        #expect(output.sequences[0][1] == 17)
        #expect(output.sequences[0][5] == 2)
    }

    @Test("max_length counts the start token")
    func maxLength() throws {
        var config = t5(new: 1)
        config.maxNewTokens = nil
        config.maxLength = 4
        config.eosTokenId = nil
        #expect(try generator.generate(inputs: [[5]], config: config).sequences[0].count == 4)
    }

    @Test("Encoder processors look at the encoder's ids")
    func encoderProcessors() throws {
        let free = greedy(model, [0], encoder: [5, 6, 7], new: 1)[0]
        let output = try generator.generate(
            inputs: [[5, 6, free]], config: t5(new: 1) { $0.encoderNoRepeatNgramSize = 1 })
        #expect(![5, 6, free].contains(output.sequences[0][1]))
    }
}
