import NibbleCore
import Testing

@Suite struct ByteTextTests {
    private static let composed = "caf\u{E9}"
    private static let decomposed = "cafe\u{301}"

    @Test func canonicallyEquivalentTextsDiffer() {
        #expect(Self.composed == Self.decomposed, "the premise: String calls them equal")
        #expect(ByteText(Self.composed) != ByteText(Self.decomposed))
        #expect(Set(texts: [Self.composed, Self.decomposed]).count == 2)
        var ids: [ByteText: Int] = [:]
        ids[Self.composed] = 1
        ids[Self.decomposed] = 2
        #expect(ids[Self.composed] == 1 && ids[Self.decomposed] == 2 && ids["cafe"] == nil)
    }

    @Test func orderIsThatOfCodePoints() {
        #expect(
            [ByteText("z"), "\u{FFFD}", "\u{10000}", "a", "\u{E9}"].sorted() == ["a", "z", "\u{E9}", "\u{FFFD}", "\u{10000}"])
    }

    @Test func searchesWorkOnBytes() {
        #expect("a\r\nb".containsBytes("\n"))
        #expect(!"a\r\nb".contains("\n" as Character), "the premise: CRLF is one character")
        #expect("e\u{301}x".hasBytePrefix("e") && "x\r\n".hasByteSuffix("\n") && !"x".hasByteSuffix("yx"))
        #expect(!Self.composed.containsBytes("e\u{301}"))
        #expect("abcab".firstByteRange(of: "cab").map { "abcab"[$0] } == "cab")
        #expect("ab".firstByteRange(of: "abc") == nil)
    }

    @Test(arguments: [
        ("", [""]), ("a", ["a"]), ("a::b::", ["a", "b", ""]), (":::", ["", ":"]), ("a\r\nb", ["a\r\nb"]),
    ])
    func splitting(_ text: String, _ pieces: [String]) {
        #expect(text.splitBytes(at: "::").map(String.init) == pieces)
    }

    @Test func splittingStopsAtTheMaximum() {
        #expect("a=b=c".splitBytes(at: "=", maximum: 1) == ["a", "b=c"])
        #expect("a\r\nb".splitBytes(at: "\n") == ["a\r", "b"])
    }

    @Test(
        arguments: [
            ("", []), ("\n", [""]), ("a", ["a"]), ("a\n", ["a"]), ("a\nb", ["a", "b"]), ("a\r\nb\r\n", ["a", "b"]),
            ("a\r\n\r\nb", ["a", "", "b"]), ("a\rb\n", ["a\rb"]), ("a\r", ["a\r"]), ("e\n\u{301}\n", ["e", "\u{301}"]),
        ] as [(String, [String])])
    func lines(_ text: String, _ lines: [String]) {
        #expect(text.textLines.map { Array($0.unicodeScalars) } == lines.map { Array($0.unicodeScalars) })
    }
}
