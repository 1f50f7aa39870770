import Foundation
import Nibble
import NibbleCore
import NibbleTestSupport
import Testing

/// Pre-quantized checkpoints that Nibble writes, read again.
@Suite struct WrittenModelTests {
    /// Those whose results in nf4 are recorded.
    private static let models = FixtureModel.all.filter { !$0.isPrequantized && config($0) != nil }

    private static func config(_ model: FixtureModel) -> JSONValue? {
        (try? model.expected())?["quantized"]?["nf4"]?["config"]
    }

    @Test("there are models with recorded results") func present() { #expect(Self.models.count >= 3) }

    @Test("a written checkpoint answers as the load it was written from", arguments: models)
    func roundTrip(model: FixtureModel) throws {
        let config = try #require(Self.config(model))
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

    @Test("a dequantized checkpoint gives the logits of the quantized one") func dequantized() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let (quantized, plain) = (folder.appending(path: "q"), folder.appending(path: "d"))
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        configuration.quantization = BitsAndBytesConfig(loadIn4Bit: true, computeDType: .float32, quantType: .nf4)
        try CheckpointExport.quantizedModel(Fixtures.models.appending(path: "bloom-stories"), to: quantized, configuration)
        configuration.quantization = nil
        let names = try CheckpointExport.dequantizedModel(quantized, to: plain, configuration)
        #expect(!names.isEmpty)
        let models = try [quantized, plain].map { try PretrainedModel.load(folder: $0, configuration) }
        #expect(models[1].report.quantizedModules.isEmpty)
        let logits = try models.map { try $0.forward(inputIDs: [[5, 9, 14, 20, 7, 11, 3]]).logits }
        withExtendedLifetime(logits) {
            let (a, b) = (logits[0].hostElements(Float.self), logits[1].hostElements(Float.self))
            let norm = b.reduce(0) { $0 + Double($1) * Double($1) }
            let difference = zip(a, b).reduce(0) { $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1) }
            #expect(norm > 0 && (difference / norm).squareRoot() < 1e-5)
        }
    }
}
