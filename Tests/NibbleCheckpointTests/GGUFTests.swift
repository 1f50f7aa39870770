import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

@Suite struct GGUFTests {
    let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private static let recorded = Fixtures.repository.appending(path: "Tests/Fixtures/gguf")

    private func open(_ builder: GGUFBuilder) throws -> GGUFFile { try GGUFFile(folder.write(builder.bytes(), to: "model.gguf")) }

    @Test(
        "blocks of every kind give the recorded numbers, bit for bit",
        arguments: [
            ("Q4_0", GGUFTensorType.q4_0), ("Q4_1", .q4_1), ("Q5_0", .q5_0), ("Q5_1", .q5_1), ("Q8_0", .q8_0), ("Q4_K", .q4_K),
            ("Q5_K", .q5_K), ("Q6_K", .q6_K), ("Q2_K", .q2_K), ("Q3_K", .q3_K), ("IQ4_NL", .iq4_NL), ("IQ4_XS", .iq4_XS),
            ("MXFP4", .mxfp4),
        ])
    func blocks(name: String, type: GGUFTensorType) throws {
        let isMore = [GGUFTensorType.q2_K, .q3_K, .iq4_NL, .iq4_XS, .mxfp4].contains(type)
        let file = try GGUFFile(Self.recorded.appending(path: isMore ? "low_bits.gguf" : "blocks.gguf"))
        let elements = isMore ? "low_bits.safetensors" : "elements.safetensors"
        let expected = try SafetensorsFile(Self.recorded.appending(path: elements)).tensor(name)
        #expect(file.info(name)?.type == type)
        let floats = try file.tensor(name)
        #expect(floats.shape == [2, 256] && floats.dtype == .float32)
        #expect(floats.floats.map(\.bitPattern) == expected.floats.map(\.bitPattern))
        let halves = try file.tensor(name, dequantizedTo: .float16)
        #expect(Array(halves.hostElements(Float16.self)) == expected.floats.map { Float16($0) })
        let brains = try file.tensor(name, dequantizedTo: .bfloat16)
        #expect(Array(brains.hostElements(BFloat16.self)) == expected.floats.map { BFloat16($0) })
    }

    struct Formula: Sendable {
        let type: GGUFTensorType
        /// The block's first bytes; the others are zero.
        let head: [UInt8]
        let expected: [Int: Float]
    }

    /// 0x3800 is the half 0.5, 0xBC00 is −1. The first byte 0xF1 holds elements 0 (1) and 16 (15).
    static let formulas: [Formula] = [
        Formula(type: .q4_0, head: [0x00, 0x38, 0xF1], expected: [0: -3.5, 16: 3.5]),
        Formula(type: .q4_1, head: [0x00, 0x38, 0x00, 0xBC, 0xF1], expected: [0: -0.5, 16: 6.5]),
        // Of the fifth bits, only that of element 0, then only that of element 16, is set.
        Formula(type: .q5_0, head: [0x00, 0x38, 1, 0, 0, 0, 0xF1], expected: [0: 0.5, 16: -0.5]),
        Formula(type: .q5_1, head: [0x00, 0x38, 0x00, 0xBC, 0, 0, 1, 0, 0xF1], expected: [0: -0.5, 16: 14.5]),
        Formula(type: .q8_0, head: [0x00, 0x38, 0xFF, 0x7F], expected: [0: -0.5, 1: 63.5]),
    ]

