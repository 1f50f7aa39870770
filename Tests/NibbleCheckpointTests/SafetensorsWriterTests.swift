import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

@Suite struct SafetensorsWriterTests {
    let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private let tensors: [(name: String, tensor: Tensor)] = [
        ("b", .host([1, 2, 3] as [UInt8], .uint8, [3])),
        ("a", .host([1.5, -2] as [Float], .float32, [2, 1])),
        ("ü\"", .host([7] as [Int64], .int64, [])),
        ("none", .host([] as [UInt16], .bfloat16, [0, 4])),
    ]

    private func file(_ name: String) -> URL { folder.url.appending(path: name) }

    private func bytes(_ name: String) throws -> [UInt8] { try Array(Data(contentsOf: file(name))) }

    @Test("what is written reads back, in the given order, data aligned to eight bytes")
    func roundTrip() throws {
        try SafetensorsWriter().write(tensors, to: file("out.safetensors"))
        let checkpoint = try SafetensorsFile(file("out.safetensors"))
        #expect(checkpoint.metadata == ["format": "pt"])
        #expect(checkpoint.namesInFileOrder == ["b", "a", "ü\"", "none"])
        for (name, tensor) in tensors {
            let read = try checkpoint.tensor(name)
            #expect(read.bytes == tensor.bytes && read.shape == tensor.shape && read.dtype == tensor.dtype)
        }
        #expect(checkpoint.descriptor("b")?.byteOffset.isMultiple(of: 8) == true)
        #expect(try folder.contents == ["out.safetensors"])
    }

    @Test("names that look alike are written as two") func composedAndDecomposed() throws {
        let tensors: [(name: String, tensor: Tensor)] = [
            ("\u{E9}", .host([1] as [UInt8], .uint8, [1])), ("e\u{301}", .host([2] as [UInt8], .uint8, [1])),
        ]
        try SafetensorsWriter().write(tensors, to: file("out.safetensors"))
        let checkpoint = try SafetensorsFile(file("out.safetensors"))
        #expect(try checkpoint.tensor("\u{E9}").bytes == [1] && checkpoint.tensor("e\u{301}").bytes == [2])
    }

    @Test("the header is the reference library's, byte for byte")
    func header() throws {
        try SafetensorsWriter(order: .reference).write(Array(tensors.prefix(2)), to: file("out.safetensors"))
        let text =
            #"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}"#
        let padded = text + String(repeating: " ", count: (8 - text.utf8.count % 8) % 8)
        let expected = littleEndian(UInt64(padded.utf8.count)) + padded.utf8 + littleEndian([1.5, -2] as [Float]) + [1, 2, 3]
        #expect(try bytes("out.safetensors") == expected)
    }

    /// Files of the reference library: one with every dtype in the repository, quantized models in the full set.
    static let recorded: [URL] = {
        let models = ["llama_bnb_nf4_dq", "opt_bnb_int8"].map { Fixtures.url("fixtures/models/\($0)/model.safetensors") }
        let own = Fixtures.repository.appending(path: "Tests/Fixtures/torch/elements.safetensors")
        return [own] + models.filter { FileManager.default.fileExists(atPath: $0.path) }
    }()

    @Test("a file of the reference library is written again to the same bytes", arguments: recorded)
    func rewrite(source: URL) throws {
        let checkpoint = try SafetensorsFile(source)
        let specifications = try checkpoint.names.map { try TensorSpecification(name: $0, tensor: checkpoint.tensor($0)) }
        let writer = SafetensorsWriter(metadata: checkpoint.metadata, order: .reference)
        try writer.write(specifications, to: file("out.safetensors")) { try checkpoint.tensor($0.name) }
        #expect(try bytes("out.safetensors") == Array(Data(contentsOf: source)))
    }

    @Test("a write that fails leaves the old file and nothing else")
    func failure() throws {
        struct Interruption: Error {}
        let target = try folder.write("old", to: "out.safetensors")
        let specifications = tensors.map { TensorSpecification(name: $0.name, tensor: $0.tensor) }
        var calls = 0
        #expect(throws: Interruption.self) {
            try SafetensorsWriter().write(specifications, to: target) { _ in
                calls += 1
                guard calls == 1 else { throw Interruption() }
                return tensors[0].tensor
            }
        }
        #expect(try folder.contents == ["out.safetensors"])
        #expect(try bytes("out.safetensors") == Array("old".utf8))
        expectCheckpointError(naming: target, containing: "uint8[3]") {
            try SafetensorsWriter().write(specifications, to: target) { _ in tensors[1].tensor }
        }
        expectCheckpointError(naming: target, containing: "each name once") {
            try SafetensorsWriter().write([tensors[0], tensors[0]], to: target)
        }
        let nowhere = folder.url.appending(path: "missing/out.safetensors")
        expectCheckpointError(naming: nowhere) { try SafetensorsWriter().write(tensors, to: nowhere) }
        #expect(try folder.contents == ["out.safetensors"])
    }

    @Test("shards are cut where the reference cuts them")
    func sharding() throws {
        let sizes = [4, 4, 20, 3, 6, 1]
        let parts = sizes.enumerated().map { index, size in
            ("t\(index)", Tensor.host([UInt8](repeating: UInt8(index), count: size), .uint8, [size]))
        }
        let held = Dictionary(uniqueKeysWithValues: parts)
        let specifications = parts.map { TensorSpecification(name: $0.0, tensor: $0.1) }
        try folder.write("old", to: "model.safetensors")
        try folder.write("old", to: "model-00001-of-00009.safetensors")
        try folder.write("kept", to: "model-notes.safetensors")
        let files = try SafetensorsWriter().writeSharded(
            specifications, to: folder.url, maximumShardByteCount: 10, extraMetadata: ["total_parameters": 38]
        ) { held[$0.name]! }
        #expect(
            try folder.contents == [
                "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors",
                "model-notes.safetensors",
                "model.safetensors.index.json",
            ])
        // The large tensor is cut out at once, before the shard that was being filled.
        #expect(try files.map { try SafetensorsFile($0).names } == [["t2"], ["t0", "t1"], ["t3", "t4", "t5"]])
        #expect(
            try String(decoding: bytes("model.safetensors.index.json"), as: UTF8.self) == """
                {
                  "metadata": {
                    "total_parameters": 38,
                    "total_size": 38
                  },
                  "weight_map": {
                    "t0": "model-00002-of-00003.safetensors",
                    "t1": "model-00002-of-00003.safetensors",
                    "t2": "model-00001-of-00003.safetensors",
                    "t3": "model-00003-of-00003.safetensors",
                    "t4": "model-00003-of-00003.safetensors",
                    "t5": "model-00003-of-00003.safetensors"
                  }
                }

                """)
        let checkpoint = try CheckpointFiles.open(folder: folder.url)
        #expect(checkpoint.names == ["t0", "t1", "t2", "t3", "t4", "t5"])
        #expect(checkpoint.metadata["total_size"] == "38")
        for (name, tensor) in parts { #expect(try checkpoint.tensor(name).bytes == tensor.bytes) }
    }

    @Test("what fits one shard is one file, and an old index goes")
    func oneShard() throws {
        try folder.write("{}", to: "model.safetensors.index.json")
        let specifications = tensors.map { TensorSpecification(name: $0.name, tensor: $0.tensor) }
        let files = try SafetensorsWriter().writeSharded(specifications, to: folder.url) { specification in
            tensors.first { $0.name == specification.name }!.tensor
        }
        #expect(files.map(\.lastPathComponent) == ["model.safetensors"])
        #expect(try folder.contents == ["model.safetensors"])
    }
}
