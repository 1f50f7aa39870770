import Foundation
import NibbleTokenizers
import Testing

@Suite struct BytePairTests {
    @Test("Merges go by rank, leftmost first, and reach only what they can")
    func merging() throws {
        let vocabulary = SmallTokenizer.letters + ["ab", "bc", "abb", "aa"]
        let merges = #"["a b",["b","c"],"a a"]"#
        let tokenizer = try SmallTokenizer.make(SmallTokenizer.json(vocabulary: vocabulary, merges: merges))
        #expect(tokenizer.encoding("abc").tokens == ["ab", "c"])
        #expect(tokenizer.encoding("abb").tokens == ["ab", "b"])
        #expect(tokenizer.encoding("aaa").tokens == ["aa", "a"])
        #expect(tokenizer.encoding("aab").tokens == ["a", "ab"])
        let ignoring = try SmallTokenizer.make(
            SmallTokenizer.json(vocabulary: vocabulary, merges: merges, model: #","ignore_merges":true"#))
        #expect(ignoring.encoding("abb").tokens == ["abb"])
    }

    @Test("Long words merge as short ones do")
    func longWords() throws {
        let vocabulary = SmallTokenizer.letters + ["ab", "abab", "ca", "cab"]
        let tokenizer = try SmallTokenizer.make(
            SmallTokenizer.json(vocabulary: vocabulary, merges: #"["a b","ab ab","c a","c ab"]"#))
        let unit = "ababcabdab"
        let one = tokenizer.encoding(unit).tokens
        #expect(one == ["abab", "cab", "d", "ab"])
        let long = tokenizer.encoding(String(repeating: unit + "d", count: 40)).tokens
        #expect(long == Array(repeatElement(one + ["d"], count: 40).joined()))
    }

    @Test("Unknown characters: bytes, unknown tokens, or nothing")
    func unknown() throws {
        let bytes = (0..<256).map {
            "<0x" + (String($0, radix: 16, uppercase: true).count < 2 ? "0" : "") + String($0, radix: 16, uppercase: true) + ">"
        }
        func tokens(_ vocabulary: [String], _ model: String) throws -> [String] {
            try SmallTokenizer.make(SmallTokenizer.json(vocabulary: vocabulary, model: model)).encoding("aé漢b").tokens
        }
        let fallback = #","byte_fallback":true,"unk_token":"<unk>""#
        #expect(
            try tokens(SmallTokenizer.letters + bytes + ["<unk>"], fallback)
                == ["a", "<0xC3>", "<0xA9>", "<0xE6>", "<0xBC>", "<0xA2>", "b"])
        #expect(try tokens(SmallTokenizer.letters + ["<0xC3>", "<unk>"], fallback) == ["a", "<unk>", "<unk>", "b"])
        #expect(try tokens(SmallTokenizer.letters + ["<unk>"], #","fuse_unk":true,"unk_token":"<unk>""#) == ["a", "<unk>", "b"])
        #expect(try tokens(SmallTokenizer.letters, "") == ["a", "b"])
    }

    @Test("Prefixes and suffixes of word parts")
    func affixes() throws {
        let vocabulary = ["a", "##b", "##c</w>", "a##b", "ab", "abc</w>"]
        let tokenizer = try SmallTokenizer.make(
            SmallTokenizer.json(
                vocabulary: vocabulary, merges: #"["a ##b","ab ##c</w>"]"#,
                model: ###","continuing_subword_prefix":"##","end_of_word_suffix":"</w>""###))
        #expect(tokenizer.encoding("abc").tokens == ["abc</w>"])
    }
}

@Suite struct UnigramTests {
    private func tokenizer(_ pieces: [(String, Double)], fallsBack: Bool = false) throws -> Tokenizer {
        let vocabulary = pieces.map { "[\(SmallTokenizer.quoted($0)),\($1)]" }.joined(separator: ",")
        return try SmallTokenizer.make(
            #"{"added_tokens":[],"model":{"type":"Unigram","unk_id":0,"byte_fallback":\#(fallsBack),"vocab":[\#(vocabulary)]}}"#)
    }

    @Test("Of equal paths the one found first stays")
    func ties() throws {
        let pieces = [("<unk>", 0.0), ("a", -1.0), ("bc", -2.0), ("ab", -2.0), ("c", -1.0)]
        #expect(try tokenizer(pieces).encoding("abc").tokens == ["a", "bc"])
        #expect(try tokenizer([("<unk>", 0), ("a", -1), ("b", -1), ("ab", -2)]).encoding("ab").tokens == ["ab"])
    }

    @Test("Neighbouring unknown characters are one token, or their bytes")
    func unknown() throws {
        let pieces = [("<unk>", 0.0), ("a", -1.0)]
        #expect(try tokenizer(pieces).encode("xya漢z") == [0, 1, 0])
        #expect(try tokenizer(pieces).encoding("xya漢z").offsets == [0..<2, 2..<3, 3..<5])
        let bytes = [("<unk>", 0.0), ("a", -1.0), ("<0xC3>", -9.0), ("<0xA9>", -9.0)]
        #expect(try tokenizer(bytes, fallsBack: true).encoding("aéx").tokens == ["a", "<unk>"])
        #expect(try tokenizer(bytes, fallsBack: true).encoding("aé").tokens == ["a", "<0xC3>", "<0xA9>"])
        #expect(try tokenizer(bytes, fallsBack: true).encoding("aé").offsets == [0..<1, 1..<2, 1..<2])
    }

    @Test("A long text without a space is encoded", arguments: [false, true])
    func long(isUnigram: Bool) throws {
        let tokenizer =
            isUnigram
            ? try tokenizer([("<unk>", 0), ("a", -1), ("aa", -1.5), ("aaaaaaaa", -2)])
            : try SmallTokenizer.make(
                SmallTokenizer.json(vocabulary: SmallTokenizer.letters + ["aa", "aaaa"], merges: #"["a a","aa aa"]"#))
        let count = tokenizer.encode(String(repeating: "a", count: 400_000)).count
        #expect(count == (isUnigram ? 50_000 : 100_000))
    }
}

@Suite struct DecoderTests {
    private func decode(_ decoder: String, _ tokens: [String]) throws -> String {
        let distinct = Array(Set(tokens)).sorted()
        let tokenizer = try SmallTokenizer.make(SmallTokenizer.json(vocabulary: distinct, decoder: decoder))
        return tokenizer.decode(tokens.compactMap { tokenizer.id(for: $0) })
    }

    @Test(
        "Decoders",
        arguments: [
            ("null", ["a", "b"], "a b"), (#"{"type":"Fuse"}"#, ["a", "b"], "ab"),
            (#"{"type":"ByteLevel"}"#, ["Ġa", "Ã©", "Ã", "é漢"], " aé�é漢"),
            (#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"always"}"#, ["▁a▁b", "▁c"], "ab c"),
            (#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"never"}"#, ["▁a", "▁c"], " a c"),
            (#"{"type":"ByteFallback"}"#, ["x", "<0xE2>", "<0x82>", "<0xAC>", "y"], "x€y"),
            (#"{"type":"ByteFallback"}"#, ["<0xE2>", "<0x82>", "<0xAC>", "<0xE2>", "<0x82>"], "�����"),
            (#"{"type":"Strip","content":" ","start":1,"stop":0}"#, ["  a", " b"], " ab"),
            (
                #"{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#,
                ["▁a", "▁b"], "a b"
            ),
        ])
    func decoders(decoder: String, tokens: [String], expected: String) throws {
        #expect(try decode(decoder, tokens) == expected)
    }

    @Test("Ids without a token give nothing")
    func unknownIDs() throws {
        let tokenizer = try SmallTokenizer.make(SmallTokenizer.json(decoder: #"{"type":"Fuse"}"#))
        #expect(tokenizer.decode([0, 1_000_000, -1, Int32.max, Int32.min, 1]) == "ab")
        #expect(tokenizer.token(for: -5) == nil && tokenizer.tokenBytes(99_999).isEmpty)
    }

    @Test("The bytes of single tokens keep their spaces and parts of characters")
    func tokenBytes() throws {
        let sequence =
            #"{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#
        let llama = try SmallTokenizer.make(SmallTokenizer.json(vocabulary: ["▁a", "<0xE2>"], decoder: sequence))
        #expect(llama.tokenBytes(0) == Array(" a".utf8))
        #expect(llama.tokenBytes(1) == [0xE2])
        let gpt = try SmallTokenizer.make(SmallTokenizer.json(vocabulary: ["Ġa", "Ã"], decoder: #"{"type":"ByteLevel"}"#))
        #expect(gpt.tokenBytes(0) == Array(" a".utf8))
        #expect(gpt.tokenBytes(1) == [0xC3])
    }
}
