import NibbleTokenizers
import Testing

/// What a GGUF file may leave out, and the pre-tokenizers that it may name.
@Suite struct GGUFVocabularyTests {
    /// All bytes as tokens, in the order of the byte-level alphabet, and a few merged ones.
    private func byteLevel(_ pre: String?, _ more: [String] = [], merges: [String] = []) -> GGUFVocabulary {
        var next: UInt32 = 256
        let alphabet = (0..<256).map { byte -> String in
            let isPrintable = (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || byte >= 0xAE
            defer { if !isPrintable { next += 1 } }
            return String(Character(Unicode.Scalar(isPrintable ? UInt32(byte) : next)!))
        }
        var vocabulary = GGUFVocabulary(model: "gpt2", tokens: alphabet + more, file: "x.gguf")
        vocabulary.pre = pre
        vocabulary.merges = merges
        return vocabulary
    }

    /// A merge of two characters happens only where no cut lies between them.
    private func isMerged(_ pair: (String, String), in text: String, _ pre: String) throws -> Bool {
        func piece(_ text: String) -> String { text.replacing(" ", with: "\u{120}").replacing("\n", with: "\u{10A}") }
        let merge = "\(piece(pair.0)) \(piece(pair.1))"
        let vocabulary = byteLevel(pre, [piece(pair.0) + piece(pair.1)], merges: [merge])
        return try Tokenizer(vocabulary).encode(text, addSpecialTokens: false).contains(256)
    }

    @Test(
        "the cuts of each pre-tokenizer",
        arguments: [
            // The pair, a text, and in which pre-tokenizers the pair stays together.
            ("1", "2", "12", "gpt-2", true), ("1", "2", "12", "qwen2", false), ("1", "2", "12", "llama-bpe", true),
            ("3", "4", "1234", "llama-bpe", false), ("1", "2", "12", "smollm", false), ("1", "2", "12", "deepseek-llm", true),
            ("1", "2", "12", "deepseek-coder", false), ("3", "4", "1234", "deepseek-v3", false),
            ("3", "4", "1234", "falcon", false), ("2", "3", "123", "falcon", true), ("1", "2", "12", "viking", false),
            ("1", "2", "12", "seed-coder", false), ("1", "2", "12", "chatglm-bpe", true), ("1", "2", "12", "bailingmoe", false),
            ("a", "b", "ab", "deepseek-llm", true), (" ", "a", "x a", "deepseek-llm", true),
            ("a", ",", "a,", "deepseek-llm", false),
            ("\n", "\n", "\n\n", "deepseek-llm", false), ("\n", "\n", "\n\n", "qwen2", true),
            ("\n", "\n", "\n\n", "deepseek-coder", false), (",", "a", ",a", "deepseek-v3", true), (",", "a", ",a", "qwen2", true),
            (",", "a", ",a", "gpt-2", false), ("1", "2", "1234", "tiny_aya", false), ("2", "3", "1234", "tiny_aya", true),
        ])
    func cuts(first: String, second: String, text: String, pre: String, isTogether: Bool) throws {
        #expect(try isMerged((first, second), in: text, pre) == isTogether)
    }

    @Test(
        "every name that is listed makes a tokenizer that gives texts back",
        arguments: [
            "default", "gpt-2", "smollm", "falcon", "llama-bpe", "smaug-bpe", "qwen2", "hunyuan", "qwen35", "seed-coder",
            "bailingmoe", "bloom", "viking", "tekken", "gpt-4o", "tiny_aya", "deepseek-llm", "deepseek-coder", "deepseek-v3",
            "grok-2", "poro-chat", "minerva-7b", "exaone4", "falcon3", "glm4", "llama4",
        ])
    func listed(pre: String) throws {
        let tokenizer = try Tokenizer(byteLevel(pre))
        let text = "Hello, world!  It's 12345 \u{4E2D}\u{6587} \u{E9}\u{1D400}\n\n\tx_y  "
        #expect(tokenizer.decode(tokenizer.encode(text, addSpecialTokens: false), skipSpecialTokens: false) == text)
    }

    @Test("a name that is not listed is refused by it", arguments: ["kimi-k2", "unheard-of", ""]) func unlisted(pre: String) {
        let error = #expect(throws: TokenizerError.self) { try Tokenizer(byteLevel(pre)) }
        #expect(error.map { "\($0)" }?.contains("tokenizer.ggml.pre") == true)
    }

    @Test(
        "without add_bos_token the kind of vocabulary decides",
        arguments: [
            ("llama-bpe", true), ("tekken", true), ("falcon3", true), ("qwen2", false), ("gpt-2", false), ("smaug-bpe", false),
        ])
    func beginsWithBos(pre: String, adds: Bool) throws {
        var vocabulary = byteLevel(pre, ["<s>"])
        (vocabulary.bosID, vocabulary.tokenTypes) = (256, [Int32](repeating: 1, count: 256) + [3])
        #expect(try (Tokenizer(vocabulary).encode("a").first == 256) == adds)
        vocabulary.addsBos = !adds
        #expect(try (Tokenizer(vocabulary).encode("a").first == 256) == !adds)
    }

    private func sentencePiece() -> GGUFVocabulary {
        func digits(_ byte: Int) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true) }
        let bytes = (0..<256).map { "<0x\(digits($0))>" }
        var vocabulary = GGUFVocabulary(
            model: "llama", tokens: ["<unk>", "<s>", "</s>"] + bytes + ["\u{2581}", "a", "\u{2581}a"], file: "x.gguf")
        vocabulary.scores = [Float](repeating: 0, count: 259) + [-3, -2, -1]
        return vocabulary
    }

    @Test("without types and ids, a SentencePiece vocabulary has llama.cpp's") func defaults() throws {
        let tokenizer = try Tokenizer(sentencePiece())
        #expect(tokenizer.encode("a a\u{E9}") == [1, 261, 261, 3 + 0xC3, 3 + 0xA9])
        #expect(tokenizer.specialTokens.bos?.id == 1 && tokenizer.specialTokens.eos?.id == 2)
        #expect(tokenizer.decode([1, 261, 3 + 0xC3, 3 + 0xA9, 2], skipSpecialTokens: true) == "a\u{E9}")
        var odd = sentencePiece()
        (odd.bosID, odd.eosID) = (99_999, -1)
        #expect(try Tokenizer(odd).specialTokens.bos?.id == 1)
        // Lists may be longer than the vocabulary, not shorter.
        odd.scores.append(0)
        #expect(try Tokenizer(odd).encode("a") == [1, 261])
        odd.scores = [0]
        #expect(throws: TokenizerError.self) { try Tokenizer(odd) }
    }

    @Test("a token that ends turns is special whatever its type says") func endOfTurn() throws {
        var vocabulary = byteLevel("gpt-2", ["<|im_end|>", "<|other|>"])
        vocabulary.tokenTypes = [Int32](repeating: 1, count: 258)
        let tokenizer = try Tokenizer(vocabulary)
        #expect(tokenizer.encode("a<|im_end|>", addSpecialTokens: false) == [97, 256])
        #expect(tokenizer.encode("<|other|>", addSpecialTokens: false).count == 9)
    }
}
