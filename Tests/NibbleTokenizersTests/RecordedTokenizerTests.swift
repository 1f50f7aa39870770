import Foundation
import NibbleTestSupport
import NibbleTokenizers
import Testing

/// One line of `expected.jsonl`.
struct RecordedRow: Decodable, Sendable {
    var text: String?
    var pair: String?
    var ids: [Int32]
    var idsPlain: [Int32]?
    var tokens: [String]?
    var offsets: [[Int]]?
    var decoded: String?
    var decodedSkip: String?
    var decodedRaw: String?
    var spmIds: [Int32]?

    static func rows(of name: String) throws -> [RecordedRow] {
        let data = try Data(contentsOf: Fixtures.url("fixtures/tokenizers/\(name)/expected.jsonl"))
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try data.split(separator: 0x0A).map { try decoder.decode(RecordedRow.self, from: $0) }
    }
}

/// Swift's own equality of strings takes canonically equivalent texts for equal.
func sameScalars(_ a: String, _ b: String) -> Bool { a.utf8.elementsEqual(b.utf8) }

let recordedTokenizers = Fixtures.folders(in: "fixtures/tokenizers")

@Suite(.computing) struct RecordedTokenizerTests {
    @Test("Recorded encodings and decodings come out again", arguments: recordedTokenizers)
    func recorded(name: String) throws {
        let tokenizer = try AutoTokenizer.from(folder: Fixtures.url("fixtures/tokenizers/\(name)"))
        let rows = try RecordedRow.rows(of: name)
        #expect(!rows.isEmpty)
        for row in rows {
            if let text = row.text {
                let encoding = tokenizer.encoding(text, pair: row.pair)
                #expect(encoding.ids == row.ids, "\(text.debugDescription)")
                if row.pair == nil { #expect(tokenizer.encode(text) == row.ids, "\(text.debugDescription)") }
                if let plain = row.idsPlain {
                    #expect(tokenizer.encode(text, addSpecialTokens: false) == plain, "\(text.debugDescription)")
                }
                if let tokens = row.tokens {
                    #expect(encoding.tokens.elementsEqual(tokens, by: sameScalars), "\(text.debugDescription)")
                }
                if let offsets = row.offsets {
                    #expect(encoding.offsets.map { [$0.lowerBound, $0.upperBound] } == offsets, "\(text.debugDescription)")
                }
            }
            if let decoded = row.decoded { #expect(sameScalars(tokenizer.decode(row.ids), decoded), "\(row.ids)") }
            if let skipped = row.decodedSkip {
                #expect(sameScalars(tokenizer.decode(row.ids, skipSpecialTokens: true), skipped), "\(row.ids)")
            }
            if let raw = row.decodedRaw {
                #expect(sameScalars(tokenizer.decode(row.ids, cleanUpTokenizationSpaces: false), raw), "\(row.ids)")
            }
        }
    }
}
