import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

@Suite struct SafetensorsFileTests {
    let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    @Test("a small file gives its tensors, names in natural order, and metadata")
    func reads() throws {
        let header = """
            {"h.10.w":{"dtype":"U8","shape":[2,2],"data_offsets":[8,12]},"__metadata__":{"format":"pt","note":"é"},\
            "h.2.w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"extra":[1,{}]},"s":{"dtype":"I8","shape":[],"data_offsets":[12,13]},\
            "h.x":{"dtype":"BF16","shape":[0,3],"data_offsets":[13,13]}}   \n
            """
        let file = try folder.write(safetensors(header, data: 13), to: "a.safetensors")
        let checkpoint = try SafetensorsFile(file)
        #expect(checkpoint.names == ["h.2.w", "h.10.w", "h.x", "s"])
        #expect(checkpoint.namesInFileOrder == ["h.2.w", "h.10.w", "s", "h.x"])
        #expect(checkpoint.metadata == ["format": "pt", "note": "é"])
        #expect(checkpoint.files == [file])
        #expect(checkpoint.firstFloatingPointDType == .float32)
        let tensor = try checkpoint.tensor("h.10.w")
        #expect(tensor.shape == [2, 2] && tensor.dtype == .uint8 && tensor.bytes == [8, 9, 10, 11])
        #expect(try checkpoint.tensor("s").shape == [] && checkpoint.tensor("s").bytes == [12])
        #expect(try checkpoint.tensor("h.x").count == 0)
        let place = try #require(checkpoint.descriptor("h.2.w"))
        #expect(place.byteOffset == 8 + header.utf8.count && place.byteCount == 8 && place.file == file && place.isContiguous)
        #expect(checkpoint.descriptor("nothing") == nil)
        expectCheckpointError(naming: file, containing: "nothing") { try checkpoint.tensor("nothing") }
    }

    @Test(
        "every dtype of the format is known",
        arguments: [
            ("F64", DType.float64), ("F32", .float32), ("F16", .float16), ("BF16", .bfloat16), ("I64", .int64), ("I32", .int32),
            ("I16", .int16),
            ("I8", .int8), ("U64", .uint64), ("U32", .uint32), ("U16", .uint16), ("U8", .uint8), ("BOOL", .bool),
            ("F8_E4M3", .float8E4M3),
            ("F8_E5M2", .float8E5M2),
        ])
    func dtypes(word: String, dtype: DType) throws {
        let header = #"{"t":{"dtype":"\#(word)","shape":[3],"data_offsets":[0,\#(3 * dtype.byteCount)]}}"#
        let file = try folder.write(safetensors(header, data: 3 * dtype.byteCount), to: "a.safetensors")
        let tensor = try SafetensorsFile(file).tensor("t")
        #expect(tensor.dtype == dtype && tensor.count == 3)
    }

    @Test("data that the header leaves misaligned come out aligned", arguments: 0..<9)
    func alignment(padding: Int) throws {
        let header =
            #"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}"#
            + String(repeating: " ", count: padding)
        let file = try folder.write(safetensors(header, data: 9), to: "a.safetensors")
        let tensor = try SafetensorsFile(file).tensor("b")
        #expect(tensor.address % 4 == 0)
        #expect(tensor.bytes == Array(1...8))
    }

    @Test("tensors outlive their checkpoint, and dropped pages come back")
    func lifetime() throws {
        let header = #"{"t":{"dtype":"U8","shape":[20000],"data_offsets":[0,20000]}}"#
        let file = try folder.write(safetensors(header, data: 20_000), to: "a.safetensors")
        func open() throws -> Tensor {
            let checkpoint = try SafetensorsFile(file)
            let tensor = try checkpoint.tensor("t")
            checkpoint.prefetch("t")
            checkpoint.dropPages("t")
            checkpoint.dropPages("nothing")
            return tensor
        }
        let tensor = try open()
        try FileManager.default.removeItem(at: file)
        #expect(tensor.bytes == (0..<20_000).map { UInt8(truncatingIfNeeded: $0) })
    }

