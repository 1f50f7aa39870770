import Foundation
import Nibble
import NibbleCheckpoint
import NibbleCore
import NibbleLoading
import NibbleTestSupport
import Testing

/// What may be in a model's weight files besides what the model uses, and in which form that may be.
@Suite struct CheckpointKindTests {
    private let folder: URL
    private let original = FixtureModel("llama", in: Fixtures.repository.appending(path: "Tests/Fixtures"))
    private let ids: [[Int32]] = [[5, 9, 14, 20, 7, 11, 3]]

    init() throws {
        folder = try Fixtures.temporaryFolder()
        try FileManager.default.copyItem(
            at: original.folder.appending(path: "config.json"), to: folder.appending(path: "config.json"))
    }

    private typealias Entry = (name: String, word: String, shape: [Int], bytes: [UInt8])

    /// The model's tensors as entries of a safetensors file.
    private func entries() throws -> [Entry] {
        let checkpoint = try CheckpointFiles.open(folder: original.folder)
        return try checkpoint.names.map { name in
            let tensor = try checkpoint.tensor(name)
            #expect(tensor.dtype == .float32)
            return (name, "F32", tensor.shape.dimensions, Array(tensor.hostBytes))
        }
    }

    private func write(_ entries: [Entry], to name: String = "model.safetensors", metadata: JSONValue? = nil) throws {
        var header = JSONObject()
        if let metadata { header["__metadata__"] = metadata }
        var data: [UInt8] = []
        for entry in entries {
            header[entry.name] = [
                "dtype": .string(entry.word), "shape": .array(entry.shape.map(JSONValue.int)),
                "data_offsets": [.int(data.count), .int(data.count + entry.bytes.count)],
            ]
            data += entry.bytes
        }
        let text = Array(JSONValue.object(header).encoded().utf8)
        let length = withUnsafeBytes(of: UInt64(text.count).littleEndian) { Array($0) }
        try Data(length + text + data).write(to: folder.appending(path: name))
    }

    private func logits(_ folder: URL) throws -> [Float] {
        let logits = try PretrainedModel.load(folder: folder).forward(inputIDs: ids).logits
        return withExtendedLifetime(logits) { Array($0.hostElements(Float.self)) }
    }

    @Test("tensors that no layer uses do not matter, whatever they are") func unusedTensors() throws {
        let more: [Entry] = [
            ("unused.complex", "C64", [1], [UInt8](repeating: 1, count: 8)), ("unused.f4", "F4", [8], [1, 2, 3, 4]),
            ("unused.rank", "F32", [1, 1, 1, 1, 1], [0, 0, 0, 0]), ("unused.\u{E9}", "U8", [1], [1]),
            ("unused.e\u{301}", "U8", [1], [2]), ("unused.\u{1B}[31m\n", "U8", [1], [3]),
        ]
        try write(entries() + more, metadata: .null)
        #expect(try logits(folder) == logits(original.folder))
        #expect(try Set(PretrainedModel.load(folder: folder).report.unexpected).count >= 5)
    }

    @Test("a tensor that a layer uses and that cannot be read is named", arguments: [("F4", "F4"), ("C64", "C64")])
    func usedTensors(word: String, expected: String) throws {
        let changed = try entries().map { entry -> Entry in
            entry.name == "model.norm.weight" ? (entry.name, word, entry.shape, entry.bytes) : entry
        }
        try write(changed)
        let error = #expect(throws: CheckpointError.self) { try PretrainedModel.load(folder: folder) }
        #expect(error?.description.contains("model.norm.weight") == true && error?.description.contains(expected) == true)
    }

    /// Whole numbers from -2 to 2, in each form exactly.
    private static let forms: [(word: String, encode: @Sendable (Int) -> [UInt8])] = [
        ("I64", { bytes(Int64($0)) }), ("I32", { bytes(Int32($0)) }), ("I16", { bytes(Int16($0)) }), ("I8", { bytes(Int8($0)) }),
        ("F64", { bytes(Double($0).bitPattern) }), ("F16", { bytes(Float16($0).bitPattern) }),
        ("F8_E4M3", { [[0xC0, 0xB8, 0, 0x38, 0x40][$0 + 2]] }), ("F8_E5M2", { [[0xC0, 0xBC, 0, 0x3C, 0x40][$0 + 2]] }),
    ]

    private static func bytes(_ value: some FixedWidthInteger) -> [UInt8] {
        withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }

    @Test(
        "weights in integers and 8-bit floats are cast",
        arguments: ["model.norm.weight", "model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"])
    func casts(name: String) throws {
        func with(_ word: String, _ encode: (Int) -> [UInt8]) throws -> [Float] {
            try write(
                entries().map { entry -> Entry in
                    guard entry.name == name else { return entry }
                    let count = entry.shape.reduce(1, *)
                    return (name, word, entry.shape, (0..<count).flatMap { encode($0 % 5 - 2) })
                })
            return try logits(folder)
        }
        let expected = try with("F32") { Self.bytes(Float($0).bitPattern) }
        #expect(try expected != logits(original.folder))
        for form in Self.forms { #expect(try with(form.word, form.encode) == expected, "\(form.word)") }
    }

    @Test("codes that need scales are not taken for numbers", arguments: ["_scale_inv", "_scale"]) func scaledCodes(
        ending: String
    ) throws {
        let name = "model.layers.0.mlp.up_proj.weight"
        let changed = try entries().map { entry -> Entry in
            entry.name == name ? (name, "F8_E4M3", entry.shape, [UInt8](repeating: 0x38, count: entry.shape.reduce(1, *))) : entry
        }
        try write(changed + [(name + ending, "F32", [1], [0, 0, 0x80, 0x3F])])
        let error = #expect(throws: LoadError.self) { try PretrainedModel.load(folder: folder) }
        #expect(error?.description.contains(name + ending) == true)
    }

    @Test("what an index says beside the truth does not matter") func carelessIndex() throws {
        let all = try entries()
        let half = all.count / 2
        try write(Array(all[..<half]), to: "a.safetensors")
        try write(Array(all[half...]), to: "b.safetensors")
        // Every tensor in the wrong shard, and one that is nowhere.
        var map = JSONObject(all.enumerated().map { ($1.name, .string($0 < half ? "./b.safetensors" : "a.safetensors")) })
        map["unused.weight"] = "a.safetensors"
        map["unused.other"] = "missing.safetensors"
        try Data(JSONValue.object(["weight_map": .object(map)]).encoded().utf8)
            .write(to: folder.appending(path: "model.safetensors.index.json"))
        #expect(try logits(folder) == logits(original.folder))
        try FileManager.default.removeItem(at: folder.appending(path: "b.safetensors"))
        let error = #expect(throws: CheckpointError.self) { try PretrainedModel.load(folder: folder) }
        #expect(error?.description.contains("b.safetensors") == true)
    }

    @Test("a folder with an adapter alone names what is needed") func adapter() throws {
        try FileManager.default.removeItem(at: folder.appending(path: "config.json"))
        try Data(#"{"base_model_name_or_path": "owner/base", "peft_type": "LORA"}"#.utf8)
            .write(to: folder.appending(path: "adapter_config.json"))
        let error = #expect(throws: LoadError.self) { try PretrainedModel.load(folder: folder) }
        #expect(error == .adapterWithoutBase(folder: folder.path, base: "owner/base"))
        #expect(error?.description.contains("owner/base") == true)
    }
}
