import Foundation
import Nibble
import NibbleCPU
import NibbleCheckpoint
import NibbleCore
import NibbleGeneration
import NibbleLoading
import NibbleModels
import NibbleTestSupport
import Testing

/// Recorded LoRA adapters against peft's answers, unmerged.
@Suite(.computing) struct AdapterParityTests {
    private static let single = AdapterFixture.all.filter { $0.mode != "rows" && $0.hasLoads }

    @Test("there are recorded adapters") func recorded() { #expect(AdapterFixture.all.count >= 6 && Self.single.count >= 5) }

    @Test("unmerged logits and greedy ids agree", arguments: single)
    func unmerged(fixture: AdapterFixture) throws {
        let loads = try #require(try fixture.expected()["loads"]?.object)
        try #require(!loads.isEmpty)
        for (load, expected) in loads {
            var configuration = try fixture.configuration(load)
            configuration.adapters = try fixture.adapters().map { AdapterReference(folder: $0) }
            let model = try PretrainedModel.load(folder: try fixture.base().folder, configuration)
            let rows = try #require(expected["rows"]?.int)
            let error = try fixture.error(model, against: "logits_\(load)", rows: rows)
            print("  \(fixture.name) \(load): \(error)")
            #expect(error <= AdapterFixture.bound(load), "\(load)")
            try checkGeneration(model, expected["generation"], load)
        }
    }

    private func checkGeneration(_ model: PretrainedModel, _ expected: JSONValue?, _ load: String) throws {
        let entry = try #require(expected)
        // Where noise of the size of rounding changes the reference's own answer, ours may differ too.
        guard entry["robust"]?.bool != false else { return }
        let generator = Generator(model: model.model, modelConfig: model.generationConfig)
        let output = try generator.generate(
            inputs: try #require(entry["input_ids"]?.idRows), attentionMask: entry["attention_mask"]?.idRows,
            config: GenerationConfig(options: entry["kwargs"] ?? [:]))
        let recorded = try #require(entry["output_ids"]?.idRows)
        // Rounded activations add up to another token sooner or later.
        let isRounded = AdapterFixture.isNative(load) || load.hasPrefix("int8")
        let count = isRounded ? (entry["input_ids"]?.idRows?[0].count ?? 0) + 6 : .max
        #expect(output.sequences.map { Array($0.prefix(count)) } == recorded.map { Array($0.prefix(count)) }, "\(load)")
    }

    @Test("a weighted sum of adapters agrees", arguments: single.filter { (try? $0.expected())?["weighted"] != nil })
    func weighted(fixture: AdapterFixture) throws {
        let weighted = try #require(try fixture.expected()["weighted"])
        let weights = try #require(weighted["weights"]?.array).compactMap(\.double)
        var configuration = try fixture.configuration("float32")
        configuration.adapters = try zip(fixture.adapters(), weights).map { AdapterReference(folder: $0, scale: $1) }
        let model = try PretrainedModel.load(folder: try fixture.base().folder, configuration)
        let rows = try fixture.recorded().tensor("logits_weighted_cat").shape[0]
        #expect(try fixture.error(model, against: "logits_weighted_cat", rows: rows) <= 1e-4)
    }

    @Test("a prequantized base answers the bits of the load it stands for")
    func prequantized() throws {
        var compared = 0
        for fixture in Self.single {
            for (load, expected) in try fixture.expected()["loads"]?.object ?? [:] {
                guard let name = expected["same_from"]?.string else { continue }
                let ids = try #require(try fixture.recorded().ids("input_ids"))
                let logits = try [fixture.base(), fixture.other(name)].map { base in
                    var configuration = try fixture.configuration(load)
                    if base.isPrequantized { configuration.quantization = nil }
                    configuration.adapters = try fixture.adapters().map { AdapterReference(folder: $0) }
                    let output = try PretrainedModel.load(folder: base.folder, configuration).forward(inputIDs: ids)
                    return withExtendedLifetime(output) { Array($0.logits.hostElements(Float.self)) }
                }
                #expect(logits[0] == logits[1])
                compared += 1
            }
        }
        #expect(compared > 0)
    }

    @Test("rows with adapters of their own agree", arguments: AdapterFixture.all.filter { $0.mode == "rows" })
    func rows(fixture: AdapterFixture) throws {
        let expected = try fixture.expected()
        let names = try #require(expected["adapter_names"]?.array).compactMap(\.string)
        for load in try #require(expected["loads"]?.object).keys {
            let model = try PretrainedModel.load(folder: try fixture.base().folder, try fixture.configuration(load))
            var ids: [String: AdapterID] = [:]
            for folder in try fixture.adapters() {
                let adapter = try model.rowAdapter(folder, named: folder.lastPathComponent)
                ids[folder.lastPathComponent] = try model.model.adapters.attach(adapter.sums)
            }
            let recorded = try fixture.recorded()
            let tokens = try #require(try recorded.ids("input_ids"))
            let mask = try #require(try recorded.ids("attention_mask"))
            for (row, name) in names.enumerated() {
                model.model.adapters.active = ids[name].map { [$0: 1] } ?? [:]
                let output = try model.forward(inputIDs: [tokens[row]], attentionMask: [mask[row]])
                let logits = try recorded.tensor("logits_\(load)").rows(row..<row + 1)
                let error = LogitsComparison(output.logits, logits, mask: [mask[row]], rows: 0..<1).relativeError
                #expect(error <= AdapterFixture.bound(load), "\(load) \(name)")
            }
        }
    }

