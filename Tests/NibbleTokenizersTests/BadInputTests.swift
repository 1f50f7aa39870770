import Foundation
import NibbleTestSupport
import NibbleTokenizers
import Testing

@Suite(.computing) struct BadInputTests {
    private static let small = SmallTokenizer.json(
        vocabulary: ["a", "b", "ab", "<s>"], merges: #"["a b"]"#, added: #"[{"id":3,"content":"<s>","special":true}]"#,
        normalizer: #"{"type":"NFC"}"#, preTokenizer: #"{"type":"Split","pattern":{"Regex":"\\s+"},"behavior":"Isolated"}"#,
        decoder: #"{"type":"Fuse"}"#)

    private func failure(_ json: String) -> String? {
        do {
            _ = try SmallTokenizer.make(json)
            return nil
        } catch {
            return String(describing: error)
        }
    }

    @Test("A file that ends early is an error at every length")
    func truncated() {
        let bytes = Array(Self.small.utf8)
        for length in 0..<bytes.count {
            #expect(throws: TokenizerError.self) { try Tokenizer(tokenizerJSON: Array(bytes[..<length]), file: "cut.json") }
        }
    }

    @Test("Changed bytes give an error or a tokenizer, nothing else")
    func changed() {
        let bytes = Array(Self.small.utf8)
        for index in bytes.indices {
            for value in [0x22, 0x39, 0x5B, 0xC3] as [UInt8] {
                var changed = bytes
                changed[index] = value
                if let tokenizer = try? Tokenizer(tokenizerJSON: changed) { _ = tokenizer.decode(tokenizer.encode("ab <s> é")) }
            }
        }
    }

    @Test("Changed bytes of a tokenizer_config.json give an error or a configuration, nothing else")
    func changedConfiguration() throws {
        let source = Array(
            """
            {"tokenizer_class":"LlamaTokenizer","add_prefix_space":false,"legacy":true,"model_max_length":1e30,"padding_side":"left",
            "bos_token":{"content":"<s>","lstrip":false},"extra_special_tokens":{"x":"<x>"},"split_special_tokens":true,
            "added_tokens_decoder":{"31":{"content":"<s>","special":true}},"chat_template":[{"name":"default","template":"{{ 1 }}"}]}
            """.utf8)
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appending(path: "tokenizer_config.json")
        var state: UInt64 = 5
        for _ in 0..<1_000 {
            var bytes = source
            for _ in 0..<2 {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                bytes[Int(state >> 33) % bytes.count] = source[Int(state >> 13) % source.count]
            }
            try Data(bytes).write(to: file)
            do {
                let tokenizer = try SmallTokenizer.make(
                    SmallTokenizer.json(), configuration: TokenizerConfiguration(folder: folder))
                _ = tokenizer.decode(tokenizer.encode("a <s> b"))
            } catch {
                #expect("\(error)".hasPrefix(file.path), "\(error)")
            }
        }
    }

    @Test(
        "Errors name the file and the field",
        arguments: [
            (SmallTokenizer.json(normalizer: #"{"type":"Foo"}"#), "normalizer.type", "Foo"),
            (
                SmallTokenizer.json(preTokenizer: #"{"type":"Sequence","pretokenizers":[{"type":"Bar"}]}"#),
                "pre_tokenizer.pretokenizers[0].type", "Bar"
            ),
            (SmallTokenizer.json(postProcessor: #"{"type":"Baz"}"#), "post_processor.type", "Baz"),
            (SmallTokenizer.json(decoder: #"{"no":1}"#), "decoder.type", "missing"),
            (SmallTokenizer.json(merges: #"["a zz"]"#), "model.merges[0]", "zz"),
            (SmallTokenizer.json(merges: #"["a b"]"#), "model.merges[0]", "ab"),
            (SmallTokenizer.json(merges: #"["ab"]"#), "model.merges[0]", "ab"),
            (SmallTokenizer.json(merges: "7"), "model.merges", "7"),
            (SmallTokenizer.json(model: #","dropout":"x""#), "model.dropout", "'x'"),
            (SmallTokenizer.json(added: #"[{"id":-1,"content":"x"}]"#), "added_tokens[0].id", "-1"),
            (SmallTokenizer.json(added: #"[{"id":1e300,"content":"x"}]"#), "added_tokens[0].id", "1e+300"),
            (
                SmallTokenizer.json(preTokenizer: #"{"type":"Split","pattern":{"Regex":"(?<a>b)"},"behavior":"Isolated"}"#),
                "pre_tokenizer.pattern.Regex", "(?<"
            ),
            (
                SmallTokenizer.json(preTokenizer: #"{"type":"Split","pattern":{"String":" "},"behavior":"Odd"}"#),
                "pre_tokenizer.behavior", "Odd"
            ),
            (
                SmallTokenizer.json(normalizer: #"{"type":"Precompiled","precompiled_charsmap":"AAAAAAA"}"#),
                "precompiled_charsmap", "base64"
            ),
            (
                SmallTokenizer.json(normalizer: #"{"type":"Precompiled","precompiled_charsmap":"/////w=="}"#),
                "precompiled_charsmap", "4294967295"
            ),
            (#"{"model":{"type":"WordPiece","vocab":{}}}"#, "model.type", "WordPiece"),
            (#"{"model":{"type":"BPE","merges":[]}}"#, "model.vocab", "missing"),
            (#"{"model":{"type":"BPE","vocab":{"a":99999999999},"merges":[]}}"#, "model.vocab.a", "99999999999"),
            (#"{"model":{"type":"BPE","vocab":{"a":1.5},"merges":[]}}"#, "model.vocab.a", "1.5"),
            (#"{"model":{"type":"Unigram","unk_id":5,"vocab":[["a",0]]}}"#, "model.unk_id", "5"),
            (#"{"model":{"type":"Unigram","vocab":[["a",1e999]]}}"#, "model.vocab[0]", "inf"), ("[]", "line 1", "an object"),
            (#"{"model":{"type":"BPE","vocab":{"a":0,"b":01},"merges":[]}}"#, "model.vocab", "leading zeros"),
            (#"{"model":{"type":"BPE","vocab":{"a":0},"merges":[["a"]]}}"#, "model.merges[0]", "1"),
            (#"{"model":{"type":"Unigram","vocab":[["a"]]}}"#, "model.vocab[0]", "1 values"),
            (#"{"added_tokens":[{"id":NaN}],"model":{}}"#, "added_tokens[0].id", "'N'"),
            ("{}", "model", "missing"),
        ])
    func named(json: String, field: String, found: String) throws {
        let message = try #require(failure(json))
        #expect(message.contains("small.json") && message.contains(field) && message.contains(found), "\(message)")
    }

    @Test("Deep nesting is an error, not a crash", arguments: ["[", #"{"a":"#, #"{"type":"Sequence","normalizers":["#])
    func deep(open: String) {
        let nest = String(repeating: open, count: 200_000)
        #expect(failure(SmallTokenizer.json(normalizer: nest)) != nil)
        #expect(failure(#"{"model":{"type":"BPE","vocab":\#(nest)"#) != nil)
    }

    @Test("Text that is not UTF-8 is refused")
    func encoding() {
        #expect(throws: TokenizerError.malformedFile(file: "x.json", reason: "not UTF-8 text")) {
            try Tokenizer(tokenizerJSON: [0x7B, 0x22, 0xFF, 0x22], file: "x.json")
        }
    }

    @Test("A folder without a tokenizer says what was looked for")
    func folder() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        #expect { try AutoTokenizer.from(folder: folder) } throws: { String(describing: $0).contains("tokenizer.json") }
        try Data("{\"model_max_length\":".utf8).write(to: folder.appending(path: "tokenizer_config.json"))
        #expect { try AutoTokenizer.from(folder: folder) } throws: { String(describing: $0).contains("tokenizer_config.json") }
    }

    @Test("Changed bytes of a SentencePiece model give an error or a tokenizer")
    func sentencePiece() throws {
        let model: [UInt8] =
            [0x0A, 0x09, 0x0A, 0x05] + Array("<unk>".utf8) + [0x18, 0x02] + [
                0x0A, 0x08, 0x0A, 0x01, 0x61, 0x15, 0, 0, 0x80, 0xBF,
            ]
        #expect(throws: Never.self) { try Tokenizer(sentencePiece: model) }
        for index in model.indices {
            #expect(throws: TokenizerError.self) {
                try Tokenizer(sentencePiece: Array(model[..<index]) + [0xFF], file: "x.model")
            }
            for value in [0x00, 0x0A, 0x7F, 0xFF] as [UInt8] {
                var changed = model
                changed[index] = value
                if let tokenizer = try? Tokenizer(sentencePiece: changed) { _ = tokenizer.encode("a é") }
            }
        }
    }

    @Test(
        "Lists of ranks with bad lines are refused",
        arguments: ["YQ==", "YQ== x", "!! 1", "YQ== -1", "YQ== 99999999", "YQ== 1 2", ""])
    func tiktoken(text: String) {
        #expect(throws: TokenizerError.self) { try Tokenizer(tiktoken: Array(text.utf8)) }
    }
}
