import Nibble
import NibbleCore
import NibbleModels
import NibbleTestSupport
import Testing

/// What families do beyond the reference, or refuse.
@Suite struct FamilyBehaviourTests {
    private func model(_ name: String) throws -> FixtureModel {
        try #require(FixtureModel.all.first { $0.name == name })
    }

    @Test("experts are quantized unless the reference is followed", arguments: ["nf4", "int8"])
    func experts(kind: String) throws {
        let model = try model("qwen3_moe")
        var configuration = try model.configuration(try model.expected()["quantized"]?[kind]?["config"])
        let reference = try PretrainedModel.load(folder: model.folder, configuration)
        configuration.followsReference = false
        let ours = try PretrainedModel.load(folder: model.folder, configuration)

        let added = Set(ours.report.quantizedModules).subtracting(reference.report.quantizedModules)
        #expect(added == ["model.layers.0.mlp.experts", "model.layers.1.mlp.experts"])
        #expect(ours.memoryFootprint < reference.memoryFootprint)
        let error = try model.error(ours, against: "logits")
        #expect(error > 1e-3 && error < (kind == "nf4" ? 0.5 : 0.1), "\(error)")
    }

    @Test("a prompt beyond the learned positions is refused")
    func positions() throws {
        let pretrained = try model("gpt_neo").load()
        let session = try pretrained.model.makeSession(SessionRequest(rows: 1, capacity: 64))
        _ = try session.feed([RowTokens(row: 0, tokens: Array(repeating: 5, count: 40))], logits: .last) { $0.rows }
        #expect(throws: SessionError.positionOutOfRange(position: 40, positions: 40)) {
            try session.feed([RowTokens(row: 0, tokens: [5])], logits: .last) { $0.rows }
        }
    }

    @Test("padding before an encoder's input moves its positions")
    func encoderPadding() throws {
        let pretrained = try model("pegasus").load()
        let (ids, mask): ([Int32], [Int32]) = ([1, 1, 8, 9, 10], [0, 0, 1, 1, 1])
        let padded = try pretrained.forward(inputIDs: [ids], attentionMask: [mask], decoderInputIDs: [[1, 7]])
        let bare = try pretrained.forward(inputIDs: [[8, 9, 10]], decoderInputIDs: [[1, 7]])
        #expect(!padded.logits.hostElements(Float.self).elementsEqual(bare.logits.hostElements(Float.self)))
        #expect(throws: SessionError.self) {
            let long = [Int32](repeating: 9, count: 41)
            return try pretrained.forward(inputIDs: [long], decoderInputIDs: [[1, 7]])
        }
    }
}