    @Test("adapters are activated, replaced and unloaded") func hotSwap() throws {
        let fixture = try #require(AdapterFixture.all.first { $0.name == "llama_two" })
        let folders = try fixture.adapters()
        let model = try PretrainedModel.load(folder: try fixture.base().folder, try fixture.configuration("float32"))
        func logits() throws -> [Float] {
            let logits = try model.forward(inputIDs: [[5, 9, 14, 20]]).logits
            return withExtendedLifetime(logits) { Array($0.hostElements(Float.self)) }
        }
        let base = try logits()
        #expect(try model.load(adapter: folders[0], named: "a").isEmpty)
        let first = try logits()
        #expect(first != base)
        try model.load(adapter: folders[1], named: "b")
        let both = try logits()
        #expect(both != first && model.adapters == ["a", "b"])
        try model.activate(["a"])
        #expect(try logits() == first)
        try model.load(adapter: folders[1], named: "a")
        try model.activate(["a"])
        let second = try logits()
        try model.activate(["b"])
        #expect(try logits() == second)
        try model.unload(adapter: "b")
        #expect(try logits() == base && model.adapters == ["a"])
        #expect(throws: LoadError.unknownAdapter("b", loaded: ["a"])) { try model.activate(["b"]) }
        #expect(throws: LoadError.unknownAdapter("b", loaded: ["a"])) { try model.unload(adapter: "b") }
        // A table of its own needs another model, which goes again.
        if let tokens = AdapterFixture.all.first(where: { $0.name == "llama_tokens" }) {
            try model.load(adapter: tokens.folder, named: "tokens")
            let changed = try logits()
            #expect(changed != base)
            try model.activate([])
            #expect(try logits() == base)
            try model.activate(["tokens"])
            #expect(try logits() == changed)
        }
    }

    @Test("layers on the disk answer as those in memory", arguments: single.filter { $0.mode != "rows" })
    func disk(fixture: AdapterFixture) throws {
        let ids: [[Int32]] = [[5, 9, 14, 20, 7]]
        let logits = try [DeviceMapRequest.device(.cpu), .device(.disk)].map { map in
            var configuration = try fixture.configuration("float32")
            configuration.deviceMap = map
            configuration.adapters = try fixture.adapters().map { AdapterReference(folder: $0) }
            let model = try PretrainedModel.load(folder: fixture.base().folder, configuration)
            let output = try model.forward(inputIDs: ids, decoderInputIDs: model.isEncoderDecoder ? ids : nil)
            return withExtendedLifetime(output) { Array($0.logits.hostElements(Float.self)) }
        }
        #expect(logits[0] == logits[1])
    }

    @Test(
        "a base on two devices answers as on one", arguments: single.filter { $0.mode != "rows" }, [Device.cuda(1), .cpu, .disk])
    func twoDevices(fixture: AdapterFixture, other: Device) throws {
        let ids: [[Int32]] = [[5, 9, 14, 20, 7]]
        func model(_ map: DeviceMap?) throws -> PretrainedModel {
            var configuration = try fixture.configuration("float32")
            configuration.deviceMap = map.map { .explicit($0) } ?? .device(.cuda(0))
            configuration.backends =
                [Device.cuda(0), .cuda(1)].map { CPUBackend(threads: 2, budget: 1 << 40, as: $0) } + [CPUBackend(threads: 2)]
            configuration.adapters = try fixture.adapters().map { AdapterReference(folder: $0) }
            return try PretrainedModel.load(folder: fixture.base().folder, configuration)
        }
        func logits(_ model: PretrainedModel) throws -> [Float] {
            let output = try model.forward(inputIDs: ids, decoderInputIDs: model.isEncoderDecoder ? ids : nil)
            return withExtendedLifetime(output) { Array(output.logits.hostElements(Float.self)) }
        }
        let whole = try model(nil)
        var map = DeviceMap(["": .cuda(0)])
        for (index, block) in whole.tree.located.all(.block).enumerated() where index % 2 == 0 { map.entries[block.path] = other }
        #expect(map.entries.count > 1)
        #expect(try logits(model(map)) == logits(whole))
    }

    @Test("plans count what adapters take") func plan() throws {
        let fixture = try #require(AdapterFixture.all.first { $0.name == "llama_qv" })
        var configuration = try fixture.configuration("float32")
        let folder = try fixture.base().folder
        let alone = try LoadPreview(folder: folder, configuration).placement.storedBytes
        configuration.adapters = [AdapterReference(folder: fixture.folder)]
        let both = try LoadPreview(folder: folder, configuration).placement.storedBytes
        let file = try CheckpointFiles.open(file: fixture.folder.appending(path: "adapter_model.safetensors"))
        #expect(both - alone == file.names.reduce(0) { $0 + (file.descriptor($1)?.byteCount ?? 0) })
    }

    @Test("a base in another folder is a warning") func otherBase() throws {
        let fixture = try #require(AdapterFixture.all.first { $0.name == "llama_qv" })
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let copy = folder.appending(path: "renamed")
        try FileManager.default.copyItem(at: fixture.base().folder, to: copy)
        var configuration = try fixture.configuration("float32")
        configuration.adapters = [AdapterReference(folder: fixture.folder)]
        let warnings = try PretrainedModel.load(folder: copy, configuration).report.warnings
        #expect(warnings.contains { $0.contains("the adapter was made for llama, not for renamed") })
    }
}

extension JSONValue {
    /// Rows of token ids.
    var idRows: [[Int32]]? {
        array?.map { ($0.array ?? []).compactMap { $0.int.flatMap { Int32(exactly: $0) } } }
    }
}
