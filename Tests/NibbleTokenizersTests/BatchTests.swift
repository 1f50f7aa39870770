import Foundation
import NibbleTokenizers
import Testing

@Suite struct BatchTests {
    /// `<s> A </s>` and `<s> A </s> B </s>` around single letters.
    private func tokenizer(_ configure: (inout TokenizerConfiguration) -> Void = { _ in }) throws -> Tokenizer {
        var configuration = TokenizerConfiguration()
        configuration.namedTokens["pad_token"] = AddedToken(content: "<p>", id: -1, isSpecial: true)
        configure(&configuration)
        let template = """
            {"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},
            {"SpecialToken":{"id":"</s>","type_id":0}}],"pair":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},
            {"SpecialToken":{"id":"</s>","type_id":0}},{"Sequence":{"id":"B","type_id":1}},{"SpecialToken":{"id":"</s>","type_id":1}}],
            "special_tokens":{"<s>":{"id":"<s>","ids":[31],"tokens":["<s>"]},"</s>":{"id":"</s>","ids":[32],"tokens":["</s>"]}}}
            """
        let added = #"[{"id":31,"content":"<s>","special":true},{"id":32,"content":"</s>","special":true}]"#
        return try SmallTokenizer.make(SmallTokenizer.json(added: added, postProcessor: template), configuration: configuration)
    }

    @Test("Rows are padded on the side asked for, to the longest, to a length, to a multiple")
    func padding() throws {
        let right = try tokenizer()
        let longest = try right(["a", "abc"], padding: .longest)
        #expect(longest.inputIDs == [[31, 0, 32, 33, 33], [31, 0, 1, 2, 32]])
        #expect(longest.attentionMask == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
        #expect(longest.tokenTypeIDs == nil)
        let left = try tokenizer { $0.paddingSide = .left }
        #expect(left.paddingSide == .left)
        #expect(try left(["a", "abc"], padding: .longest).inputIDs[0] == [33, 33, 31, 0, 32])
        #expect(try right(["a"], padding: .longest, padToMultipleOf: 8).inputIDs[0].count == 8)
        #expect(try right(["a"], padding: .maxLength, maxLength: 6, paddingSide: .left).attentionMask == [[0, 0, 0, 1, 1, 1]])
        #expect(try right("ab").inputIDs == [[31, 0, 1, 32]])
        #expect(try right([], padding: .longest).inputIDs.isEmpty)
    }

    @Test("What is needed for padding must be there")
    func paddingErrors() throws {
        let bare = try SmallTokenizer.make(SmallTokenizer.json())
        #expect(throws: TokenizerError.noPaddingToken) { try bare(["a"], padding: .longest) }
        #expect(throws: TokenizerError.noMaximumLength) { try tokenizer()(["a"], padding: .maxLength) }
        #expect(throws: TokenizerError.self) { try tokenizer()(["a"], padding: .longest, padToMultipleOf: 0) }
    }

    @Test("Truncation leaves room for the special tokens; the overflow repeats the stride")
    func truncation() throws {
        let tokenizer = try tokenizer { $0.modelMaxLength = 4 }
        #expect(try tokenizer(["abcdef"], truncation: .longestFirst).inputIDs == [[31, 0, 1, 32]])
        #expect(try tokenizer(["abcdef"], truncation: .longestFirst, maxLength: 3).inputIDs == [[31, 0, 32]])
        #expect(try tokenizer(["abcdef"], truncation: .longestFirst, addSpecialTokens: false).inputIDs == [[0, 1, 2, 3]])
        let strided = try tokenizer.encoding("abcdef", pair: nil, truncation: .longestFirst, maxLength: 5, stride: 1)
        #expect(strided.ids == [31, 0, 1, 2, 32])
        #expect(strided.overflowing.map(\.tokens) == [["<s>", "c", "d", "e", "</s>"], ["<s>", "e", "f", "</s>"]])
        let left = try self.tokenizer { $0.truncationSide = .left }
        #expect(try left(["abcdef"], truncation: .longestFirst, maxLength: 5).inputIDs == [[31, 3, 4, 5, 32]])
    }

    @Test("Of a pair the longer text gives way first")
    func pairs() throws {
        let tokenizer = try tokenizer()
        func tokens(_ a: String, _ b: String, _ truncation: Truncation, _ limit: Int) throws -> [String] {
            try tokenizer.encoding(a, pair: b, truncation: truncation, maxLength: limit).tokens.filter { $0.count == 1 }
        }
        #expect(try tokens("abcd", "efgh", .longestFirst, 7) == ["a", "b", "e", "f"])
        #expect(try tokens("ab", "efghij", .longestFirst, 8) == ["a", "b", "e", "f", "g"])
        #expect(try tokens("abcdefg", "e", .longestFirst, 6) == ["a", "b", "e"])
        #expect(try tokens("abcd", "ef", .onlyFirst, 7) == ["a", "b", "e", "f"])
        #expect(try tokens("abcd", "efgh", .onlySecond, 9) == ["a", "b", "c", "d", "e", "f"])
        #expect(throws: TokenizerError.self) { try tokens("abcd", "e", .onlySecond, 5) }
        #expect(tokenizer.encoding("ab", pair: "c").typeIDs == [0, 0, 0, 0, 1, 1])
        #expect(tokenizer.encoding("ab", pair: "c").specialTokensMask == [1, 0, 0, 1, 0, 1])
        #expect(tokenizer.encoding("ab", pair: "c", addSpecialTokens: false).ids == [0, 1, 2])
    }
}
