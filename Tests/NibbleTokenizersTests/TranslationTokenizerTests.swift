import Foundation
import NibbleCore
import NibbleTestSupport
import NibbleTokenizers
import Testing

/// Tokenizers of translation models, against transformers' answers.
@Suite struct TranslationTokenizerTests {
    private static let folder = Fixtures.repository.appending(path: "Tests/Fixtures/translation")
    static let names: [String] = {
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return files.sorted()
    }()

    private func tokenizer(_ name: String) throws -> Tokenizer {
        try AutoTokenizer.from(folder: Self.folder.appending(path: name))
    }

    @Test("there are recorded tokenizers")
    func recorded() { #expect(Self.names.count >= 10) }

    @Test("ids, languages and texts are the recorded ones", arguments: names)
    func rows(name: String) throws {
        let tokenizer = try tokenizer(name)
        let expected = try JSONValue(contentsOf: Self.folder.appending(path: "\(name)/expected.json"))
        #expect(tokenizer.vocabularySize == expected["length"]?.int)
        let rows = try #require(expected["rows"]?.array)
        #expect(rows.count > 10)
        for row in rows {
            let text = try #require(row["text"]?.string)
            let ids = try #require(row["ids"]?.array).compactMap { $0.int.map { Int32($0) } }
            let marked = try tokenizer.translating(from: row["src"]?.string, to: row["tgt"]?.string)
            let batch = try marked([text])
            #expect(batch.inputIDs == [ids], "\(text.debugDescription)")
            #expect(marked.encode(text) == ids, "\(text.debugDescription)")
            #expect(batch.forcedBosTokenId == row["forced_bos_token_id"]?.int.map { Int32($0) })
            for (key, skips) in [("decoded", false), ("skipped", true)] {
                guard let decoded = row[key]?.string else { continue }
                let found = marked.decode(ids, skipSpecialTokens: skips)
                #expect(sameScalars(found, decoded), "\(found.debugDescription) for \(decoded.debugDescription)")
                var stream = TokenStreamDecoder(marked, skipSpecialTokens: skips)
                let streamed = ids.map { stream.push($0) }.joined() + stream.finish()
                #expect(sameScalars(streamed, decoded), "\(streamed.debugDescription) for \(decoded.debugDescription)")
            }
        }
    }

    @Test(
        "an unknown language is an error that names near ones",
        arguments: [
            ("m2m100_bpe", "kor_Hang", "ko"), ("m2m100_bpe", "KO", "ko"), ("nllb", "kor_Hans", "kor_Hang"),
            ("nllb", "kor", "kor_Hang"),
            ("nllb", "ko_KR", "kor_Hang"), ("nllb_json", "eng", "eng_Latn"), ("mbart50", "ko", "ko_KR"),
            ("mbart_cc25", "kr_KR", "ko_KR"), ("marian", "ko", "kor"),
        ])
    func unknownLanguage(name: String, code: String, near: String) throws {
        let tokenizer = try tokenizer(name)
        let error = try #require(throws: TokenizerError.self) { try tokenizer.translating(to: code) }
        guard case .unknownLanguage(code, let found) = error else {
            Issue.record("\(error)")
            return
        }
        #expect(found.contains(near) && found.count <= 5, "\(found)")
        #expect("\(error)".contains(code) && "\(error)".contains(near))
        if name != "marian" { #expect(throws: TokenizerError.self) { try tokenizer.translating(from: code) } }
    }

    @Test("a language that resembles nothing names nothing")
    func farLanguage() throws {
        #expect(throws: TokenizerError.unknownLanguage("quenya!", near: [])) {
            try tokenizer("mbart50").translating(to: "quenya!")
        }
        #expect(throws: TokenizerError.self) { try tokenizer("nllb").translating(to: String(repeating: "x", count: 100_000)) }
    }

    @Test("a tokenizer without languages refuses them")
    func noLanguages() throws {
        #expect(throws: TokenizerError.noLanguages) { try tokenizer("xglm").translating(to: "en") }
        #expect(try tokenizer("xglm").translating().encode("the") == tokenizer("xglm").encode("the"))
    }

    @Test(
        "languages are listed in the order of their ids",
        arguments: [
            ("m2m100_bpe", 100, "af", "zu"), ("m2m100_wmt21", 8, "en", "de"), ("nllb", 202, "ace_Arab", "zul_Latn"),
            ("nllb_json", 4, "deu_Latn", "zho_Hans"), ("mbart50", 52, "ar_AR", "sl_SI"), ("mbart_cc25", 25, "ar_AR", "zh_CN"),
            ("marian", 2, "kor", "deu"), ("xglm", 0, nil, nil),
        ])
    func languages(name: String, count: Int, first: String?, last: String?) throws {
        let languages = try tokenizer(name).languages
        #expect(languages.count == count)
        #expect(languages.first == first)
        #expect(languages.last == last)
    }

    @Test("Marian reads the target before the text")
    func marian() throws {
        let tokenizer = try tokenizer("marian")
        let named = try tokenizer.translating(to: "kor")
        #expect(named.encode("the house") == tokenizer.encode(">>kor<< the house"))
        #expect(try named(["the house"]).forcedBosTokenId == nil)
    }

    @Test("a copy keeps the language that is not named again")
    func keeps() throws {
        let tokenizer = try tokenizer("nllb").translating(from: "kor_Hang", to: "eng_Latn")
        let back = try tokenizer.translating(from: "deu_Latn")
        #expect(try back([""]).forcedBosTokenId == tokenizer.id(for: "eng_Latn"))
        #expect(back.encode("") == [tokenizer.id(for: "deu_Latn"), 2])
        #expect(try tokenizer.translating(to: "deu_Latn").encode("") == [tokenizer.id(for: "kor_Hang"), 2])
    }

    @Test("the class comes from config.json where tokenizer_config.json does not name it")
    func classFromConfig() throws {
        let cases = [
            ("m2m100_bpe", #"{"model_type": "m2m_100"}"#),
            ("mbart50", #"{"model_type":"mbart","tokenizer_class":"MBart50Tokenizer"}"#),
            ("mbart_cc25", #"{"model_type": "mbart"}"#), ("marian", #"{"model_type": "marian"}"#),
            ("xglm", #"{"model_type":"xglm"}"#),
        ]
        for (name, config) in cases {
            let copy = try copied(name)
            try Data("{}".utf8).write(to: copy.appending(path: "tokenizer_config.json"))
            try Data(config.utf8).write(to: copy.appending(path: "config.json"))
            let (found, original) = (try AutoTokenizer.from(folder: copy), try tokenizer(name))
            #expect(found.encode("the house keeps") == original.encode("the house keeps"), "\(name)")
            #expect(found.languages == original.languages, "\(name)")
            try FileManager.default.removeItem(at: copy)
        }
    }

    private func copied(_ name: String) throws -> URL {
        let copy = try Fixtures.temporaryFolder().appending(path: name)
        try FileManager.default.copyItem(at: Self.folder.appending(path: name), to: copy)
        return copy
    }

    @Test(
        "a damaged folder is a typed error that names the file",
        arguments: [
            ("m2m100_bpe", "vocab.json", Optional("[1]"), "vocab.json"), ("m2m100_bpe", "vocab.json", nil, "vocab.json"),
            ("m2m100_bpe", "vocab.json", #"{"<s>": 0}"#, "<unk>"), ("m2m100_bpe", "vocab.json", #"{"<unk>": -1}"#, "vocab.json"),
            ("m2m100_bpe", "sentencepiece.bpe.model", "not a model", "sentencepiece.bpe.model"),
            ("nllb", "sentencepiece.bpe.model", "", "sentencepiece.bpe.model"),
            ("marian", "source.spm", "not a model", "source.spm"),
            (
                "marian", "tokenizer_config.json", #"{"tokenizer_class":"MarianTokenizer","separate_vocabs":true}"#,
                "separate_vocabs"
            ),
            ("nllb", "tokenizer_config.json", #"{"tokenizer_class":"OtherTokenizer"}"#, "OtherTokenizer"),
        ])
    func damaged(name: String, file: String, content: String?, mention: String) throws {
        let copy = try copied(name)
        let path = copy.appending(path: file)
        try FileManager.default.removeItem(at: path)
        try content.map { try Data($0.utf8).write(to: path) }
        let error = try #require(throws: TokenizerError.self) { try AutoTokenizer.from(folder: copy) }
        #expect("\(error)".contains(mention), "\(error)")
        try FileManager.default.removeItem(at: copy)
    }

    @Test("the files to download are the ones read")
    func files() {
        let names = ["config.json", "sentencepiece.bpe.model", "vocab.json", "pytorch_model.bin", "source.spm", "target.spm"]
        #expect(
            Set(AutoTokenizer.files(among: names)) == ["config.json", "sentencepiece.bpe.model", "vocab.json"])
        #expect(
            Set(AutoTokenizer.files(among: ["source.spm", "target.spm", "vocab.json", "merges.txt"]))
                == ["source.spm", "target.spm", "vocab.json"])
        #expect(AutoTokenizer.files(among: ["sentencepiece.bpe.model"]) == ["sentencepiece.bpe.model"])
    }
}
