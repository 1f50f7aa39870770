import NibbleCore
import NibbleGrammar
import Testing

@Suite struct GrammarMaskTests {
    private static let end = Int32(MaskTests.tokens.count - 1)

    private func allowed(_ mask: GrammarMask) throws -> Set<Int32> {
        var words = [Int32](repeating: -1, count: MaskTests.vocabulary.maskWords + 1)
        try words.withUnsafeMutableBufferPointer { try mask.mask(into: $0) }
        return Set((0..<Int32(words.count * 32)).filter { words[Int($0) / 32] >> ($0 % 32) & 1 != 0 })
    }

    @Test("tokens are accepted as the mask says, and taken back, the end too")
    func wayAndBack() throws {
        let mask = GrammarMask(try Grammar(regex: "ab?"), MaskTests.vocabulary)
        #expect(try allowed(mask) == [0x61])
        try mask.accept(0x61)
        #expect(try allowed(mask) == [0x62, Self.end])
        #expect(try mask.isComplete && !mask.isFinished)
        let other = mask.copy()
        try mask.accept(Self.end)
        #expect(try mask.isFinished && allowed(mask) == [Self.end])
        #expect(throws: GrammarError.tokenNotAllowed(0x62)) { try mask.accept(0x62) }
        mask.rollback(1)
        try mask.accept(0x62)
        #expect(try mask.isFinished && allowed(mask) == [Self.end])
        #expect(try allowed(other) == [0x62, Self.end])
        mask.rollback(2)
        #expect(try allowed(mask) == [0x61])
        #expect(throws: GrammarError.tokenNotAllowed(Self.end)) { try mask.accept(Self.end) }
    }

    @Test("many rows share one grammar from many threads")
    func threads() async throws {
        let grammar = try Grammar(schema: try JSONValue.parse(MaskTests.schemas[0]))
        let text = Array(#"{"name": "some longer text", "value": 123}"#.utf8)
        let expected = try { () throws -> [Set<Int32>] in
            let mask = GrammarMask(try Grammar(schema: try JSONValue.parse(MaskTests.schemas[0])), MaskTests.vocabulary)
            return try text.map { byte in
                defer { try? mask.accept(Int32(byte)) }
                return try allowed(mask)
            }
        }()
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    let mask = GrammarMask(grammar, MaskTests.vocabulary)
                    for (byte, tokens) in zip(text, expected) {
                        guard try self.allowed(mask) == tokens else { return false }
                        try mask.accept(Int32(byte))
                    }
                    return try mask.isComplete
                }
            }
            for try await isRight in group { #expect(isRight) }
        }
    }
}
