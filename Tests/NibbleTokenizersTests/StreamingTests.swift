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
}
