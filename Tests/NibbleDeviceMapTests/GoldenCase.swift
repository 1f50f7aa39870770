import Foundation
import NibbleCore
import NibbleDeviceMap
import NibbleModels
import NibbleQuantization
import NibbleTestSupport

/// One recorded plan of the reference.
struct GoldenCase: Sendable, CustomStringConvertible {
    let name: String
    let json: JSONValue

    /// Those whose recorded module tree is among the fixtures. The repository keeps one tree of each family.
    static let withTree = all.filter { FileManager.default.fileExists(atPath: $0.treeFile.path) }
    /// Those in which the reference keeps everything on the GPUs.
    static let onGPUs = all.filter { $0.expectedMap.values.allSatisfy(\.isGPU) }
    /// Those in which it does not.
    static let spilling = all.filter { !$0.expectedMap.values.allSatisfy(\.isGPU) }

    static let all: [GoldenCase] = {
        let folder = Fixtures.url("golden/device_map")
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return names.filter { $0.hasSuffix(".json") }.sorted().compactMap { name in
            (try? JSONValue(contentsOf: folder.appending(path: name))).map { GoldenCase(name: name, json: $0) }
        }
    }()

    var description: String { name }

    var dtype: DType { json["dtype"]?.string.flatMap(DType.init(name:)) ?? .float32 }
    var quantization: String { json["quantization"]?.string ?? "none" }
    var expectedError: String? { json["expected"]?["error"]?.string }

    var expectedMap: [String: Device] {
        json["expected"]?["device_map"].flatMap { try? DeviceMap(json: $0, source: name).entries } ?? [:]
    }

    var expectedLimits: [Device: Double] { doubles("memory_given_to_planner") }
    var expectedBalance: [Device: Double] { doubles("memory_after_balancing") }

    private func doubles(_ key: String) -> [Device: Double] {
        var limits: [Device: Double] = [:]
        for (key, value) in json["expected"]?[key]?.object ?? [:] { limits[Device(name: key) ?? .disk] = value.double }
        return limits
    }

    func limits() throws -> [Device: Int] {
        var limits: [Device: Int] = [:]
        for (key, value) in json["max_memory"]?.object ?? [:] {
            let limit = value.int.map { MemoryLimit(bytes: $0) } ?? MemoryLimit(value.string ?? "")
            limits[Device(name: key) ?? .disk] = try limit.bytes()
        }
        return limits
    }

    var request: DeviceMapRequest { json["device_map_argument"]?.string.flatMap(DeviceMapRequest.init(name:)) ?? .auto }

    var balance: ReferencePlanner.Balance {
        switch request {
        case .balancedLow0: .low0
        case .sequential: .none
        default: .even
        }
    }

    var config: BitsAndBytesConfig? {
        switch quantization {
        case "int8": BitsAndBytesConfig(loadIn8Bit: true)
        case "nf4": BitsAndBytesConfig(loadIn4Bit: true, quantType: .nf4)
        case "nf4+offload": BitsAndBytesConfig(loadIn4Bit: true, int8EnableFP32CPUOffload: true, quantType: .nf4)
        default: nil
        }
    }

    func architecture() throws -> ModelArchitecture {
        try ModelRegistry.architecture(ConfigReader(json["config"]?.object ?? [:], file: name))
    }

    private var treeFile: URL { Fixtures.url("golden/device_map").appending(path: json["tree"]?.string ?? "none") }

    func recordedTree() throws -> RecordedTree { RecordedTree(try JSONValue(contentsOf: treeFile)) }
}

/// A module tree as the reference listed it, with the bytes it counted.
struct RecordedTree {
    let tree: ModuleTree
    let bytes: [String: Double]

    init(_ json: JSONValue) {
        var bytes: [String: Double] = [:]
        var rows: [String: JSONValue] = [:]
        var children: [String: [String]] = [:]
        for row in json["modules"]?.array ?? [] {
            guard let name = row["name"]?.string else { continue }
            rows[name] = row
            if !name.isEmpty {
                let parent = name.lastIndex(of: ".").map { String(name[..<$0]) } ?? ""
                children[parent, default: []].append(name)
            }
            for parameter in row["params"]?.array ?? [] {
                let path = (name.isEmpty ? "" : name + ".") + (parameter["name"]?.string ?? "")
                bytes[path] = parameter["bytes"]?.double
            }
        }
        func node(_ path: String) -> ModuleNode {
            let row = rows[path]
            return ModuleNode(
                String(path.split(separator: ".").last ?? ""), row?["class"]?.string ?? "",
                parameters: (row?["params"]?.array ?? []).map { .init($0["name"]?.string ?? "", [$0["numel"]?.int ?? 0]) },
                buffers: (row?["buffers"]?.array ?? []).map {
                    .init(
                        $0["name"]?.string ?? "", count: $0["numel"]?.int ?? 0,
                        dtype: $0["dtype"]?.string.flatMap(DType.init(name:)) ?? .float32)
                },
                children: (children[path] ?? []).map(node))
        }
        tree = ModuleTree(
            root: node(""),
            tied: (json["tied_weights"]?.object ?? [:]).map { (target: $0, source: $1.string ?? "") },
            noSplitClasses: Set((json["no_split_modules"]?.array ?? []).compactMap(\.string)))
        self.bytes = bytes
    }
}
