import Foundation
import NibbleTestSupport
import NibbleTokenizers
import Testing

/// Tokenizers that are not described by `tokenizer.json`.
@Suite struct VocabularyTests {
    @Test("vocab.json and merges.txt make a GPT-2 tokenizer")
    func vocabularyAndMerges() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let vocabulary = #"{"h":0,"i":1,"Ġ":2,"hi":3,"Ġhi":4,"<|endoftext|>":5}"#
        try Data(vocabulary.utf8).write(to: folder.appending(path: "vocab.json"))
        try Data("#version: 0.2\r\nh i\r\nĠ hi\r\n\n".utf8).write(to: folder.appending(path: "merges.txt"))
        try Data(#"{"<|extra|>":6}"#.utf8).write(to: folder.appending(path: "added_tokens.json"))
        try Data(#"{"bos_token":{"content":"<|endoftext|>","lstrip":false},"eos_token":"<|endoftext|>"}"#.utf8)
            .write(to: folder.appending(path: "special_tokens_map.json"))
        let tokenizer = try AutoTokenizer.from(folder: folder)
        #expect(tokenizer.encode("hi hi<|endoftext|><|extra|>") == [3, 4, 5, 6])
        #expect(tokenizer.decode([3, 4, 5], skipSpecialTokens: true) == "hi hi")
        #expect(tokenizer.specialTokens.bos == .init(text: "<|endoftext|>", id: 5))
        #expect(tokenizer.specialTokens.named["eos_token"]?.id == 5)
    }

    private static let bytes = (0..<256).map { UInt8($0) }

    private func base64(_ bytes: [UInt8]) -> String { Data(bytes).base64EncodedString() }

    @Test("A tiktoken list merges by rank; special tokens follow from the configuration")
    func tiktoken() throws {
        let tokens =
            Self.bytes.map { [$0] } + [
                Array(" h".utf8), Array("el".utf8), Array("lo".utf8), Array(" hel".utf8), Array("\n\n".utf8),
            ]
        let list = tokens.enumerated().map { "\(base64($1)) \($0)" }.joined(separator: "\n")
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        try Data(list.utf8).write(to: folder.appending(path: "tokenizer.model"))
        try Data(
            #"{"bos_token":"<|b|>","added_tokens_decoder":{"261":{"content":"<|b|>","special":true},"262":{"content":"<|e|>","special":true}}}"#
                .utf8
        ).write(to: folder.appending(path: "tokenizer_config.json"))
        let tokenizer = try AutoTokenizer.from(folder: folder)
        // " hello": h joins the space, e joins l, l joins o, and then " h" joins "el".
        #expect(tokenizer.encode(" hello\n\n<|e|>") == [261, 259, 258, 260, 262])
        #expect(tokenizer.encode("é", addSpecialTokens: false) == [0xC3, 0xA9])
        #expect(tokenizer.decode([259, 258, 0xC3, 0xA9]) == " helloé")
    }

    @Test("A tekken file shifts its ranks behind the special tokens")
    func tekken() throws {
        let tokens = Self.bytes.map { [$0] } + [Array("ab".utf8), Array("unused".utf8)]
        let vocabulary = tokens.enumerated().map { #"{"rank":\#($0),"token_bytes":"\#(base64($1))","token_str":null}"# }
        let json =
            #"{"config":{"pattern":"[^\\s]+|\\s+","default_vocab_size":277,"default_num_special_tokens":20},"vocab":[\#(vocabulary.joined(separator: ","))]}"#
        let tokenizer = try Tokenizer(tekken: Array(json.utf8))
        #expect(tokenizer.encode("ab<pad>") == [1, 276, 11])
        #expect(tokenizer.vocabularySize == 277)
        #expect(tokenizer.specialTokens.eos?.id == 2)
        #expect(tokenizer.decode([1, 276, 20 + 0x21, 277], skipSpecialTokens: true) == "ab!")
    }

    @Test("GGUF values make the tokenizers of their models")
    func gguf() throws {
        var gpt = GGUFVocabulary(model: "gpt2", tokens: ["h", "i", "Ġ", "hi", "Ġhi", "1", "2", "<|im_end|>"], file: "x.gguf")
        gpt.merges = ["h i", "Ġ hi"]
        gpt.tokenTypes = [1, 1, 1, 1, 1, 1, 1, 3]
        gpt.pre = "smollm"
        (gpt.bosID, gpt.eosID, gpt.addsBos) = (7, 7, true)
        gpt.chatTemplate = "{{ x }}"
        let byteLevel = try Tokenizer(gpt)
        #expect(byteLevel.encode("hi hi12<|im_end|>") == [7, 3, 4, 5, 6, 7])
        #expect(byteLevel.decode([7, 3, 4], skipSpecialTokens: true) == "hi hi")
        #expect(byteLevel.configuration.chatTemplates["default"] == "{{ x }}")

        var llama = GGUFVocabulary(
            model: "llama",
            tokens: ["<unk>", "<s>", "</s>"]
                + (0..<256).map { "<0x" + (($0 < 16) ? "0" : "") + String($0, radix: 16, uppercase: true) + ">" } + [
                    "▁", "a", "b", "▁a", "ab",
                ],
            file: "x.gguf")
        llama.scores = [Float](repeating: 0, count: 259) + [-9, -9, -9, -1, -2]
        llama.tokenTypes = [2, 3, 3] + [Int32](repeating: 6, count: 256) + [1, 1, 1, 1, 1]
        (llama.bosID, llama.eosID) = (1, 2)
        let sentencePiece = try Tokenizer(llama)
        #expect(sentencePiece.encode("ab é</s>") == [1, 262, 261, 259, 3 + 0xC3, 3 + 0xA9, 2])
        #expect(sentencePiece.decode([1, 262, 261, 259, 3 + 0xC3, 3 + 0xA9], skipSpecialTokens: true) == "ab é")
        llama.addsSpacePrefix = false
        #expect(try Tokenizer(llama).encode("ab") == [1, 263])

        var t5 = GGUFVocabulary(model: "t5", tokens: ["<pad>", "</s>", "<unk>", "▁a", "b", "▁"], file: "x.gguf")
        t5.scores = [0, 0, 0, -1, -1, -2]
        t5.tokenTypes = [3, 3, 2, 1, 1, 1]
        (t5.eosID, t5.paddingID) = (1, 0)
        #expect(try Tokenizer(t5).encode("ab  b") == [3, 4, 5, 4, 1])
    }

    @Test("GGUF values that do not fit together are refused")
    func badGGUF() {
        func fails(_ name: String, _ change: (inout GGUFVocabulary) -> Void) {
            var vocabulary = GGUFVocabulary(model: "gpt2", tokens: ["a", "b"], file: "x.gguf")
            change(&vocabulary)
            #expect { try Tokenizer(vocabulary) } throws: { String(describing: $0).contains(name) }
        }
        fails("tokenizer.ggml.model") { $0.model = "rwkv" }
        fails("tokenizer.ggml.pre") { $0.pre = "unheard-of" }
        fails("tokenizer.ggml.merges[0]") { $0.merges = ["a b"] }
        fails("tokenizer.ggml.tokens") { $0.tokens = [] }
        fails("tokenizer.ggml.scores") {
            $0.model = "llama"
            $0.scores = [1]
        }
        fails("tokenizer.ggml.unknown_token_id") {
            $0.model = "llama"
            $0.unknownID = 9
        }
    }

    @Test("The flags of a Llama configuration decide about beginning and end")
    func llamaFlags() throws {
        let folder = Fixtures.url("fixtures/tokenizers/llama2")
        let bytes = Array(try Data(contentsOf: folder.appending(path: "tokenizer.json")))
        var configuration = try TokenizerConfiguration(folder: folder)
        (configuration.addsBeginToken, configuration.addsEndToken) = (false, true)
        let tokenizer = try Tokenizer(tokenizerJSON: bytes, configuration: configuration)
        let plain = tokenizer.encode("hello", addSpecialTokens: false)
        #expect(tokenizer.encode("hello") == plain + [2])
        #expect(tokenizer.encoding("hello", pair: "hello").ids == plain + [2] + plain + [2])
    }

    @Test("Configuration files: special tokens, lengths, templates")
    func configuration() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let json = """
            {"model_max_length":1000000000000000019884624838656,"padding_side":"left","pad_token":null,
            "eos_token":{"__type":"AddedToken","content":"a"},"extra_special_tokens":{"image_token":"b"},"additional_special_tokens":["c"],
            "chat_template":[{"name":"default","template":"D"},{"name":"tool_use","template":"T"}],"add_bos_token":true}
            """
        try Data(json.utf8).write(to: folder.appending(path: "tokenizer_config.json"))
        try Data(SmallTokenizer.json().utf8).write(to: folder.appending(path: "tokenizer.json"))
        var tokenizer = try AutoTokenizer.from(folder: folder)
        #expect(tokenizer.modelMaxLength == nil && tokenizer.paddingSide == .left)
        #expect(tokenizer.specialTokens.pad == nil && tokenizer.specialTokens.eos?.id == 0)
        #expect(tokenizer.specialTokens.named["image_token"]?.id == 1 && tokenizer.specialTokens.additional.map(\.id) == [2])
        #expect(tokenizer.configuration.chatTemplates == ["default": "D", "tool_use": "T"])
        try Data("J".utf8).write(to: folder.appending(path: "chat_template.jinja"))
        let more = folder.appending(path: "additional_chat_templates")
        try FileManager.default.createDirectory(at: more, withIntermediateDirectories: true)
        try Data("R".utf8).write(to: more.appending(path: "rag.jinja"))
        tokenizer = try AutoTokenizer.from(folder: folder)
        #expect(tokenizer.configuration.chatTemplates == ["default": "J", "tool_use": "T", "rag": "R"])
    }

    @Test("The example checkpoints' tokenizers read and write their own language", arguments: ["bloom-stories", "t5-spelling"])
    func examples(name: String) throws {
        let candidates = [Fixtures.root.appending(path: "models/\(name)"), Fixtures.models.appending(path: name)]
        guard
            let folder = candidates.first(where: {
                FileManager.default.fileExists(atPath: $0.appending(path: "tokenizer.json").path)
            })
        else { return }
        let tokenizer = try AutoTokenizer.from(folder: folder)
        let text = "Once upon a time there was a little llama."
        #expect(tokenizer.decode(tokenizer.encode(text), skipSpecialTokens: true) == text)
    }
}
