import NibbleCore
import Testing

/// Reading without values.
@Suite struct JSONReaderTests {
    private func read<T>(_ text: String, options: JSONOptions = [], _ body: (inout JSONReader) throws -> T) throws -> T {
        try Array(text.utf8).withUnsafeBytes { bytes in
            var reader = JSONReader(bytes, options: options)
            let value = try body(&reader)
            try reader.finish()
            return value
        }
    }

    @Test func keysAndStringsAreGivenAsBytes() throws {
        var keys: [[UInt8]] = []
        var texts: [UInt8] = []
        try read(#"{"a\u00e9": "x\n", "\ud83d\ude42": "é"}"#) { reader in
            try reader.objectOfBytes { key, reader in
                keys.append(Array(key))
                try reader.string(into: &texts)
            }
        }
        #expect(keys == [Array("aé".utf8), Array("🙂".utf8)])
        #expect(texts == Array("x\né".utf8))
    }

    @Test func skippingGivesTheRangeOfTheValue() throws {
        let text = #"{"a": [1, {"b": "]\""}], "c": 2}"#
        var ranges: [String: Range<Int>] = [:]
        try read(text) { reader in try reader.object { key, reader in ranges[key] = try reader.skip() } }
        let bytes = Array(text.utf8)
        #expect(try JSONValue.parse(bytes[ranges["a"] ?? 0..<0]) == [1, ["b": "]\""]])
        #expect(try JSONValue.parse(bytes[ranges["c"] ?? 0..<0]) == 2)
    }

    @Test("a part of a text is read alone; errors count lines from the start of the text")
    func ranges() throws {
        let bytes = Array("[1,\n [2, x], 3]".utf8)
        bytes.withUnsafeBytes { bytes in
            var reader = JSONReader(bytes, range: 5..<11)
            let error = #expect(throws: JSONError.self) { try reader.value() }
            #expect(error == .syntax(file: nil, path: "[1]", line: 2, column: 6, expected: "a value", found: "'x'"))
        }
    }

    @Test("depth is limited for skipping as for reading")
    func depth() throws {
        let deepest = JSONValue.maximumDepth
        for (count, isRead) in [(deepest, true), (deepest + 1, false), (100_000, false)] {
            let text = String(repeating: "[", count: count) + String(repeating: "]", count: count)
            #expect((try? read(text) { try $0.skip() }) != nil ? isRead : !isRead)
            #expect((try? JSONValue.parse(text)) != nil ? isRead : !isRead)
        }
    }

    @Test("text that is not UTF-8 is refused wherever it stands")
    func encoding() {
        for bytes in [[0x22, 0xC3, 0x22], [0x22, 0xFF, 0x5C, 0x6E, 0x22], [0xFF]] as [[UInt8]] {
            #expect(throws: JSONError.self) { try JSONValue.parse(bytes) }
            #expect(throws: JSONError.self) {
                try bytes.withUnsafeBytes { bytes in
                    var reader = JSONReader(bytes)
                    try reader.skip()
                }
            }
        }
    }

    @Test("changed bytes are read or refused, never a trap")
    func mutations() {
        let source = Array(#"{"a": [1, -2.5e3, "x\u00e9\n", true, null], "b": {"c": 18446744073709551616}}"#.utf8)
        var state: UInt64 = 3
        for _ in 0..<3_000 {
            var bytes = source
            for _ in 0..<2 {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                bytes[Int(state >> 33) % bytes.count] = UInt8(truncatingIfNeeded: state >> 20)
            }
            let value = try? JSONValue.parse(bytes)
            #expect((value != nil) == Self.isSkipped(bytes), "\(String(decoding: bytes, as: UTF8.self))")
        }
    }

    private static func isSkipped(_ bytes: [UInt8]) -> Bool {
        bytes.withUnsafeBytes { bytes in
            var reader = JSONReader(bytes)
            do {
                try reader.skip()
                try reader.finish()
                return true
            } catch {
                return false
            }
        }
    }
}
