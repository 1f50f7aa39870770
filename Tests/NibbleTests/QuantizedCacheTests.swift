import Foundation
import Nibble
import NibbleCore
import NibbleGeneration
import NibbleModels
import NibbleTestSupport
import Testing

/// Keys and values of 8, 4 or 2 bits on the shipped story model.
@Suite struct QuantizedCacheTests {
    private let stories: (model: PretrainedModel, tokenizer: Tokenizer)

    init() throws { stories = try ExampleModel.stories.get() }

    private func quantization(_ bits: Int, groupSize: Int = KeyValueQuantization.defaultGroupSize) throws -> KeyValueQuantization
    {
        try #require(KeyValueQuantization(bits: bits, groupSize: groupSize))
    }

    private func session(_ quantization: KeyValueQuantization?, rows: Int = 1, capacity: Int = 256) throws -> any DecodingSession
    {
        try stories.model.model.makeSession(
            SessionRequest(rows: rows, capacity: capacity, cacheQuantization: quantization))
    }

    /// Mean nats a token of some text, fed token by token so that every key comes from the cache.
    private func score(_ quantization: KeyValueQuantization?) throws -> Double {
        let ids = stories.tokenizer.encode(
            "Once upon a time there was a little girl named Lily. She loved to play outside in the park with her friends. One day she "
                + "saw a big red ball. She wanted to play with it, but it was too high in the tree. Her mom helped her to get it down."
        )
        let session = try session(quantization)
        var total = 0.0
        for (index, id) in ids.dropLast().enumerated() {
            total += try session.feed([RowTokens(row: 0, tokens: [id])], logits: .last) { batch in
                let best = batch[0].max() ?? 0
                let sum = batch[0].reduce(0) { $0 + exp(Double($1 - best)) }
                return log(sum) + Double(best - batch[0][Int(ids[index + 1])])
            }
        }
        return total / Double(ids.count - 1)
    }

    @Test("a text scores nearly as with a dense cache", arguments: [(8, 0.003), (4, 0.1), (2, 1.5)])
    func scores(bits: Int, bound: Double) throws {
        let dense = try score(nil)
        let quantized = try score(try quantization(bits))
        #expect(abs(quantized - dense) <= bound, "\(bits) bits: \(quantized) against \(dense) nats")
        #expect(quantized != dense)
    }

    /// Of a session of a model that no other test uses: it could lend the larger buffers of another session.
    private func bytes(_ quantization: KeyValueQuantization?, capacity: Int = 256) throws -> Int {
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        let model = try PretrainedModel.load(folder: Fixtures.models.appending(path: "bloom-stories"), configuration).model
        let request = SessionRequest(rows: 1, capacity: capacity, cacheQuantization: quantization)
        return try model.makeSession(request).cacheByteCount
    }

    @Test("the cache takes the bytes that its codes and scales take", arguments: [8, 4, 2])
    func bytes(bits: Int) throws {
        let dense = try bytes(nil)
        let quantized = try bytes(try quantization(bits))
        let attention = stories.model.model.architecture.decoder.layers[0].attention
        let (size, groups) = (attention.headSize, (attention.headSize + 63) / 64)
        #expect(dense == quantized * size * 4 / (size * bits / 8 + groups * 4))
    }

    @Test("plans count the bytes that sessions take", arguments: [nil, 8, 4, 2])
    func planned(bits: Int?) throws {
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        configuration.context = 200
        configuration.cacheQuantization = try bits.map { try quantization($0) }
        let plan = try LoadPreview(folder: Fixtures.models.appending(path: "bloom-stories"), configuration).placement
        #expect(
            plan.devices.reduce(0) { $0 + $1.cache }
                == (try bytes(configuration.cacheQuantization, capacity: 200)))
    }

    @Test("the form may come with the model or with a generation")
    func asked() async throws {
        var config = GenerationConfig(maxNewTokens: 200, doSample: false)
        config.eosTokenId = []
        config.cacheImplementation = .quantized
        config.cacheConfig = QuantizedCacheConfig(nbits: 2)
        let request = GenerationRequest(inputs: [stories.tokenizer.encode("The dog")], config: config)
        let asked = try await stories.model.generate(request)
        #expect(asked.warnings.isEmpty)
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        configuration.cacheQuantization = try quantization(2)
        let model = try PretrainedModel.load(folder: stories.model.folder, configuration)
        var plain = request
        plain.config.cacheImplementation = nil
        #expect(try await model.generate(plain).sequences == asked.sequences)
        #expect(try await stories.model.generate(plain).sequences != asked.sequences)
    }

    @Test("beams and drafts see the same cache as one row fed in order", arguments: [8, 4])
    func rowsAndDrafts(bits: Int) async throws {
        var config = GenerationConfig(maxNewTokens: 40, doSample: false)
        config.cacheImplementation = .quantized
        config.cacheConfig = QuantizedCacheConfig(nbits: bits)
        var request = GenerationRequest(inputs: [stories.tokenizer.encode("The dog and the cat. The dog and")], config: config)
        let plain = try await stories.model.generate(request).sequences
        request.config.promptLookupNumTokens = 6
        #expect(try await stories.model.generate(request).sequences == plain)

        // Blocks that beams share are copied when one of them writes: each row must score as if it were alone.
        let form = try quantization(bits)
        let beams = try session(form, rows: 3)
        let prompt = Array(request.inputs[0])
        _ = try beams.feed([RowTokens(row: 0, tokens: prompt)], logits: .last) { $0.rows }
        try beams.gather([0, 0, 0])
        let tails: [[Int32]] = [[5, 9, 30], [17, 4, 80], [41, 6, 7]]
        let together = try beams.feed(tails.enumerated().map { RowTokens(row: $0, tokens: $1) }, logits: .all) {
            Array($0.values)
        }
        for (row, tail) in tails.enumerated() {
            let alone = try session(form)
            _ = try alone.feed([RowTokens(row: 0, tokens: prompt)], logits: .last) { $0.rows }
            let wanted = try alone.feed([RowTokens(row: 0, tokens: tail)], logits: .all) { Array($0.values) }
            let got = together[row * wanted.count..<(row + 1) * wanted.count]
            #expect(zip(got, wanted).allSatisfy { abs($0 - $1) < 2e-2 }, "row \(row)")
        }
    }

    @Test("what cannot be a quantized cache is refused by name")
    func refused() throws {
        for text in [#"{"nbits": 3}"#, #"{"q_group_size": 60}"#] {
            let config = try GenerationConfig(
                options: JSONValue.parse(#"{"cache_implementation": "quantized", "cache_config": \#(text)}"#))
            #expect(throws: GenerationError.self) { try config.validate() }
        }
        #expect(throws: GenerationError.self) {
            try GenerationConfig(options: JSONValue.parse(#"{"cache_config": {"bits": 4}}"#))
        }
    }
}
