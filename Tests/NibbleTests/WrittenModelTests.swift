import Foundation
import Nibble
import NibbleCore
import NibbleTestSupport
import Testing

/// Pre-quantized checkpoints that Nibble writes, read again.
@Suite struct WrittenModelTests {
    @Test(
        "a written checkpoint answers as the load it was written from", arguments: FixtureModel.all.filter { !$0.isPrequantized })
    func roundTrip(model: FixtureModel) throws {
        guard let config = try model.expected()["quantized"]?["nf4"]?["config"] else { return }
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let written = folder.appending(path: "written")
        try CheckpointExport.quantizedModel(model.folder, to: written, try model.configuration(config))

        let direct = try model.load(config)
        let again = try PretrainedModel.load(folder: written, try model.configuration())
        #expect(again.report.quantizedModules == direct.report.quantizedModules)
        #expect(again.report.unexpected.isEmpty)
        #expect(again.memoryFootprint == direct.memoryFootprint)
        let ids: [[Int32]] = [[5, 9, 14, 20, 7, 11, 3]]
        let decoderIDs: [[Int32]]? = direct.isEncoderDecoder ? [[2, 8, 5]] : nil
        let (ours, theirs) = try (
            again.forward(inputIDs: ids, decoderInputIDs: decoderIDs), direct.forward(inputIDs: ids, decoderInputIDs: decoderIDs)
        )
        #expect(ours.logits.hostElements(Float.self).elementsEqual(theirs.logits.hostElements(Float.self)))
    }
}