    static let broken: [(what: String, bytes: [UInt8], word: String)] = {
        func one(_ entry: String, data: Int = 4) -> [UInt8] { safetensors("{\"t\":{\(entry)}}", data: data) }
        return [
            ("empty", [], "0 bytes"),
            ("shorter than a length", [1, 2, 3], "3 bytes"),
            ("header beyond the file", safetensors("{}", data: 0, headerLength: 3), "a file of 10 bytes"),
            ("header over 100 MB", safetensors("{}", data: 0, headerLength: 100_000_001), "100000000"),
            ("header length of all ones", safetensors("{}", data: 0, headerLength: .max), "18446744073709551615"),
            ("no JSON", safetensors("hello", data: 0), "an object"),
            ("an array", safetensors("[]", data: 0), "an object"),
            ("JSON cut short", safetensors(#"{"t":{"dtype":"F32""#, data: 0), "',' or '}'"),
            ("JSON and more", safetensors("{} x", data: 0), "the end"),
            ("deep nesting", safetensors("{\"t\":{\"x\":" + String(repeating: "[", count: 9999), data: 0), "levels"),
            (
                "two equal names",
                safetensors(
                    #"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
                    data: 2), "\"t\""
            ),
            ("two metadata", safetensors(#"{"__metadata__":{},"__metadata__":{}}"#, data: 0), "__metadata__"),
            ("two dtypes", one(#""dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]"#), "one dtype"),
            ("metadata that is no text", safetensors(#"{"__metadata__":{"a":1}}"#, data: 0), "a string"),
            ("unknown dtype", one(#""dtype":"F4","shape":[4],"data_offsets":[0,4]"#), "F4"),
            ("no dtype", one(#""shape":[4],"data_offsets":[0,4]"#), "a dtype"),
            ("no shape", one(#""dtype":"U8","data_offsets":[0,4]"#), "a shape"),
            ("no offsets", one(#""dtype":"U8","shape":[4]"#), "data_offsets"),
            ("three offsets", one(#""dtype":"U8","shape":[4],"data_offsets":[0,4,4]"#), "data_offsets"),
            ("offsets that go back", one(#""dtype":"U8","shape":[4],"data_offsets":[4,0]"#), "data_offsets"),
            ("a negative offset", one(#""dtype":"U8","shape":[4],"data_offsets":[-4,0]"#), "data_offsets"),
            ("a fractional offset", one(#""dtype":"U8","shape":[4],"data_offsets":[0,4.0]"#), "a whole number"),
            ("an offset beyond Int", one(#""dtype":"U8","shape":[4],"data_offsets":[0,9223372036854775808]"#), "a whole number"),
            ("a negative extent", one(#""dtype":"U8","shape":[-4],"data_offsets":[0,4]"#), "[-4]"),
            ("shape that overflows", one(#""dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,4]"#), "4294967296"),
            (
                "bytes that overflow", one(#""dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,4]"#),
                "2305843009213693952"
            ),
            ("shape and bytes disagree", one(#""dtype":"F32","shape":[2],"data_offsets":[0,4]"#), "8 bytes"),
            ("rank 5", one(#""dtype":"U8","shape":[1,1,1,1,4],"data_offsets":[0,4]"#), "5 dimensions"),
            ("data beyond the file", one(#""dtype":"U8","shape":[5],"data_offsets":[0,5]"#), "within 4 bytes"),
            ("trailing bytes", one(#""dtype":"U8","shape":[4],"data_offsets":[0,4]"#, data: 5), "1 bytes more"),
            ("a hole at the start", one(#""dtype":"U8","shape":[3],"data_offsets":[1,4]"#), "a hole"),
            (
                "a hole",
                safetensors(
                    #"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}"#,
                    data: 3), "a hole"
            ),
            (
                "an overlap",
                safetensors(
                    #"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"t":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
                    data: 3), "an overlap"
            ),
            ("name that is not UTF-8", littleEndian(UInt64(6)) + [0x7B, 0x22, 0xFF, 0x22, 0x3A, 0x7D], "UTF-8"),
        ]
    }()

    @Test("a broken file is refused with its name and what is wrong", arguments: broken)
    func refuses(what: String, bytes: [UInt8], word: String) throws {
        let file = try folder.write(bytes, to: "broken.safetensors")
        expectCheckpointError(naming: file, containing: word) { try SafetensorsFile(file) }
    }

    @Test("what is not a readable file is refused")
    func unreadable() throws {
        let missing = folder.url.appending(path: "missing.safetensors")
        expectCheckpointError(naming: missing) { try SafetensorsFile(missing) }
        expectCheckpointError(naming: folder.url, containing: "regular") { try SafetensorsFile(folder.url) }
    }
}
