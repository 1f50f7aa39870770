import Foundation
import NibbleCore
import NibbleTestSupport
import Testing

@Suite struct JSONValueTests {
    @Test("every kind of value is read")
    func values() throws {
        let value = try JSONValue.parse(
            #" {"a": null, "b": [true, false], "c": -12, "d": 1.5e2, "e": "x\n\u00e9\ud83d\ude00\/", "f": {}, "g": []} "#)
        #expect(value["a"] == .null)
        #expect(value["b"] == [true, false])
        #expect(value["c"]?.int == -12)
        #expect(value["d"]?.double == 150 && value["d"]?.int == 150)
        #expect(value["e"]?.string == "x\né😀/")
        #expect(value["f"]?.object?.isEmpty == true)
        #expect(value["g"]?.array?.isEmpty == true)
        #expect(value["b"]?[1] == false && value["b"]?[2] == nil)
        #expect(value["h"] == nil && value["a"]?["x"] == nil)
        #expect(value.object?.keys == ["a", "b", "c", "d", "e", "f", "g"])
    }

    @Test(
        "numbers are read exactly",
        arguments: [
            ("0", 0.0), ("-0.0", -0.0), ("1e-05", 1e-5), ("0.1", 0.1),
            ("123456789012345678901234567890", 123456789012345678901234567890.0),
            ("2.2250738585072014e-308", 2.2250738585072014e-308), ("1e400", .infinity), ("-1e400", -.infinity), ("1e-400", 0),
            ("1E+2", 100), ("9007199254740993.0", 9_007_199_254_740_992), ("0.30000000000000004", 0.30000000000000004),
            ("1e99999999999999999999", .infinity), ("-Infinity", -.infinity),
            ("1.7976931348623157e308", .greatestFiniteMagnitude),
            ("4.9e-324", .leastNonzeroMagnitude), ("1e23", 1e23), ("8.5e-23", 8.5e-23),
        ])
    func numbers(text: String, expected: Double) throws {
        let value = try #require(try JSONValue.parse(text, options: .nonFiniteNumbers).double)
        #expect(value.bitPattern == expected.bitPattern)
    }

    @Test("integers keep their type and every digit")
    func integers() throws {
        #expect(try JSONValue.parse("9223372036854775807") == .int(.max))
        #expect(try JSONValue.parse("-9223372036854775808") == .int(.min))
        #expect(try JSONValue.parse("-0") == .int(0))
        #expect(try JSONValue.parse("9223372036854775808") == .largeInteger("9223372036854775808"))
        #expect(try JSONValue.parse("18446744073709551615").uint64 == .max)
        #expect(try JSONValue.parse("18446744073709551616").uint64 == nil)
        #expect(try JSONValue.parse("18446744073709551616").double == 18_446_744_073_709_551_616)
        #expect(try JSONValue.parse("-9223372036854775809") == .largeInteger("-9223372036854775809"))
        #expect(try JSONValue.parse("3.0") == .double(3) && JSONValue.parse("3.0").int == 3)
        let digits = String(repeating: "7", count: 1000)
        #expect(try JSONValue.parse("[\(digits)]").encoded() == "[\(digits)]")
    }

    @Test("Python's words for numbers are accepted only where asked for", arguments: ["NaN", "Infinity", "-Infinity"])
    func words(_ word: String) throws {
        #expect(throws: JSONError.self) { try JSONValue.parse(word) }
        #expect(try JSONValue.parse("[\(word)]", options: .nonFiniteNumbers).encoded() == "[\(word)]")
        #expect(throws: JSONError.self) { try JSONValue.parse("[\(word)x]", options: .nonFiniteNumbers) }
    }

    @Test(
        "what RFC 8259 does not describe is refused, skipped or read",
        arguments: [
            "nan", "+1", "01", "-01", "1.", ".1", "1e+", "0x1", "1_0", "'a'", "{'a':1}", "{a:1}", "[1,]", "[,1]", "[1,,2]",
            "{\"a\":1,}",
            "{\"a\"}", "{1:2}", "/* */ 1", "1 // x", "\u{B}1", "\u{A0}1", "\"\n\"", "\"\\a\"", "\"\\u00G0\"", "TRUE", "None",
            "1 1", "[", "]",
            "\"", "{\"a\":", "[1", "tru", "-", "--1", "", " ", "inf", "-Inf", "undefined", "\u{2028}1",
        ])
    func refused(_ text: String) {
        for options in [[], .nonFiniteNumbers, .validUTF8] as [JSONOptions] {
            #expect(throws: JSONError.self) { try JSONValue.parse(text, options: options) }
            #expect(throws: JSONError.self) {
                try Array(text.utf8).withUnsafeBytes { bytes in
                    var reader = JSONReader(bytes, options: options)
                    try reader.skip()
                    try reader.finish()
                }
            }
        }
    }

    @Test("errors name the path to the value")
    func paths() {
        let error = #expect(throws: JSONError.self) { try JSONValue.parse("{\"a\": [1, {\"b c\": nul}]}") }
        #expect(error == .syntax(file: nil, path: "a[1].b c", line: 1, column: 19, expected: "a value", found: "'n'"))
        #expect(error?.description == "line 1, column 19, in a[1].b c: expected a value, found 'n'")
    }

