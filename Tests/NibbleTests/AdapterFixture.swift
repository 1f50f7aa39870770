import Foundation
import Nibble
import NibbleCheckpoint
import NibbleCore
import NibbleHub
import NibbleLoading
import NibbleModels
import NibbleTestSupport

/// One folder of results recorded with peft: adapters over a tiny checkpoint, and what the model answered with them.
struct AdapterFixture: Sendable, CustomStringConvertible {
    let name: String
    let folder: URL
    private let root: URL

    var description: String { name }

    private static let own = Fixtures.repository.appending(path: "Tests/Fixtures")
    private static let path = "fixtures/adapters"
    static let refusedName = "refused"

    /// Those of the full set, and the repository's own.
    static let all: [AdapterFixture] = {
        let names = Fixtures.folders(in: path)
        let more = Fixtures.folders(in: path, of: own).filter { !names.contains($0) }
        return (names.map { AdapterFixture($0, Fixtures.root) } + more.map { AdapterFixture($0, own) })
            .filter { $0.name != refusedName && $0.hasBase }
    }()

    private init(_ name: String, _ root: URL) {
        self.name = name
        self.root = root
        folder = root.appending(path: "\(AdapterFixture.path)/\(name)")
    }

    static let refused: URL = {
        let full = Fixtures.url("\(path)/\(refusedName)")
        return FileManager.default.fileExists(atPath: full.path) ? full : own.appending(path: "\(path)/\(refusedName)")
    }()

    /// Whether the base is among the recorded models, too.
    private var hasBase: Bool {
        (try? base()).map { FileManager.default.fileExists(atPath: $0.folder.appending(path: "config.json").path) } ?? true
    }

    func expected() throws -> JSONValue { try JSONValue(contentsOf: folder.appending(path: "expected.json")) }

    func recorded() throws -> any Checkpoint { try CheckpointFiles.open(file: folder.appending(path: "expected.safetensors")) }

    func base() throws -> FixtureModel { FixtureModel(try expected()["base"]?.string ?? "", in: root) }

    /// A recorded checkpoint that stands for the base.
    func other(_ name: String) -> FixtureModel { FixtureModel(name, in: root) }

    var mode: String? { (try? expected())?["mode"]?.string }

    /// Whether unmerged answers are recorded.
    var hasLoads: Bool { (try? expected()["loads"]?.object?.isEmpty) != true }

    func adapters() throws -> [URL] {
        try (expected()["adapters"]?.array ?? []).compactMap { $0["folder"]?.string }.map {
            $0 == "." ? folder : folder.appending(path: $0)
        }
    }

    /// How the base was loaded.
    func configuration(_ load: String) throws -> LoadConfiguration {
        let expected = try expected()
        let config = expected["loads"]?[load]?["config"] ?? AdapterFixture.configs[load] ?? .null
        var configuration = LoadConfiguration()
        configuration.followsReference = true
        configuration.dtype = AdapterFixture.isNative(load) ? .bfloat16 : .float32
        configuration.quantization = try config.object.map { try BitsAndBytesConfig($0) }
        configuration.notice = { _ in }
        return configuration
    }

    private static let configs: [String: JSONValue] = [
        "nf4": ["load_in_4bit": true, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"],
        "nf4_dq": [
            "load_in_4bit": true, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true,
            "bnb_4bit_compute_dtype": "float32",
        ],
        "int8": ["load_in_8bit": true, "llm_int8_threshold": 6.0],
    ]

    static func isNative(_ load: String) -> Bool { load == "bfloat16" || load.hasSuffix("_native") }

    /// How far logits may be from the recorded ones, as a share of their norm. The CPU backend rounds no activations to bfloat16.
    static func bound(_ load: String) -> Double {
        if isNative(load) { return load.hasPrefix("int8") ? 0.1 : 6e-2 }
        return load == "float32" ? 1e-4 : load.hasPrefix("int8") ? 5e-2 : 1e-3
    }

    /// The relative error of a forward pass.
    func error(_ model: PretrainedModel, against name: String, rows: Int) throws -> Double {
        let recorded = try recorded()
        func first(_ ids: [[Int32]]?) -> [[Int32]]? { ids.map { Array($0.prefix(rows)) } }
        let ids = try first(recorded.ids("input_ids")) ?? []
        let mask = try first(recorded.ids("attention_mask"))
        let decoderIDs = try first(recorded.ids("decoder_input_ids"))
        let output = try model.forward(inputIDs: ids, attentionMask: mask, decoderInputIDs: decoderIDs)
        return LogitsComparison(
            output.logits, try recorded.tensor(name), mask: decoderIDs == nil ? mask : nil, rows: 0..<ids.count
        ).relativeError
    }
}

extension Tensor {
    /// SHA-256 of the bytes, in hexadecimal digits.
    var digest: String {
        var hash = ContentHash(etag: String(repeating: "0", count: 64), byteCount: 0)
        withExtendedLifetime(self) { hash?.update(hostBytes) }
        return hash?.text ?? ""
    }
}
