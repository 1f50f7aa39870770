import Foundation
import NibbleCore
import NibbleModels
import NibbleQuantization
import NibbleTestSupport
import Testing

/// Published checkpoints by their configs: names and shapes of the reference's parameters, and its memory footprints.
@Suite struct PublishedSizesTests {
    private static let file = Fixtures.repository.appending(path: "Tests/Fixtures/published.json")

    static let checkpoints: [JSONObject] =
        ((try? JSONValue(contentsOf: file))?.array ?? []).compactMap(\.object)

    @Test("the table is there") func table() { #expect(Self.checkpoints.count >= 25) }

    @Test("parameters and footprints are the reference's", arguments: checkpoints.indices)
    func published(index: Int) throws {
        let recorded = Self.checkpoints[index]
        let name = try #require(recorded["name"]?.string)
        let config = try #require(recorded["config"]?.object)
        let architecture = try ModelRegistry.architecture(ConfigReader(config))
        let tree = architecture.tree
        var patterns: [String: Int] = [:]
        for parameter in tree.parameters where parameter.tiedTo == nil {
            let parts = parameter.path.split(separator: ".").map { Int($0) == nil ? String($0) : "*" }
            let shape = parameter.shape.dimensions.map(String.init).joined(separator: "x")
            patterns[parts.joined(separator: ".") + " " + shape, default: 0] += 1
        }
        let wanted = try #require(recorded["parameters"]?.object)
        #expect(patterns == Dictionary(uniqueKeysWithValues: wanted.map { ($0.key, $0.value.int ?? -1) }), "\(name)")
        let loads: [(String, BitsAndBytesConfig?)] = [
            ("float16", nil), ("int8", try BitsAndBytesConfig(["load_in_8bit": true])),
            ("fp4", try BitsAndBytesConfig(["load_in_4bit": true])),
        ]
        for (load, quantization) in loads {
            let plan = QuantizationPlan(tree, config: quantization, reference: true)
            #expect(tree.footprint(plan, loadDType: .float16) == recorded["footprint"]?[load]?.int, "\(name) \(load)")
        }
    }
}
