import Foundation
import NibbleTestSupport
import NibbleTokenizers
import Testing

@Suite struct StreamingTests {
    @Test("Text streamed token by token is the text decoded at once", arguments: recordedTokenizers)
    func stream(name: String) throws {
        let tokenizer = try AutoTokenizer.from(folder: Fixtures.url("fixtures/tokenizers/\(name)"))
        for row in try RecordedRow.rows(of: name) where row.text != nil {
            for skip in [false, true] {
                var decoder = TokenStreamDecoder(tokenizer, skipSpecialTokens: skip)
                var streamed = row.ids.map { decoder.push($0) }.joined()
                streamed += decoder.finish()
                let whole = tokenizer.decode(row.ids, skipSpecialTokens: skip, cleanUpTokenizationSpaces: false)
                #expect(sameScalars(streamed, whole), "\(row.ids)")
            }
        }
    }

    private static let llamaDecoder =
        #"{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#

    private func pieces(_ decoder: String, _ tokens: [String]) throws -> [String] {
        let tokenizer = try SmallTokenizer.make(SmallTokenizer.json(vocabulary: Array(Set(tokens)).sorted(), decoder: decoder))
        var stream = TokenStreamDecoder(tokenizer, skipSpecialTokens: false)
        return tokens.map { stream.push(tokenizer.id(for: $0) ?? -1) } + [stream.finish()]
    }

    @Test("A character waits until it is whole")
    func characters() throws {
        #expect(try pieces(#"{"type":"ByteLevel"}"#, ["a", "ð", "Ł", "ĺ", "Ģ", "b"]) == ["a", "", "", "", "😀", "b", ""])
        #expect(try pieces(Self.llamaDecoder, ["▁a", "<0xE2>", "<0x82>", "<0xAC>", "▁b"]) == ["a", "", "", "€", " b", ""])
    }

    @Test("What cannot become a character is replaced as soon as that is sure")
    func invalid() throws {
        #expect(try pieces(#"{"type":"ByteLevel"}"#, ["Ã", "a", "ð"]) == ["", "�a", "", "�"])
        #expect(try pieces(#"{"type":"ByteLevel"}"#, ["í", "ł"]) == ["", "��", ""])
        #expect(try pieces(Self.llamaDecoder, ["<0xE2>", "<0x82>", "a", "<0xFF>"]) == ["", "", "��a", "�", ""])
    }

    @Test("Strip at the end of the text holds back what it may remove")
    func strip() throws {
        let decoder = #"{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":1}]}"#
        #expect(try pieces(decoder, [" ", " a", " ", "b "]) == ["", " a", "", " b", ""])
        #expect(try pieces("null", ["a", "b"]) == ["a", " b", ""])
    }
}