    @Test("single blocks follow the formulas of the format", arguments: formulas)
    func formula(_ formula: Formula) throws {
        var builder = GGUFBuilder()
        let padding = [UInt8](repeating: 0, count: formula.type.blockByteCount - formula.head.count)
        builder.tensors = [.init(name: "t", type: formula.type.rawValue, extents: [32], data: formula.head + padding)]
        let floats = try open(builder).tensor("t").floats
        #expect(floats.count == 32)
        for (index, value) in formula.expected { #expect(floats[index] == value) }
    }

    @Test(
        "elements that stand alone are views of the file",
        arguments: [
            (GGUFTensorType.f32, DType.float32), (.f16, .float16), (.bf16, .bfloat16), (.f64, .float64), (.i8, .int8),
            (.i16, .int16), (.i32, .int32), (.i64, .int64),
        ])
    func plain(type: GGUFTensorType, dtype: DType) throws {
        var builder = GGUFBuilder()
        let data = (0..<UInt8(6 * dtype.byteCount)).map { $0 }
        builder.tensors = [
            .init(name: "first", type: type.rawValue, extents: [1], data: Array(data.prefix(dtype.byteCount))),
            .init(name: "t", type: type.rawValue, extents: [3, 2], data: data),
        ]
        let file = try open(builder)
        let tensor = try file.tensor("t")
        #expect(tensor.dtype == dtype && tensor.shape == [2, 3] && tensor.bytes == data)
        #expect(file.names == ["first", "t"])
        #expect(try tensor.storage === file.tensor("first").storage)
        expectCheckpointError(naming: file.url, containing: "nothing") { try file.tensor("nothing") }
    }

    @Test("metadata of every type comes out plain, in versions 2 and 3", arguments: [2, 3] as [UInt32])
    func metadata(version: UInt32) throws {
        var builder = GGUFBuilder(version: version)
        func array(_ type: UInt32, _ count: Int, _ bytes: [UInt8]) -> [UInt8] {
            littleEndian(type) + littleEndian(UInt64(count)) + bytes
        }
        let values: [(UInt32, [UInt8], GGUFValue)] = [
            (0, [200], .int(200)), (1, [200], .int(-56)), (2, [0xFF, 0xFF], .int(65535)), (3, [0xFF, 0xFF], .int(-1)),
            (4, littleEndian(UInt32.max), .int(4_294_967_295)), (5, littleEndian(Int32.min), .int(-2_147_483_648)),
            (6, littleEndian(Float(0.5).bitPattern), .double(0.5)), (7, [1], .bool(true)),
            (8, GGUFBuilder.text("é"), .string("é")),
            (10, littleEndian(UInt64(7)), .int(7)), (10, littleEndian(UInt64.max), .uint(.max)),
            (11, littleEndian(Int64.min), .int(.min)),
            (12, littleEndian(0.1.bitPattern), .double(0.1)),
            (9, array(0, 2, [1, 200]), .ints([1, 200])), (9, array(1, 1, [255]), .ints([-1])),
            (9, array(2, 1, [1, 1]), .ints([257])),
            (9, array(3, 1, [255, 255]), .ints([-1])), (9, array(4, 1, littleEndian(UInt32(9))), .ints([9])),
            (9, array(5, 2, littleEndian(Int32(-9)) + littleEndian(Int32(8))), .ints([-9, 8])),
            (9, array(6, 1, littleEndian(Float(2).bitPattern)), .doubles([2])), (9, array(7, 2, [0, 1]), .bools([false, true])),
            (9, array(8, 2, GGUFBuilder.text("a") + GGUFBuilder.text("")), .strings(["a", ""])),
            (9, array(10, 1, littleEndian(UInt64.max)), .uints([.max])), (9, array(11, 1, littleEndian(Int64(-1))), .ints([-1])),
            (9, array(12, 1, littleEndian(0.1.bitPattern)), .doubles([0.1])),
            (
                9, array(9, 2, array(5, 1, littleEndian(Int32(1))) + array(8, 1, GGUFBuilder.text("a"))),
                .arrays([.ints([1]), .strings(["a"])])
            ),
            (9, array(9, 0, []), .arrays([])),
        ]
        for (index, value) in values.enumerated() { builder.metadata.append(("k\(index)", value.0, value.1)) }
        let file = try open(builder)
        #expect(file.version == Int(version) && file.metadata.count == values.count)
        for (index, value) in values.enumerated() { #expect(file.metadata["k\(index)"] == value.2) }
    }

    @Test("data begin where the file's own alignment says")
    func alignment() throws {
        var builder = GGUFBuilder(alignment: 128)
        builder.add("general.alignment", UInt32(128))
        builder.add("a", [2], floats: [1, 2])
        builder.add("b", [1], floats: [3])
        let file = try open(builder)
        #expect(try file.tensor("a").floats == [1, 2] && file.tensor("b").floats == [3])
        #expect(file.info("b")?.byteRange.lowerBound.isMultiple(of: 128) == true)
    }

    @Test(
        "a tensor that cannot be read does not cost the others",
        arguments: [
            (16, [2] as [UInt64], "unknown dtype IQ2_XXS"), (99, [2], "unknown dtype 99"), (0, [2, 1, 1, 1, 1], "5 dimensions"),
        ]
            as [(UInt32, [UInt64], String)])
    func unreadableTensors(type: UInt32, extents: [UInt64], word: String) throws {
        var builder = GGUFBuilder()
        builder.add("t", [2], floats: [1, 2])
        builder.tensors.append(.init(name: "x", type: type, extents: extents, data: [0, 0, 0, 0, 0, 0, 0, 0]))
        let file = try open(builder)
        #expect(file.names == ["t"] && file.unreadableNames == ["x"])
        #expect(try file.tensor("t").floats == [1, 2])
        expectCheckpointError(naming: file.url, containing: "tensor x", word) { try file.tensor("x") }
    }

    /// Two parts with a tensor each; the first describes the model.
    private func split(_ part: Int, of count: Int = 2) -> GGUFBuilder {
        var builder = GGUFBuilder()
        builder.metadata.append(("split.no", 2, littleEndian(UInt16(part))))
        builder.metadata.append(("split.count", 2, littleEndian(UInt16(count))))
        if part == 0 { builder.add("general.architecture", "llama") }
        builder.add("t\(part)", [2], floats: [Float(part), 7])
        return builder
    }

    @Test("a model in parts opens through any of them", arguments: [1, 2]) func parts(number: Int) throws {
        let names = ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"]
        for part in 0..<2 { try folder.write(split(part).bytes(), to: names[part]) }
        let url = folder.url.appending(path: names[number - 1])
        let file = try GGUFFile(url)
        #expect(file.names == ["t0", "t1"] && file.architecture == "llama" && file.url == url)
        #expect(file.urls.map(\.lastPathComponent) == names)
        #expect(try file.tensor("t0").floats == [0, 7] && file.tensor("t1").floats == [1, 7])
        let vocabulary = folder.url.appending(path: "tokenizer.gguf")
        try file.writeMetadata(to: vocabulary)
        #expect(try GGUFFile(vocabulary).metadata.map(\.key) == ["general.architecture"])
        try folder.write(split(0).bytes(), to: names[1])
        expectCheckpointError(naming: folder.url, containing: "part 2 of 2") {
            try GGUFFile(folder.url.appending(path: names[0]))
        }
    }

    @Test("a part without its others says what it is") func missingParts() throws {
        let alone = try folder.write(split(1, of: 3).bytes(), to: "m-00002-of-00003.gguf")
        expectCheckpointError(naming: alone, containing: "part 2 of 3", "m-00001-of-00003.gguf") { try GGUFFile(alone) }
        let renamed = try folder.write(split(0).bytes(), to: "model.gguf")
        expectCheckpointError(naming: renamed, containing: "part 1 of 2", "-00001-of-00002.gguf") { try GGUFFile(renamed) }
    }

    @Test("a file is known by its extension in any case, or by its beginning") func kind() throws {
        let bytes = GGUFBuilder().bytes()
        for name in ["a.gguf", "A.GGUF", "noext", "a.bin"] { #expect(GGUFFile.isGGUF(try folder.write(bytes, to: name))) }
        #expect(!GGUFFile.isGGUF(try folder.write("GGU", to: "short")))
        #expect(!GGUFFile.isGGUF(folder.url) && !GGUFFile.isGGUF(folder.url.appending(path: "nothing")))
        #expect(try CheckpointFiles.open(file: folder.write(llama().bytes(), to: "M.GGUF")) is GGUFCheckpoint)
    }

    private func llama() -> GGUFBuilder {
        var builder = GGUFBuilder()
        builder.add("general.architecture", "llama")
        builder.add("llama.attention.layer_norm_rms_epsilon", Float(1e-5))
        return builder
    }

    static let broken: [(what: String, word: String, bytes: [UInt8])] = {
        func file(_ change: (inout GGUFBuilder) -> Void) -> [UInt8] {
            var builder = GGUFBuilder()
            builder.add("general.architecture", "llama")
            builder.add("t", [2], floats: [1, 2])
            change(&builder)
            return builder.bytes()
        }
        func value(_ type: UInt32, _ bytes: [UInt8]) -> [UInt8] { file { $0.metadata = [("key", type, bytes)] } }
        func tensor(_ change: @escaping (inout GGUFBuilder.Tensor) -> Void) -> [UInt8] { file { change(&$0.tensors[0]) } }
        let long = littleEndian(UInt64.max)
        return [
            ("empty", "a GGUF file", []),
            ("another beginning", "a GGUF file", Array("GGML".utf8)),
            ("only a magic word", "4 bytes", Array("GGUF".utf8)),
            ("version 1", "version 1", file { $0.version = 1 }),
            ("version 4", "version 4", file { $0.version = 4 }),
            ("big-endian", "big-endian", file { $0.version = UInt32(3).byteSwapped }),
            ("more tensors than there are", "bytes at offset", file { $0.tensorCount = .max }),
            ("more values than there are", "expected", file { $0.valueCount = .max }),
            ("unknown type", "value of key, found 13", value(13, [])),
            ("endless array of arrays", "elements of the array key", value(9, littleEndian(UInt32(9)) + long)),
            (
                "nesting without end", "16 levels",
                value(9, Array(repeating: littleEndian(UInt32(9)) + littleEndian(UInt64(1)), count: 40).flatMap { $0 })
            ),
            ("array of unknowns", "array key, found 77", value(9, littleEndian(UInt32(77)) + littleEndian(UInt64(0)))),
            ("endless array", "elements of the array key", value(9, littleEndian(UInt32(0)) + long)),
            ("endless array of text", "elements of the array key", value(9, littleEndian(UInt32(8)) + long)),
            ("endless text", "9223372036854775807 bytes", value(8, long)),
            ("text that is no UTF-8", "UTF-8", value(8, littleEndian(UInt64(1)) + [0xFF])),
            ("two equal keys", "a second general.architecture", file { $0.add("general.architecture", "x") }),
            ("two equal tensors", "a second t", file { $0.add("t", [1], floats: [1]) }),
            ("alignment of zero", "general.alignment", file { $0.add("general.alignment", UInt32(0)) }),
            ("alignment of 24", "general.alignment", file { $0.add("general.alignment", UInt32(24)) }),
            ("alignment that is text", "general.alignment", file { $0.add("general.alignment", "32") }),
            ("rows of half a block", "blocks of 32", tensor { $0.type = 2 }),
            ("endless dimensions", "4 dimensions", tensor { $0.extents = Array(repeating: 1, count: 65) }),
            ("extents that overflow", "memory can hold", tensor { $0.extents = [1 << 62, 4] }),
            ("an extent beyond Int", "bytes of data", tensor { $0.extents = [.max] }),
            ("bytes that overflow", "bytes of data", tensor { $0.extents = [1 << 62] }),
            ("data beyond the file", "32 bytes of data", tensor { $0.extents = [9] }),
            ("offset beyond the file", "at offset 64", tensor { $0.offset = 64 }),
            ("endless offset", "at offset 18446744073709551615", tensor { $0.offset = .max }),
            ("offset between alignments", "multiple of 32", tensor { $0.offset = 4 }),
            ("a pointer", "Git LFS", Array("version https://git-lfs.github.com/spec/v1".utf8)),
        ]
    }()

    @Test("a broken file is refused with its name and what is wrong", arguments: broken)
    func refuses(what: String, word: String, bytes: [UInt8]) throws {
        let file = try folder.write(bytes, to: "broken.gguf")
        expectCheckpointError(naming: file, containing: word) { try GGUFFile(file) }
    }
}
