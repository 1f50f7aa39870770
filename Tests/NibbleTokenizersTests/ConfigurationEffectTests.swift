import Foundation
import NibbleCore
import NibbleTestSupport
import NibbleTokenizers
import Testing

/// What `tokenizer_config.json` changes in a tokenizer, with the results of transformers 5.24 and tokenizers 0.23.
@Suite struct ConfigurationEffectTests {
    private static let byteLevel = #"{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}"#

    private func configuration(_ json: String) throws -> TokenizerConfiguration {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        try Data(json.utf8).write(to: folder.appending(path: "tokenizer_config.json"))
        return try TokenizerConfiguration(folder: folder)
    }

    @Test(
        "add_prefix_space is for the classes that build their own stages, and for files that name none",
        arguments: [
            ("GPT2Tokenizer", true, "Ġ"), ("GPT2TokenizerFast", true, "Ġ"), ("Qwen2Tokenizer", true, "Ġ"),
            ("CohereTokenizer", true, "Ġ"),
            ("GPT2Tokenizer", false, "h"), ("TokenizersBackend", true, "h"), ("PreTrainedTokenizerFast", true, "h"),
            ("", true, "Ġ"),
        ])
    func prefixSpace(_ name: String, _ adds: Bool, _ first: String) throws {
        let line = name.isEmpty ? "" : #""tokenizer_class":"\#(name)","#
        let configuration = try configuration(#"{\#(line)"add_prefix_space":\#(adds)}"#)
        let tokenizer = try SmallTokenizer.make(
            SmallTokenizer.json(vocabulary: ["h", "i", "Ġ"], preTokenizer: Self.byteLevel), configuration: configuration)
        #expect(tokenizer.encoding("hi").tokens.first == first)
        #expect(tokenizer.encoding(" hi").tokens.first == "Ġ" && tokenizer.encoding(" hi").tokens.count == 3)
    }

    @Test("without add_prefix_space a Llama tokenizer puts no space in front and takes none away")
    func llama() throws {
        let json = SmallTokenizer.json(
            normalizer:
                #"{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]}"#,
            decoder:
                #"{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#
        )
        let plain = try SmallTokenizer.make(json, configuration: configuration(#"{"tokenizer_class":"LlamaTokenizer"}"#))
        let bare = try SmallTokenizer.make(
            json, configuration: configuration(#"{"tokenizer_class":"LlamaTokenizer","add_prefix_space":false}"#))
        #expect(plain.encoding("a b").tokens == ["▁", "a", "▁", "b"] && bare.encoding("a b").tokens == ["a", "▁", "b"])
        #expect(plain.decode(plain.encode("a b")) == "a b" && bare.decode(bare.encode(" a b")) == " a b")
    }

    @Test("split_special_tokens makes special tokens in a text ordinary text, and only them")
    func splitSpecial() throws {
        let added =
            #"[{"id":50,"content":"<a>","special":true,"normalized":false},{"id":51,"content":"<b>","special":false,"normalized":false},{"id":52,"content":"a>","special":false,"normalized":false}]"#
        let json = SmallTokenizer.json(added: added)
        let split = try SmallTokenizer.make(json, configuration: configuration(#"{"split_special_tokens":true}"#))
        let whole = try SmallTokenizer.make(json)
        #expect(whole.encoding("x<a><b>").tokens == ["x", "<a>", "<b>"])
        // What a special token covers is not searched for other tokens.
        #expect(split.encoding("x<a><b>").tokens == ["x", "<", "a", ">", "<b>"])
        #expect(split.decode([50, 0], skipSpecialTokens: true) == whole.decode([50, 0], skipSpecialTokens: true))
    }

    @Test("a text that is special is skipped under each of its ids")
    func specialTwice() throws {
        let json =
            #"{"added_tokens":[{"id":3,"content":"<unk>","special":true}],"decoder":{"type":"Fuse"},"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0],["a",-1],["b",-1],["<unk>",0]]}}"#
        let tokenizer = try SmallTokenizer.make(json)
        let ids = tokenizer.encode("a日b")
        #expect(ids.count == 3)
        #expect(
            tokenizer.decode([1, 0, 2], skipSpecialTokens: true) == "ab"
                && tokenizer.decode([1, 3, 2], skipSpecialTokens: true) == "ab")
        #expect(tokenizer.decode([1, 0, 2]) == "a<unk>b")
        var stream = TokenStreamDecoder(tokenizer, skipSpecialTokens: true)
        #expect([1, 0, 2].map { stream.push($0) }.joined() == "ab")
    }

    @Test("unknown text without an unknown token is an error where there can be one")
    func noUnknown() throws {
        let model = #"{"model":{"type":"Unigram","unk_id":null,"vocab":[["a",-1],["b",-2],["ab",-1.5]]}}"#
        let tokenizer = try SmallTokenizer.make(model)
        #expect(try tokenizer.encodeCompletely("ab") == [2] && tokenizer(["ab", ""]).inputIDs == [[2], []])
        #expect(throws: TokenizerError.noUnknownToken(text: "abx")) { try tokenizer.encodeCompletely("abx") }
        #expect(throws: TokenizerError.noUnknownToken(text: "é")) { try tokenizer(["a", "é"]) }
        #expect(tokenizer.encode("abx") == [2])
    }

    private static let metaspace = #"{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true}"#
    private static func replace(_ text: String, _ content: String) -> String {
        #"{"type":"Replace","pattern":{"String":"\#(text)"},"content":"\#(content)"}"#
    }

    @Test(
        "Metaspace marks the first word only if it stands where the text as given begins",
        arguments: [
            ("null", ["▁xab", "▁xxab", "▁xxxab", "▁▁ab"]), (replace("x", ""), ["ab", "ab", "ab", "▁▁ab"]),
            (replace("x", "y"), ["▁yab", "▁yyab", "▁yyyab", "▁▁ab"]), (replace("xx", "y"), ["▁xab", "yab", "yxab", "▁▁ab"]),
            (replace("xx", "yz"), ["▁xab", "yzab", "yzxab", "▁▁ab"]),
            (#"{"type":"Strip","strip_left":true,"strip_right":true}"#, ["▁xab", "▁xxab", "▁xxxab", "ab"]),
            (
                #"{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"b"},\#(replace("b", ""))]}"#,
                ["▁xa", "▁xxa", "▁xxxa", "▁▁a"]
            ),
            (
                #"{"type":"Sequence","normalizers":[{"type":"Strip","strip_left":true,"strip_right":true},{"type":"Prepend","prepend":"b"}]}"#,
                ["▁bxab", "▁bxxab", "▁bxxxab", "bab"]
            ),
        ])
    func metaspaceFirst(_ normalizer: String, _ expected: [String]) throws {
        let tokenizer = try SmallTokenizer.make(SmallTokenizer.json(normalizer: normalizer, preTokenizer: Self.metaspace))
        for (text, wanted) in zip(["xab", "xxab", "xxxab", "  ab"], expected) {
            #expect(tokenizer.encoding(text).tokens.joined() == wanted, "\(text)")
            #expect(tokenizer.encode(text) == tokenizer.encoding(text).ids, "with and without offsets: \(text)")
        }
    }

    @Test(
        "a chat template of any form lets texts be encoded",
        arguments: [#"{"a":"b"}"#, "5", "false", #"[{"name":"a","template":"b"}]"#])
    func templates(_ value: String) throws {
        let configuration = try configuration(#"{"chat_template":\#(value)}"#)
        #expect(configuration.chatTemplates["a"] == (value.hasPrefix("5") || value.hasPrefix("f") ? nil : "b"))
    }

    @Test("dropout is left out when prompts are encoded")
    func dropout() throws {
        let tokenizer = try SmallTokenizer.make(
            SmallTokenizer.json(vocabulary: ["a", "b", "ab"], merges: #"["a b"]"#, model: #","dropout":0.1"#))
        #expect((0..<50).allSatisfy { _ in tokenizer.encode("abab") == [2, 2] })
    }

    @Test("canonically equivalent added tokens keep their ids")
    func canonicalEquivalence() throws {
        let added =
            #"[{"id":31,"content":"<\u00e9>","special":true,"normalized":false},{"id":32,"content":"<e\u0301>","special":true,"normalized":false}]"#
        let tokenizer = try SmallTokenizer.make(SmallTokenizer.json(added: added))
        #expect(tokenizer.encode("<\u{E9}><e\u{301}>") == [31, 32])
        #expect(tokenizer.id(for: "<\u{E9}>") == 31 && tokenizer.id(for: "<e\u{301}>") == 32)
        #expect(tokenizer.vocabularySize == SmallTokenizer.letters.count + 2)
    }

    @Test("files of lines are read with either line end, and errors name the line")
    func lineFiles() throws {
        let vocabulary = Array(#"{"a":0,"b":1,"ab":2,"\r":3}"#.utf8)
        for end in ["\n", "\r\n"] {
            let merges = Array(["#version: 0.2", "a b", ""].joined(separator: end).utf8)
            #expect(try Tokenizer(vocabulary: vocabulary, merges: merges).encode("ab") == [2])
        }
        let bad = Array("#version: 0.2\r\na b\r\na c\r\n".utf8)
        #expect { try Tokenizer(vocabulary: vocabulary, merges: bad, mergesFile: "m.txt") } throws: {
            "\($0)".hasPrefix("m.txt: field 'line 3'")
        }
        #expect { try Tokenizer(tiktoken: Array("YQ== 0\r\n\r\nYg== x\r\n".utf8), file: "t.model") } throws: {
            "\($0)".hasPrefix("t.model: line 3 ")
        }
    }
}