    @Test(
        "bad text is refused with its place",
        arguments: [
            ("", 1, 1), ("{", 1, 2), ("[1,]", 1, 4), ("[1 2]", 1, 4), ("{\"a\" 1}", 1, 6), ("{\"a\":1,}", 1, 8), ("{a:1}", 1, 2),
            ("tru", 1, 1),
            ("[\n  01]", 2, 3), ("\"abc", 1, 5), ("\"a\u{01}\"", 1, 3), ("\"\\x\"", 1, 3), ("\"\\u12g4\"", 1, 6), ("1.", 1, 3),
            ("-", 1, 2),
            ("1e", 1, 3), ("1 2", 1, 3), ("[1}", 1, 3), (".5", 1, 1), ("+1", 1, 1), ("'a'", 1, 1),
        ])
    func syntaxErrors(text: String, line: Int, column: Int) throws {
        let error = #expect(throws: JSONError.self) { try JSONValue.parse(text) }
        guard case .syntax(nil, _, line, column, _, _) = error else {
            Issue.record("\(text): \(String(describing: error))")
            return
        }
    }

    @Test("invalid UTF-8 and deep nesting are refused, a byte order mark is skipped")
    func encodingAndDepth() throws {
        #expect(throws: JSONError.self) { try JSONValue.parse([0x22, 0xC3, 0x22] as [UInt8]) }
        #expect(try JSONValue.parse([0xEF, 0xBB, 0xBF, 0x31] as [UInt8]) == 1)
        #expect(throws: JSONError.self) { try JSONValue.parse(String(repeating: "[", count: 100_000)) }
        let deepest = JSONValue.maximumDepth
        _ = try JSONValue.parse(String(repeating: "[", count: deepest) + String(repeating: "]", count: deepest))
        #expect(try JSONValue.parse(#""\ud800x""#) == "\u{FFFD}x")
        #expect(try JSONValue.parse(#""\ud800\u0041""#) == "\u{FFFD}A")
    }

    @Test("of two equal keys the later counts, or they are refused")
    func duplicateKeys() throws {
        let text = #"{"a": 1, "b": 2, "a": 3}"#
        let value = try JSONValue.parse(text)
        #expect(value["a"] == 3 && value.object?.keys == ["a", "b"])
        let error = #expect(throws: JSONError.self) { try JSONValue.parse(text, options: .rejectDuplicateKeys) }
        #expect(error?.description.contains("\"a\"") == true)
    }

    @Test("keys are compared by their bytes, in small and in large objects", arguments: [0, 100])
    func byteKeys(others: Int) throws {
        var object = JSONObject()
        for number in 0..<others { object["key \(number)"] = .int(number) }
        object["\u{E9}"] = 1
        object["e\u{301}"] = 2
        #expect(object.count == others + 2)
        #expect(object["\u{E9}"] == 1 && object["e\u{301}"] == 2)
        object["\u{E9}"] = nil
        #expect(object["\u{E9}"] == nil && object["e\u{301}"] == 2)
        #expect(others == 0 || object["key \(others - 1)"] == .int(others - 1))
    }

    @Test("the three styles are Python's")
    func styles() throws {
        let value: JSONValue = ["b": [1, 2.5, "é\"\u{7F}"], "a": [:], "c": [], "d": 1e-05, "e": 1e16, "f": nil]
        #expect(value.encoded() == #"{"b":[1,2.5,"é\""# + "\u{7F}" + #""],"a":{},"c":[],"d":1e-05,"e":1e+16,"f":null}"#)
        #expect(
            value.encoded(.spaced, sortedKeys: true, escapingNonASCII: true)
                == #"{"a": {}, "b": [1, 2.5, "\u00e9\"\u007f"], "c": [], "d": 1e-05, "e": 1e+16, "f": null}"#)
        let pretty: JSONValue = ["a": [1, ["x": true]], "b": []]
        #expect(
            pretty.encoded(.pretty) == """
                {
                  "a": [
                    1,
                    {
                      "x": true
                    }
                  ],
                  "b": []
                }
                """)
    }

    @Test("what is written reads back")
    func roundTrip() throws {
        let value: JSONValue = [
            "text": "tab\t \u{1} 😀 \u{2028}", "numbers": [0, -1, 0.1, 1e300, .double(.infinity), .double(3)], "empty": "",
        ]
        for style in [JSONStyle.compact, .spaced, .pretty] {
            for escaping in [true, false] {
                let text = value.encoded(style, escapingNonASCII: escaping)
                #expect(try JSONValue.parse(text, options: .nonFiniteNumbers) == value)
            }
        }
    }

    @Test("errors name the file")
    func fileErrors() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appending(path: "config.json")
        let missing = #expect(throws: JSONError.self) { try JSONValue(contentsOf: file) }
        #expect(missing?.description.contains(file.path) == true)
        try Data("{\n  \"a\": }".utf8).write(to: file)
        let broken = #expect(throws: JSONError.self) { try JSONValue(contentsOf: file) }
        #expect(broken == .syntax(file: file.path, path: "a", line: 2, column: 8, expected: "a value", found: "'}'"))
        try Data("[1]".utf8).write(to: file)
        #expect(try JSONValue(contentsOf: file) == [1])
    }
}
