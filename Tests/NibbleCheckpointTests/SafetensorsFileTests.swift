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
            ("metadata that is a list", safetensors(#"{"__metadata__":[]}"#, data: 0), "__metadata__"),
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
            (
                "a hole after an unknown dtype",
                safetensors(
                    #"{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}"#,
                    data: 3), "a hole"
            ),
            ("a web page", Array("\n<!DOCTYPE html><html><body>Sign in</body></html>".utf8), "it is a web page"),
            ("a page without doctype", Array("<html lang=\"en\">\n<head>".utf8), "it is a web page"),
            ("a server's error", Array("<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>".utf8), "it is XML"),
            ("a JSON answer", Array("{\"error\": \"Repository not found\"}".utf8), "it is JSON"),
            ("a pointer", Array("version https://git-lfs.github.com/spec/v1\noid sha256:0".utf8), "Git LFS pointer"),
            ("a pickle", torchZip(Pickle.dict(Pickle.none)), "pytorch_model.bin"),
            ("another model format", Array("GGUF".utf8) + littleEndian(UInt32(3)) + littleEndian(UInt64(0)), "GGUF"),
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

    @Test(
        "a tensor that cannot be read does not cost the others",
        arguments: [
            (#""dtype":"C64","shape":[1]"#, "C64"), (#""dtype":"F4","shape":[16]"#, "F4"),
            (#""dtype":"F8_E8M0","shape":[8]"#, "F8_E8M0"), (#""dtype":"F6_E2M3","shape":[2,5]"#, "F6_E2M3"),
            (#""dtype":"U8","shape":[1,1,1,1,8]"#, "5 dimensions"), (#""dtype":"F64","shape":[1,1,1,1,1,1]"#, "6 dimensions"),
        ])
    func unreadableTensors(entry: String, word: String) throws {
        let header = #"{"x":{\#(entry),"data_offsets":[0,8]},"t":{"dtype":"U8","shape":[4],"data_offsets":[8,12]}}"#
        let file = try folder.write(safetensors(header, data: 12), to: "a.safetensors")
        let checkpoint = try SafetensorsFile(file)
        #expect(checkpoint.names == ["t"] && checkpoint.unreadableNames == ["x"])
        #expect(try checkpoint.tensor("t").bytes == [8, 9, 10, 11])
        #expect(checkpoint.descriptor("x") == nil)
        expectCheckpointError(naming: file, containing: "tensor x", word) { try checkpoint.tensor("x") }
    }

    @Test(
        "metadata in other forms",
        arguments: [("null", [:]), (#"{"a":1,"b":null,"c":"d"}"#, ["a": "1", "b": "null", "c": "d"]), ("{}", [:])])
    func metadata(text: String, expected: [String: String]) throws {
        let header = #"{"__metadata__":\#(text),"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#
        let checkpoint = try SafetensorsFile(folder.write(safetensors(header, data: 1), to: "a.safetensors"))
        #expect(checkpoint.metadata == expected && checkpoint.names == ["t"])
    }

    @Test("names are compared byte by byte") func composedAndDecomposed() throws {
        let header =
            "{\"l.\u{E9}\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"l.e\u{301}\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}"
        let checkpoint = try SafetensorsFile(folder.write(safetensors(header, data: 2), to: "a.safetensors"))
        #expect(checkpoint.names.count == 2)
        #expect(try checkpoint.tensor("l.\u{E9}").bytes == [0] && checkpoint.tensor("l.e\u{301}").bytes == [1])
    }

    @Test("control characters of names do not reach a message") func controlCharacters() throws {
        let header = #"{"\u001b[31mred\n":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}"#
        let file = try folder.write(safetensors(header, data: 8), to: "a.safetensors")
        let error = #expect(throws: CheckpointError.self) { try SafetensorsFile(file).tensor("\u{1B}[31mred\n") }
        #expect(error?.description.contains(#"\u{1b}[31mred\u{a}"#) == true)
        #expect(error?.description.unicodeScalars.allSatisfy { $0.value >= 0x20 } == true)
    }

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
