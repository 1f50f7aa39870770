import NibbleCore
import Testing

@Suite struct PrintableTextTests {
    @Test(
        "control characters are written out",
        arguments: [
            ("plain.weight", "plain.weight"), ("", ""), ("é 中 👍", "é 中 👍"), ("a\u{1B}[31mb", #"a\u{1b}[31mb"#),
            ("a\nb", #"a\u{a}b"#), ("a\r\nb", #"a\u{d}\u{a}b"#), ("a\tb", #"a\u{9}b"#), ("\0", #"\u{0}"#),
            ("\u{7F}\u{9B}2J", #"\u{7f}\u{9b}2J"#), ("\u{2028}\u{2029}", #"\u{2028}\u{2029}"#),
            ("\u{202E}cba\u{2066}", #"\u{202e}cba\u{2066}"#),
        ])
    func controls(text: String, expected: String) { #expect(text.printable() == expected) }

    @Test("long text is cut, paths are not") func cut() {
        let long = String(repeating: "y", count: 3000)
        #expect(long.printable(limit: 10) == "yyyyyyyyyy… (3000 characters)")
        #expect(long.printable().count < 230)
        #expect(long.printablePath == long)
        #expect("0123456789".printable(limit: 10) == "0123456789")
    }
}
