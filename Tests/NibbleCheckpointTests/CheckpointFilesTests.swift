import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

@Suite struct CheckpointFilesTests {
    let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    /// A one-tensor file that says what it is called.
    @discardableResult
    private func add(_ file: String, _ names: String...) throws -> URL {
        let tensors = names.map { ($0, Tensor.host(Array(file.utf8), .uint8, [file.utf8.count])) }
        let url = folder.url.appending(path: file)
        try SafetensorsWriter().write(tensors, to: url)
        return url
    }

    private func index(_ map: [String: String], to name: String = "model.safetensors.index.json") throws {
        let members = JSONObject(map.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) })
        try folder.write(
            JSONValue.object(["metadata": ["total_size": 7, "dtype": "float16"], "weight_map": .object(members)]).encoded(),
            to: name)
    }

    private func source(_ checkpoint: any Checkpoint, _ name: String) throws -> String {
        try String(decoding: checkpoint.tensor(name).bytes, as: UTF8.self)
    }

    @Test("the single file comes before the index")
    func order() throws {
        try add("model-00001-of-00001.safetensors", "b")
        try index(["b": "model-00001-of-00001.safetensors"])
        #expect(try CheckpointFiles.open(folder: folder.url).names == ["b"])
        try add("model.safetensors", "a")
        #expect(try CheckpointFiles.open(folder: folder.url).names == ["a"])
    }

    @Test("a variant stands before the last extension")
    func variants() throws {
        try add("model.safetensors", "plain")
        expectCheckpointError(naming: folder.url, containing: "model.fp16.safetensors", "leave out the variant") {
            try CheckpointFiles.open(folder: folder.url, variant: "fp16")
        }
        try add("x.safetensors", "sharded")
        try index(["sharded": "x.safetensors"], to: "model.safetensors.index.fp16.json")
        #expect(try CheckpointFiles.open(folder: folder.url, variant: "fp16").names == ["sharded"])
        try add("model.fp16.safetensors", "half")
        #expect(try CheckpointFiles.open(folder: folder.url, variant: "fp16").names == ["half"])
        #expect(try CheckpointFiles.open(folder: folder.url).names == ["plain"])
    }

    @Test("the error says what was looked for, and what is there instead")
    func nothing() throws {
        expectCheckpointError(naming: folder.url, containing: "model.safetensors", "pytorch_model.bin") {
            try CheckpointFiles.open(folder: folder.url)
        }
        try folder.write("", to: "pytorch_model.bin")
        expectCheckpointError(naming: folder.url, containing: "model.safetensors", "pytorch_model.bin is there") {
            try CheckpointFiles.open(folder: folder.url, useSafetensors: true)
        }
        try FileManager.default.removeItem(at: folder.url.appending(path: "pytorch_model.bin"))
        try add("model.safetensors", "a")
        expectCheckpointError(naming: folder.url, containing: "model.safetensors is there") {
            try CheckpointFiles.open(folder: folder.url, useSafetensors: false)
        }
    }

    @Test("a configuration may name the file")
    func named() throws {
        try add("model.safetensors", "a")
        try add("other.safetensors", "b")
        try index(["b": "other.safetensors"], to: "other.safetensors.index.json")
        #expect(try CheckpointFiles.open(folder: folder.url, named: "other.safetensors").names == ["b"])
        #expect(try CheckpointFiles.open(folder: folder.url, named: "other.safetensors.index.json").names == ["b"])
        expectCheckpointError(naming: folder.url, containing: "missing.safetensors") {
            try CheckpointFiles.open(folder: folder.url, named: "missing.safetensors")
        }
        expectCheckpointError(naming: folder.url, containing: "safetensors") {
            try CheckpointFiles.open(folder: folder.url, named: "weights.bin")
        }
        expectCheckpointError(naming: folder.url, containing: "../other.safetensors") {
            try CheckpointFiles.open(folder: folder.url, named: "../other.safetensors")
        }
    }

    @Test("of two tensors with one name that of the later file counts, and unnamed ones are offered")
    func laterFilesWin() throws {
        try add("a.safetensors", "x", "y", "unnamed")
        try add("b.safetensors", "x")
        try index(["x": "a.safetensors", "y": "a.safetensors", "z": "c.safetensors"])
        try add("c.safetensors", "z", "y")
        let checkpoint = try CheckpointFiles.open(folder: folder.url)
        #expect(checkpoint.files.map(\.lastPathComponent) == ["a.safetensors", "c.safetensors"])
        #expect(checkpoint.names == ["unnamed", "x", "y", "z"])
        #expect(try source(checkpoint, "x") == "a.safetensors")
        #expect(try source(checkpoint, "y") == "c.safetensors")
        #expect(checkpoint.descriptor("y")?.file.lastPathComponent == "c.safetensors")
        #expect(checkpoint.metadata == ["total_size": "7", "dtype": "float16"])
        #expect(checkpoint.namesInFileOrder.last == "y" && checkpoint.namesInFileOrder.first == "x")
        expectCheckpointError(naming: folder.url, containing: "nothing") { try checkpoint.tensor("nothing") }
    }

    @Test("a shard that is missing, or lacks its tensor, is named when the tensor is asked for")
    func missing() throws {
        try index(["x": "a.safetensors", "y": "b.safetensors"])
        expectCheckpointError(naming: folder.url, containing: "a.safetensors", "not there") {
            try CheckpointFiles.open(folder: folder.url)
        }
        try add("a.safetensors", "x")
        var checkpoint = try CheckpointFiles.open(folder: folder.url)
        #expect(checkpoint.names == ["x"] && checkpoint.unreadableNames == ["y"])
        expectCheckpointError(naming: folder.url, containing: "b.safetensors", "not there") { try checkpoint.tensor("y") }
        try add("b.safetensors", "z")
        checkpoint = try CheckpointFiles.open(folder: folder.url)
        #expect(checkpoint.names == ["x", "z"] && checkpoint.unreadableNames == ["y"])
        expectCheckpointError(naming: folder.url, containing: "puts y in b.safetensors") { try checkpoint.tensor("y") }
    }

    @Test("an index that names the wrong shard is no obstacle") func wrongShard() throws {
        try add("a.safetensors", "x")
        try add("b.safetensors", "y")
        try index(["x": "b.safetensors", "y": "a.safetensors"])
        let checkpoint = try CheckpointFiles.open(folder: folder.url)
        #expect(checkpoint.names == ["x", "y"] && checkpoint.unreadableNames.isEmpty)
        #expect(try source(checkpoint, "x") == "a.safetensors")
    }

    @Test(
        "paths in an index are brought into plain form", arguments: ["./a.safetensors", "././a.safetensors", ".//a.safetensors"])
    func plainPaths(name: String) throws {
        try add("a.safetensors", "x")
        try index(["x": name])
        #expect(try CheckpointFiles.open(folder: folder.url).names == ["x"])
        #expect(try CheckpointFiles.shards(of: folder.url.appending(path: "model.safetensors.index.json")) == ["a.safetensors"])
    }

    @Test("keys of an index are compared byte by byte") func composedAndDecomposed() throws {
        try add("a.safetensors", "x")
        try index(["x": "a.safetensors", "\u{E9}": "a.safetensors"])
        let text = try String(contentsOf: folder.url.appending(path: "model.safetensors.index.json"), encoding: .utf8)
        try folder.write(text.replacing("\"x\"", with: "\"e\u{301}\""), to: "model.safetensors.index.json")
        #expect(try CheckpointFiles.open(folder: folder.url).unreadableNames.count == 2)
    }

    @Test("a folder with an adapter alone says so") func adapter() throws {
        try add("adapter_model.safetensors", "x")
        expectCheckpointError(naming: folder.url, containing: "adapter_model.safetensors is an adapter") {
            try CheckpointFiles.open(folder: folder.url)
        }
    }

    @Test(
        "a name that leaves the folder is refused",
        arguments: ["../a.safetensors", "/etc/passwd", "x/../../a", "", ".", "./..", "..", "a\\b", "a\0b", "../\u{338}a"])
    func escapes(name: String) throws {
        try add("a.safetensors", "x")
        try index(["x": name])
        let error = #expect(throws: CheckpointError.self) { try CheckpointFiles.open(folder: folder.url) }
        #expect(error == .unsafePath(file: folder.url.appending(path: "model.safetensors.index.json").path, name: name))
    }

    @Test(
        "a broken index is refused",
        arguments: [
            "", "[]", "{}", #"{"weight_map": []}"#, #"{"weight_map": {}}"#, #"{"weight_map": {"a": 1}}"#,
            #"{"weight_map": {"a": "a", "a": "b"}}"#,
        ])
    func brokenIndex(text: String) throws {
        let file = try folder.write(text, to: "model.safetensors.index.json")
        expectCheckpointError(naming: file) { try CheckpointFiles.open(folder: folder.url) }
    }

    @Test("a recorded sharded checkpoint opens", .enabled(if: Fixtures.folders(in: "fixtures/models").contains("bloom")))
    func recorded() throws {
        let checkpoint = try CheckpointFiles.open(folder: Fixtures.url("fixtures/models/bloom"))
        let total = checkpoint.names.compactMap { checkpoint.descriptor($0)?.byteCount }.reduce(0, +)
        #expect(checkpoint.files.count == 4)
        #expect(String(total) == checkpoint.metadata["total_size"])
        #expect(Set(checkpoint.namesInFileOrder) == Set(checkpoint.names))
    }

    @Test("names are ordered by parts, numbers as numbers and first")
    func naturalOrder() throws {
        let ordered = [
            "1.a", "2.a", "10.a", "a", "a.2", "a.02.b", "a.10", "a.123456789012345678901234567890",
            "a.1234567890123456789012345678901", "a.b", "a.b.c", "ab",
        ]
        #expect(ordered.reversed().sorted(by: NaturalOrder.precedes) == ordered)
        for name in ordered { #expect(!NaturalOrder.precedes(name, name)) }
    }
}
