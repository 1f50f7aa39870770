import Foundation
import NibbleTestSupport
import NibbleTokenizers
import Testing

/// Folders that hold a SentencePiece model beside the converted tokenizer.
private let sentencePieceFolders = recordedTokenizers.compactMap { name -> String? in
    let folder = Fixtures.url("fixtures/tokenizers/\(name)")
    let models = ["spiece.model", "tokenizer.model"].filter {
        FileManager.default.fileExists(atPath: folder.appending(path: $0).path)
    }
    return models.first.map { "\(name)/\($0)" }
}

@Suite struct ModelFileTests {
    private func bytes(_ path: String) throws -> [UInt8] {
        Array(try Data(contentsOf: Fixtures.url("fixtures/tokenizers/\(path)")))
    }

    @Test("SentencePiece's own rules give SentencePiece's own ids", arguments: sentencePieceFolders)
    func native(path: String) throws {
        let tokenizer = try Tokenizer(sentencePiece: bytes(path), file: path, rules: .native)
        let rows = try RecordedRow.rows(of: String(path.split(separator: "/")[0])).filter { $0.spmIds != nil }
        #expect(!rows.isEmpty)
        for row in rows {
            #expect(
                tokenizer.encode(row.text ?? "", addSpecialTokens: false) == row.spmIds, "\((row.text ?? "").debugDescription)")
        }
    }

    @Test("A SentencePiece model alone gives the ids of the converted tokenizer", arguments: sentencePieceFolders)
    func converted(path: String) throws {
        let name = String(path.split(separator: "/")[0])
        let folder = Fixtures.url("fixtures/tokenizers/\(name)")
        let tokenizer = try Tokenizer(
            sentencePiece: bytes(path), file: path, configuration: TokenizerConfiguration(folder: folder))
        let reference = try AutoTokenizer.from(folder: folder)
        #expect(tokenizer.vocabularySize == reference.vocabularySize)
        for row in try RecordedRow.rows(of: name) {
            if let text = row.text {
                let found = tokenizer.encoding(text, pair: row.pair)
                let expected = reference.encoding(text, pair: row.pair)
                #expect(found.ids == expected.ids, "\(text.debugDescription)")
                #expect(found.offsets == expected.offsets, "\(text.debugDescription)")
            }
            #expect(sameScalars(tokenizer.decode(row.ids), reference.decode(row.ids)), "\(row.ids)")
        }
    }
}
