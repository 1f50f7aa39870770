import Foundation
import Nibble
import NibbleCore
import NibbleModels
import NibbleTestSupport
import NibbleTokenizers
import Testing

/// The shipped models against what the reference made of them.
@Suite(.computing) struct ExampleModelTests {
    static let loads = ["fp32", "int8", "fp4", "nf4", "nf4_dq"]

    private static func load(_ model: String, _ name: String) throws -> PretrainedModel {
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        switch name {
        case "int8": configuration.quantization = BitsAndBytesConfig(loadIn8Bit: true)
        case "fp4": configuration.quantization = BitsAndBytesConfig(loadIn4Bit: true)
        case "nf4": configuration.quantization = BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4)
        case "nf4_dq": configuration.quantization = BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4, useDoubleQuant: true)
        default: break
        }
        return try PretrainedModel.load(folder: Fixtures.models.appending(path: model), configuration)
    }

    private static func expected() throws -> JSONValue { try JSONValue(contentsOf: Fixtures.url("models/expected.json")) }

    private static func tokenizer(_ model: String) throws -> Tokenizer {
        try AutoTokenizer.from(folder: Fixtures.models.appending(path: model))
    }

    @Test(
        "stories score as recorded",
        .enabled(if: Fixtures.exists("models/stories_heldout.jsonl"), "the held-out stories are not there"), arguments: loads)
    func perplexity(load: String) throws {
        let text = try String(contentsOf: Fixtures.url("models/stories_heldout.jsonl"), encoding: .utf8)
        let tokenizer = try Self.tokenizer("bloom-stories")
        let bos = try #require(tokenizer.specialTokens.bos).id
        let eos = try #require(tokenizer.specialTokens.eos).id
        let sequences: [[Int32]] = try text.split(separator: "\n").map { line in
            let parsed = try JSONValue.parse(String(line))
            let story = try #require(parsed.string)
            return [bos] + tokenizer.encode(story, addSpecialTokens: false) + [eos]
        }
        let model = try Self.load("bloom-stories", load)
        let score = try model.perplexity(of: sequences)
        let expected = try Self.expected()
        let recorded = try #require(expected["bloom-stories"]?[load])
        #expect(score.tokens == recorded["tokens"]?.int)
        let bound = load == "fp32" || load == "int8" ? 0.002 : 0.005
        let nats = try #require(recorded["nll"]?.double)
        #expect(abs(score.meanNegativeLogLikelihood - nats) <= bound)
        #expect(model.memoryFootprint == recorded["footprint"]?.int)
    }

    @Test(
        "greedy stories are the recorded ones, up to a near-tie",
        .enabled(if: Fixtures.exists("models/expected.json"), "the recorded answers are not there"),
        arguments: loads)
    func greedy(load: String) async throws {
        let expected = try Self.expected()
        let tokenizer = try Self.tokenizer("bloom-stories")
        let model = try Self.load("bloom-stories", load)
        let prompts = expected["prompts"]?.array?.compactMap(\.string) ?? []
        let rows = expected["bloom-stories"]?[load]?["greedy_ids"]?.array ?? []
        try #require(prompts.count == rows.count && !rows.isEmpty)
        for (prompt, row) in zip(prompts, rows) {
            let recorded = row.array?.compactMap { $0.int.map(Int32.init) } ?? []
            try #require(!recorded.isEmpty)
            var ids = tokenizer.encode(prompt, addSpecialTokens: false)
            // Recorded are either the new tokens or prompt and new tokens.
            let isWhole = recorded.starts(with: ids)
            let wanted = isWhole ? Array(recorded.dropFirst(ids.count)) : recorded
            #expect(wanted.count > 8)
            let session = try model.model.makeSession(SessionRequest(rows: 1, capacity: ids.count + wanted.count))
            var fed = ids
            for (step, want) in wanted.enumerated() {
                let (best, margin) = try session.feed([RowTokens(row: 0, tokens: fed)], logits: .last) { Self.best($0[0]) }
                if best != want {
                    #expect(margin < (load == "fp32" ? 1e-3 : 0.2), "\(load), \(prompt), step \(step): margin \(margin)")
                    break
                }
                ids.append(best)
                fed = [best]
            }
        }
    }

    private static func best(_ logits: UnsafeMutableBufferPointer<Float>) -> (id: Int32, margin: Float) {
        var (first, second, id) = (-Float.infinity, -Float.infinity, 0)
        for (index, logit) in logits.enumerated() {
            if logit > first { (first, second, id) = (logit, first, index) } else if logit > second { second = logit }
        }
        return (Int32(id), first - second)
    }

    @Test(
        "sentences are repaired as often as recorded",
        .enabled(if: Fixtures.exists("models/expected.json"), "the recorded answers are not there"), arguments: loads)
    func spelling(load: String) async throws {
        let expected = try Self.expected()
        let tokenizer = try Self.tokenizer("t5-spelling")
        let model = try Self.load("t5-spelling", load)
        let pairs = expected["pairs"]?.array?.compactMap { pair in pair.array?.compactMap(\.string) } ?? []
        try #require(pairs.count == 200)
        var exact = 0
        for start in stride(from: 0, to: pairs.count, by: 50) {
            let batch = pairs[start..<min(start + 50, pairs.count)]
            let request = GenerationRequest(
                inputs: batch.map { tokenizer.encode("fix spelling: " + $0[0]) }, config: GenerationConfig(maxNewTokens: 64))
            let output = try await model.generate(request)
            for (pair, sequence) in zip(batch, output.sequences)
            where tokenizer.decode(sequence, skipSpecialTokens: true) == pair[1] {
                exact += 1
            }
        }
        let recorded = try #require(expected["t5-spelling"]?[load]?["exact_beams1"]?.double)
        #expect(abs(exact - Int((recorded * 200).rounded())) <= 1)
        #expect(model.memoryFootprint == expected["t5-spelling"]?[load]?["footprint"]?.int)
    }
}
