import Foundation
import NibbleTokenizers
import Testing

@Suite struct AddedTokenTests {
    private func tokenizer(_ tokens: [(content: String, flags: String)], normalizer: String = "null") throws -> Tokenizer {
        let added = tokens.enumerated().map { index, token in
            #"{"id":\#(SmallTokenizer.letters.count + index),"content":\#(SmallTokenizer.quoted(token.content))\#(token.flags)}"#
        }
        return try SmallTokenizer.make(
            SmallTokenizer.json(added: "[\(added.joined(separator: ","))]", normalizer: normalizer, decoder: #"{"type":"Fuse"}"#))
    }

    private static let plain = #","normalized":false,"special":true"#

    @Test("The longest token at the leftmost place wins")
    func longest() throws {
        let tokenizer = try tokenizer([("<a", Self.plain), ("<a>", Self.plain), ("<a>b", Self.plain)])
        #expect(tokenizer.encoding("x<a>bc<a>c<ac").tokens == ["x", "<a>b", "c", "<a>", "c", "<a", "c"])
    }

    @Test("White space around a token is taken along where it says so")
    func strips() throws {
        let left = try tokenizer([("<L>", #","normalized":false,"lstrip":true"#)]).encoding("a  <L>")
        #expect(left.tokens == ["a", "  <L>"])
        #expect(left.offsets == [0..<1, 1..<6])
        let right = try tokenizer([("<R>", #","normalized":false,"rstrip":true"#)])
        #expect(right.encoding("<R>  a").tokens == ["<R>  ", "a"])
        #expect(right.decode(right.encode("<R>  a")) == "<R>a")
    }

    @Test("Single words stand alone")
    func singleWord() throws {
        let tokenizer = try tokenizer([("<W>", #","normalized":false,"single_word":true"#)])
        #expect(tokenizer.encoding("a <W> b").tokens.contains("<W>"))
        #expect(!tokenizer.encoding("a<W>b").tokens.contains("<W>"))
        #expect(!tokenizer.encoding("_<W>").tokens.contains("<W>"))
    }

    @Test("Normalized tokens are found in normalized text and named as they stand there")
    func normalized() throws {
        let lower = #"{"type":"Lowercase"}"#
        let found = try tokenizer([("<X>", #","normalized":true"#)], normalizer: lower).encoding("a<x><X>")
        #expect(found.tokens == ["a", "<x>", "<x>"])
        let exact = try tokenizer([("<X>", #","normalized":false"#)], normalizer: lower).encoding("a<x><X>")
        #expect(exact.tokens.last == "<X>")
        #expect(exact.tokens.filter { $0 == "<X>" }.count == 1)
    }

    @Test("Special tokens are skipped by decoding, other added tokens are kept")
    func skipping() throws {
        let tokenizer = try tokenizer([("<S>", Self.plain), ("<K>", #","normalized":false,"special":false"#)])
        let ids = tokenizer.encode("a<S>b<K>")
        #expect(tokenizer.decode(ids) == "a<S>b<K>")
        #expect(tokenizer.decode(ids, skipSpecialTokens: true) == "ab<K>")
        #expect(tokenizer.batchDecode([ids, []], skipSpecialTokens: true) == ["ab<K>", ""])
    }

    @Test("A token of the vocabulary keeps its id; special tokens without one come at the end")
    func ids() throws {
        var configuration = TokenizerConfiguration()
        configuration.namedTokens["pad_token"] = AddedToken(content: "<pad>", id: -1, isSpecial: true)
        configuration.namedTokens["eos_token"] = AddedToken(content: "z", id: -1, isSpecial: true)
        let tokenizer = try SmallTokenizer.make(SmallTokenizer.json(), configuration: configuration)
        #expect(tokenizer.specialTokens.pad?.id == Int32(SmallTokenizer.letters.count))
        #expect(tokenizer.specialTokens.eos?.id == 25)
        #expect(tokenizer.vocabularySize == SmallTokenizer.letters.count + 1)
        #expect(tokenizer.token(for: 31) == "<pad>" && tokenizer.id(for: "<pad>") == 31)
        #expect(tokenizer.encode("a<pad>z") == [0, 31, 25])
    }

    @Test("The file's own tokens come before those of the configuration and keep their flags")
    func order() throws {
        var configuration = TokenizerConfiguration()
        configuration.addedTokens = [
            AddedToken(content: "<K>", id: 32, isSpecial: true), AddedToken(content: "<new>", id: 33, isSpecial: true),
        ]
        let added =
            #"[{"id":31,"content":"<S>","special":true,"normalized":false},{"id":32,"content":"<K>","special":false,"normalized":false}]"#
        let tokenizer = try SmallTokenizer.make(
            SmallTokenizer.json(added: added, decoder: #"{"type":"Fuse"}"#), configuration: configuration)
        #expect(tokenizer.encode("<S><K><new>") == [31, 32, 33])
        #expect(tokenizer.decode([31, 32, 33], skipSpecialTokens: true) == "<K>")
    }
}
