import Foundation
import NibbleTestSupport
import NibbleTokenizers
import Testing

@Suite(.computing) struct PreTokenizerTests {
    private func words(_ preTokenizer: String, _ text: String, normalizer: String = "null", added: String = "[]") throws
        -> [String]
    {
        try SmallTokenizer.make(SmallTokenizer.json(added: added, normalizer: normalizer, preTokenizer: preTokenizer)).words(
            in: text)
    }

    @Test(
        "Split treats matches as its behaviour says",
        arguments: [
            ("Removed", ["a", "b", "c"]), ("Isolated", ["a", " ", " ", "b", " ", "c"]),
            ("MergedWithPrevious", ["a ", " ", "b ", "c"]), ("MergedWithNext", ["a", " ", " b", " c"]),
            ("Contiguous", ["a", "  ", "b", " ", "c"]),
        ])
    func split(behavior: String, expected: [String]) throws {
        let found = try words(#"{"type":"Split","pattern":{"Regex":"\\s"},"behavior":"\#(behavior)","invert":false}"#, "a  b c")
        #expect(found == expected)
    }

    @Test("An empty text is found between all characters")
    func empty() throws {
        let found = try words(#"{"type":"Split","pattern":{"String":""},"behavior":"MergedWithPrevious","invert":false}"#, "aé漢")
        #expect(found == ["a", "é", "漢"])
    }

    @Test("Inverted, the gaps are the matches")
    func inverted() throws {
        let found = try words(#"{"type":"Split","pattern":{"Regex":"\\w+"},"behavior":"Removed","invert":true}"#, "ab, cd!")
        #expect(found == ["ab", "cd"])
    }

    private static let byteLevel = #"{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}"#

    private func family(_ pattern: String) -> String {
        let split =
            #"{"type":"Split","pattern":{"Regex":\#(SmallTokenizer.quoted(pattern))},"behavior":"Isolated","invert":false}"#
        return #"{"type":"Sequence","pretokenizers":[\#(split),\#(Self.byteLevel)]}"#
    }

    @Test("Llama 3's pattern")
    func llama3() throws {
        let pattern =
            #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
        let found = try words(family(pattern), "Hello,  I'LL pay 12345.67\n\n  ok\t你好!")
        #expect(
            found == [
                "Hello", ",", "Ġ", "ĠI", "'LL", "Ġpay", "Ġ", "123", "45", ".", "67", "ĊĊ", "Ġ", "Ġok", "ĉä½łå¥½", "!",
            ])
    }

    @Test("BLOOM's pattern, whose brackets nest")
    func bloom() throws {
        let text = "Hello, world!  it's (a|b) [x] 3.14\nok… 你好，世界"
        let pattern = #" ?[^(\s|[.,!?…。，、।۔،])]+"#
        let split =
            #"{"type":"Split","pattern":{"Regex":\#(SmallTokenizer.quoted(pattern))},"behavior":"Isolated","invert":false}"#
        #expect(
            try words(split, text) == [
                "Hello", ",", " world", "! ", " it's", " (", "a", "|", "b", ")", " [x]", " 3", ".", "14", "\n", "ok", "…", " 你好",
                "，",
                "世界",
            ])
    }

    @Test("GPT-2's byte-level words, with a space in front")
    func gpt2() throws {
        let found = try words(#"{"type":"ByteLevel","add_prefix_space":true,"use_regex":true}"#, "Hello, it's 2  spaces\n\nx")
        #expect(found == ["ĠHello", ",", "Ġit", "'s", "Ġ2", "Ġ", "Ġspaces", "Ċ", "Ċ", "x"])
    }

    @Test(
        "Metaspace puts its mark in front as the scheme says",
        arguments: [
            ("always", " Hi", ["▁Hi"]), ("always", "Hello  big", ["▁Hello", "▁", "▁big"]),
            ("always", "a<s>a", ["▁a", "<s>", "▁a"]), ("first", "a<s>a", ["▁a", "<s>", "a"]), ("first", "<s>a", ["<s>", "a"]),
            ("never", "a b", ["a", "▁b"]),
        ])
    func metaspace(scheme: String, text: String, expected: [String]) throws {
        let added = #"[{"id":40,"content":"<s>","special":true,"normalized":false}]"#
        let found = try words(#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"\#(scheme)"}"#, text, added: added)
        #expect(found == expected)
    }

    @Test("Older Metaspace entries say it with add_prefix_space")
    func oldMetaspace() throws {
        #expect(
            try words(#"{"type":"Metaspace","replacement":"▁","str_rep":"▁","add_prefix_space":false}"#, "a b") == ["a", "▁b"])
        #expect(try words(#"{"type":"Metaspace","replacement":"▁","add_prefix_space":true}"#, "a b") == ["▁a", "▁b"])
    }

    @Test("Digits, white space and punctuation")
    func others() throws {
        #expect(try words(#"{"type":"Digits","individual_digits":true}"#, "a12½b") == ["a", "1", "2", "½", "b"])
        #expect(try words(#"{"type":"Digits","individual_digits":false}"#, "a12½b") == ["a", "12½", "b"])
        #expect(try words(#"{"type":"Whitespace"}"#, "a_b  c!?\u{3000}d") == ["a_b", "c", "!?", "d"])
        #expect(try words(#"{"type":"WhitespaceSplit"}"#, " a!  b\u{85}c") == ["a!", "b", "c"])
        #expect(try words(#"{"type":"Punctuation","behavior":"Isolated"}"#, "a!?b、c") == ["a", "!", "?", "b", "、", "c"])
    }

    @Test("Prepend goes before every piece between added tokens, not before nothing")
    func prepend() throws {
        let added = #"[{"id":40,"content":"<s>","special":true,"normalized":false}]"#
        let normalizer =
            #"{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]}"#
        #expect(try words("null", "a<s>a a", normalizer: normalizer, added: added) == ["▁a", "<s>", "▁a▁a"])
        #expect(try words("null", "<s>", normalizer: normalizer, added: added) == ["<s>"])
    }

    @Test(
        "Normalizers",
        arguments: [
            (#"{"type":"NFC"}"#, "e\u{301} \u{1112}\u{1161}\u{11AB} \u{212B} q\u{307}\u{323}", "é 한 Å q\u{323}\u{307}"),
            (#"{"type":"NFD"}"#, "é한", "e\u{301}\u{1112}\u{1161}\u{11AB}"),
            (#"{"type":"NFKC"}"#, "ﬁ①ｶﾞ½", "fi1ガ1⁄2"), (#"{"type":"NFKD"}"#, "ﬁé", "fie\u{301}"),
            (#"{"type":"Lowercase"}"#, "ÀB\u{130}", "àbi\u{307}"),
            (#"{"type":"Strip","strip_left":true,"strip_right":true}"#, "\u{3000} a b \n", "a b"),
            (#"{"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "}"#, "a   b c", "a b c"),
        ])
    func normalizers(normalizer: String, text: String, expected: String) throws {
        let found = try words("null", text, normalizer: normalizer).joined()
        #expect(sameScalars(found, expected), "\(found.unicodeScalars.map(\.value))")
    }
}

@Suite struct PatternTests {
    @Test(
        "The dialect",
        arguments: [
            (#"\p{Lu}\p{Ll}*"#, "HelloWorld ÉcoleǅA", ["Hello", "World", "École", "A"]),
            (#"(?i:k|s)+"#, "Kk\u{212A}ſS", ["Kk\u{212A}ſS"]),
            (#"\s+(?!\S)|\s+"#, "a   b ", ["  ", " ", " "]), (#"a{2,3}"#, "aaaaa", ["aaa", "aa"]),
            (#"a++b|a"#, "aab a", ["aab", "a"]),
            (#"[^\P{L}a-c]+"#, "abcdef1", ["def"]), (#"\p{Han}+"#, "a漢字b", ["漢字"]), (#"(?:ab|a)*b"#, "ababb", ["ababb"]),
            (#"(?>a|ab)c|b"#, "abc", ["b"]), (#"(?=a)\w\w"#, "baab", ["aa"]), (#"x$"#, "x\nyx", ["x", "x"]),
            (#"^x"#, "xx\nx", ["x", "x"]),
            (#"[a\-\]]+"#, "]-a", ["]-a"]), (#"a{,2}b"#, "aaab", ["aab"]), (#"{a"#, "{a", ["{a"]),
            (#"\x{1F600}|\u00e9"#, "é😀", ["é", "😀"]),
        ])
    func dialect(pattern: String, text: String, expected: [String]) throws {
        #expect(try PatternTesting.matches(of: pattern, in: text) == expected)
    }

    @Test(
        "What is not understood is named",
        arguments: [
            ("a+?", "lazy"), (#"\bx"#, "\\b"), ("(?<=a)b", "(?<="), ("[a&&b]", "&&"), ("[[:alpha:]]", "[:"), (#"\p{Foo}"#, "Foo"),
            ("(a", "("),
            ("a)", ")"), ("[a", "["), ("*a", "*"), ("a{5,2}", "5,2"), ("a{2000}", "2000"), ("(a{1000}){1000}", "too large"),
            (String(repeating: "(", count: 500) + String(repeating: ")", count: 500), "nested"), (#"\1"#, "\\1"),
            ("a\\", "backslash"),
            ("a" + String(repeating: "*", count: 5000), "repetitions"), ("[b-a]", "range"),
        ])
    func unsupported(pattern: String, named: String) {
        #expect { try PatternTesting.matches(of: pattern, in: "a") } throws: { String(describing: $0).contains(named) }
    }

    @Test(
        "Patterns that make backtracking engines despair finish",
        arguments: [
            "(a+)+b", "(a|a)*b", "(a*)*b", "(a?){200}a{200}b", "((((){1000}){1000}){1000}){1000}b", #"\s*[\r\n]+|(?:\w\w?)*c"#,
            "a*a*a*b",
        ])
    func hostile(pattern: String) throws {
        #expect(try PatternTesting.matches(of: pattern, in: String(repeating: "a", count: 3000)).allSatisfy(\.isEmpty))
    }
}
