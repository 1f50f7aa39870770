import NibbleGrammar
import Testing

@Suite struct NotationTests {
    @Test(
        "regular expressions hold for the whole text",
        arguments: [
            ("a*b", ["b", "aab"], ["a", "ba", "abc"]), ("[^a-c]{2}", ["de", "한글"], ["ad", "d", "def"]),
            (#"\d+(\.\d+)?"#, ["1", "2.50"], ["2.", ".5", "٣"]), ("(foo|ba[rz])+", ["foo", "barbaz"], ["fo", ""]),
            (".", ["a", "😀"], ["\n", "ab"]), (#"\p{Lu}\p{Ll}*"#, ["Éa", "A"], ["é", "1"]), (#"[\w-]+"#, ["a-b_1"], ["a b", "é"]),
            ("(?=.*1)[a-z0-9]{3}", ["a1b", "111"], ["abc"]), ("(?<year>[0-9]{4})", ["2024"], ["24"]),
            ("a??b", ["b", "ab"], ["aab"]),
            (#"\u{1F600}|\u0041|\x42"#, ["😀", "A", "B"], ["C"]), ("^a$|^b", ["a", "b"], ["ab"]), ("", [""], ["a"]),
        ])
    func regularExpressions(pattern: String, matching: [String], others: [String]) throws {
        let grammar = try Grammar(regex: pattern)
        for text in matching { #expect(try grammar.accepts(text.utf8), "\(text)") }
        for text in others { #expect(try !grammar.accepts(text.utf8), "\(text)") }
    }

    @Test(
        "a pattern that cannot be enforced says why",
        arguments: [
            "(", ")", "[", "a**", "+", #"\b"#, #"(a)\1"#, "(?<=a)b", "(?i:a)", "a{3,2}", #"\p{Nope}"#, "(a^)b", #"\ud800"#,
            "a{99999}",
            #"\q"#, "[z-a]", "(?<name", "{1}?+*", String(repeating: "(", count: 60) + String(repeating: ")", count: 60),
        ])
    func badPatterns(pattern: String) {
        #expect(throws: GrammarError.self) { try Grammar(regex: pattern) }
    }

    static let arithmetic = """
        # sums of products
        root   ::= term (ws [+-] ws term)*
        term   ::= factor ("*" factor)*   # no blanks
        factor ::= [0-9]+ | "(" root ")"
        ws     ::= " "?
        """

    @Test(
        "grammars in GBNF",
        arguments: [
            (arithmetic, ["1", "1 + 2*3", "(1-2)*(3)"], ["1 +", "()", "1  + 2", "1*"]),
            (#"root ::= "a"{2,3} "b"{2}"#, ["aabb", "aaabb"], ["abb", "aab", "aaaabb"]),
            ("root ::= item+\nitem ::= \"x\" |\n  \"y\"", ["x", "xyyx"], ["", "z"]),
            (#"root ::= [^"\\]* "\"" . "#, [#"ab"é"#], [#"ab""#]),
            (#"root ::= "\x41\u00e9\n" [a\-z]"#, ["Aé\na", "Aé\n-"], ["Aé\nb"]),
            (
                "root ::= pair{2}\npair ::= (\"a\" root2?) \"b\"\nroot2 ::= \"c\" | \"d\" pair", ["abab", "acbadabb"],
                ["ab", "acab"]
            ),
            ("root ::= a b\na ::= \"\" | \"x\"\nb ::= a a", ["", "xxx"], ["xxxx"]),
        ])
    func gbnf(grammar: String, matching: [String], others: [String]) throws {
        let grammar = try Grammar(gbnf: grammar)
        for text in matching { #expect(try grammar.accepts(text.utf8), "\(text)") }
        for text in others { #expect(try !grammar.accepts(text.utf8), "\(text)") }
    }

    @Test(
        "a grammar that is wrong names the line",
        arguments: [
            ("", 1), ("start ::= \"a\"", 1), ("root = \"a\"", 1), ("root ::= \"a\n\"", 1), ("root ::= \"a\"\nroot ::= \"b\"", 2),
            ("root ::= (\"a\"", 1), ("root ::= [a", 1), (#"root ::= "\q""#, 1), ("root ::= \"a\"{3,1}", 1),
            ("root ::= root \"a\" | \"b\"", 1),
            ("root ::= other", 1), ("root ::= \"a\"{5000}", 1),
        ])
    func badGrammars(text: String, line: Int) throws {
        let error = try #require(throws: GrammarError.self) { try Grammar(gbnf: text) }
        guard case .notation(let found, _) = error else {
            Issue.record("\(error)")
            return
        }
        #expect(found == line, "\(error)")
    }

    @Test("a rule that refers to itself in the middle has no depth but that of the text")
    func recursion() throws {
        let grammar = try Grammar(gbnf: "root ::= \"(\" root \")\" | \"\"")
        let depth = 2000
        #expect(try grammar.accepts((String(repeating: "(", count: depth) + String(repeating: ")", count: depth)).utf8))
        #expect(try !grammar.accepts((String(repeating: "(", count: depth) + String(repeating: ")", count: depth - 1)).utf8))
    }
}
