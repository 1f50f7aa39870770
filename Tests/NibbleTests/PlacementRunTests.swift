import Foundation
import Nibble
import NibbleCore
import NibbleModels
import NibbleTestSupport
import Testing

/// Models that lie partly on the disk answer exactly as those in memory.
@Suite struct PlacementRunTests {
    enum Form: String, CaseIterable, Sendable {
        case float32, bfloat16, int8, nf4, nested

        var quantization: BitsAndBytesConfig? {
            switch self {
            case .float32, .bfloat16: nil
            case .int8: BitsAndBytesConfig(loadIn8Bit: true)
            case .nf4: BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4)
            case .nested: BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4, useDoubleQuant: true)
            }
        }
    }

    static func folder(_ name: String) -> URL {
        FixtureModel.all.first { $0.name == name }?.folder ?? Fixtures.models.appending(path: name)
    }

    private static let models = ["bloom-stories", "t5-spelling"] + FixtureModel.all.map(\.name)

    private func load(
        _ folder: URL, _ form: Form, map: DeviceMap? = nil, offload: URL? = nil
    ) throws -> PretrainedModel {
        var configuration = LoadConfiguration()
        configuration.dtype = form == .bfloat16 ? .bfloat16 : .float32
        configuration.quantization = form.quantization
        configuration.offloadFolder = offload
        configuration.deviceMap = map.map { .explicit($0) } ?? .device(.cpu)
        return try PretrainedModel.load(folder: folder, configuration)
    }

    /// Every second block on the disk.
    private func mixed(_ model: PretrainedModel) -> DeviceMap {
        var entries: [String: Device] = ["": .cpu]
        for (index, block) in model.tree.located.all(.block).enumerated() where index % 2 == 0 { entries[block.path] = .disk }
        return DeviceMap(entries)
    }

    private func logits(_ model: PretrainedModel) throws -> [UInt8] {
        let ids: [[Int32]] = [[5, 9, 11, 3, 7], [8, 2, 6]]
        let output = try model.forward(inputIDs: [ids[0]], decoderInputIDs: model.isEncoderDecoder ? [ids[1]] : nil)
        return Array(output.logits.hostBytes)
    }

    @Test("blocks on the disk give the same bytes", arguments: models, Form.allCases)
    func mixedMaps(name: String, form: Form) throws {
        let folder = Self.folder(name)
        let offload = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: offload) }
        let resident = try load(folder, form)
        let expected = try logits(resident)
        let onDisk = try load(folder, form, map: mixed(resident), offload: offload)
        #expect(try logits(onDisk) == expected)
        // Weights are read again for each use.
        #expect(try logits(onDisk) == expected)
        #expect(onDisk.report.residentBytes[.disk] ?? 0 > 0)
    }

    @Test("what is planned is what is stored", arguments: models, Form.allCases)
    func planCounts(name: String, form: Form) throws {
        var configuration = LoadConfiguration()
        configuration.dtype = form == .bfloat16 ? .bfloat16 : .float32
        configuration.quantization = form.quantization
        configuration.preparesWeights = false
        let model = try PretrainedModel.load(folder: Self.folder(name), configuration)
        let planned = try #require(model.report.placement)
        let stored = model.report.residentBytes.values.reduce(0, +)
        // Scales are rounded up for each tensor, and whether an expert's gate and up are one is the checkpoint's business.
        let experts = model.weights.experts.values.reduce(0) { $0 + $1.count }
        let slack = experts == 0 ? 0 : max(stored / 1000, 8 * experts)
        // Tables that the checkpoint leaves out are computed where the model runs.
        let computed = model.tree.parameters.filter { $0.isComputed && model.weights.tensors[$0.path] == nil }
            .reduce(0) { $0 + $1.shape.count * model.report.dtype.byteCount }
        #expect(abs(planned.storedBytes - stored - computed) <= slack)
    }

    @Test("a model wholly on the disk gives the same bytes", arguments: Form.allCases)
    func allOnDisk(form: Form) throws {
        let folder = Self.folder("bloom-stories")
        let expected = try logits(try load(folder, form))
        #expect(try logits(try load(folder, form, map: .all(on: .disk))) == expected)
    }

    @Test("an offload folder is written once, and not left half written") func offloadFolder() throws {
        let folder = Self.folder("bloom-stories")
        let offload = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: offload) }
        func files() throws -> [String: Date] {
            let names = try FileManager.default.contentsOfDirectory(atPath: offload.path)
            return try Dictionary(
                uniqueKeysWithValues: names.map { name in
                    let attributes = try FileManager.default.attributesOfItem(atPath: offload.appending(path: name).path)
                    return (name, attributes[.modificationDate] as? Date ?? .distantPast)
                })
        }
        let first = try logits(try load(folder, .nf4, map: .all(on: .disk), offload: offload))
        let written = try files()
        #expect(!written.isEmpty)
        #expect(written.keys.allSatisfy { $0.hasSuffix(".safetensors") })
        #expect(try logits(try load(folder, .nf4, map: .all(on: .disk), offload: offload)) == first)
        #expect(try files() == written)
        // Another form replaces the files.
        let nested = try logits(try load(folder, .nested, map: .all(on: .disk), offload: offload))
        #expect(nested == (try logits(try load(folder, .nested))))
    }

    @Test("a map that misses modules, and devices that are not there, are named") func errors() throws {
        let folder = Self.folder("bloom-stories")
        #expect(throws: DeviceMapError.self) { try load(folder, .float32, map: DeviceMap(["transformer.h.0": .cpu])) }
        #expect(throws: (any Error).self) { try load(folder, .float32, map: .all(on: .cuda(7))) }
    }

    @Test("absent GPUs in the limits only warn") func absentGPU() throws {
        var configuration = LoadConfiguration()
        configuration.maxMemory = [.cuda(9): "600MB"]
        let model = try PretrainedModel.load(folder: Self.folder("bloom-stories"), configuration)
        #expect(model.deviceMap.devices == [.cpu])
        #expect(model.report.warnings.contains { $0.contains("cuda:9") })
    }

    @Test("a small budget sends blocks to the disk and changes nothing") func budget() throws {
        let folder = Self.folder("bloom-stories")
        let resident = try load(folder, .float32)
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        configuration.context = 32
        let whole = try LoadPreview(folder: folder, configuration).placement
        let used = try #require(whole.devices.first { $0.device == .cpu })
        configuration.maxMemory = [.cpu: MemoryLimit(bytes: used.total - used.weights / 4)]
        let split = try PretrainedModel.load(folder: folder, configuration)
        #expect(split.deviceMap.devices.contains(.disk))
        let planned = try #require(split.report.placement?.devices.first { $0.device == .cpu })
        #expect(planned.total <= used.total - used.weights / 4)
        // The plan's count of stored bytes is what loading stores.
        #expect(planned.weights + planned.scales == split.report.residentBytes[.cpu])
        #expect(try logits(split) == logits(resident))
    }
}
