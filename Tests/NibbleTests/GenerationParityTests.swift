import Nibble
import NibbleCore
import NibbleGeneration
import NibbleModels
import NibbleTestSupport
import Testing

/// Every recorded call of `generate()` against the reference's answer.
@Suite(.computing) struct GenerationParityTests {
    /// Models with recorded calls. A file that cannot be read stays among them, for the test to fail on.
    static let recorded = FixtureModel.all.filter { model in
        guard let expected = try? model.expected() else { return true }
        return recordedCalls(expected) != nil
    }

    /// Of a pre-quantized checkpoint, the calls are recorded with its one load.
    private static func recordedCalls(_ expected: JSONValue) -> [JSONValue]? {
        let loads = expected["prequantized"] == nil ? [] : expected["quantized"]?.object?.members.map(\.value) ?? []
        return (expected["generation"] ?? loads.first?["generation"])?.array
    }

    @Test("there are recorded calls to compare with")
    func callsArePresent() throws {
        let cases = try Self.recorded.flatMap { try #require(Self.recordedCalls($0.expected())) }
        #expect(cases.count >= 20)
        #expect(cases.contains { $0["sequences_scores"]?.array?.isEmpty == false })
    }

    @Test("generate() returns the recorded ids", arguments: recorded)
    func generation(model: FixtureModel) throws {
        let cases = try #require(Self.recordedCalls(try model.expected()))
        try #require(!cases.isEmpty)
        let pretrained = try model.load()
        let generator = Generator(model: pretrained.model, modelConfig: pretrained.generationConfig)
        for entry in cases {
            let name = entry["name"]?.string ?? "?"
            let inputs = try #require(entry["input_ids"]?.rows)
            let expected = try #require(entry["output_ids"]?.rows)
            let output = try generator.generate(
                inputs: inputs, attentionMask: entry["attention_mask"]?.rows,
                config: GenerationConfig(options: entry["kwargs"] ?? [:]))
            // The reference puts the padding's embedding in the place of an image's token, also of one that was generated.
            let image: Int32 = model.name == "gemma4" ? 3 : -1
            guard !expected.joined().contains(image) else { continue }
            // Where noise of the size of rounding changes the reference's own answer, ours may differ too.
            guard entry["robust"]?.bool != false else { continue }
            if model.hasInt8Experts {
                // The reference chooses an expert's outlier columns among padding, too, which is not computed here.
                for (row, mask) in (entry["attention_mask"]?.rows ?? []).enumerated() where !mask.contains(0) {
                    #expect(output.sequences[row] == expected[row], "\(name)")
                }
            } else {
                #expect(output.sequences == expected, "\(name)")
            }
            guard let scores = entry["sequences_scores"]?.array else { continue }
            let ours = try #require(output.sequencesScores)
            // int8 logits are that far apart.
            let bound = model.hasInt8Experts ? 2e-2 : 1e-3
            let difference = zip(ours, scores).map { abs(Double($0) - ($1.double ?? .nan)) }.max() ?? .infinity
            #expect(difference < bound && ours.count == scores.count, "\(name)")
        }
    }
}

extension JSONValue {
    fileprivate var rows: [[Int32]]? {
        array?.map { ($0.array ?? []).compactMap { $0.int.flatMap { Int32(exactly: $0) } } }
    }
}
