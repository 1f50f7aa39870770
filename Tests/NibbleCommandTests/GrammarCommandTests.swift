import Foundation
import NibbleTestSupport
import Testing

@Suite(.computing) struct GrammarCommandTests {
    private static let schema =
        #"{"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name"], "additionalProperties": false}"#
    private static let input = #"""
        {"text": "{\"name\": \"Mia\", \"age\": 7}"}
        {"text": "{\"name\": \"Mia\""}
        {"text": "{\"age\": 7}"}

        {"text": "{\"name\": \"안녕 \\\"x\\\"\"}"}

        """#
    private static let answers = "{\"accepted\":true}\n{\"accepted\":false}\n{\"accepted\":false}\n{\"accepted\":true}\n"

    private static func file(_ text: String) throws -> String {
        let file = URL.temporaryDirectory.appending(path: "grammar-\(UUID().uuidString)")
        try Data(text.utf8).write(to: file)
        return file.path
    }

    @Test(
        "texts are accepted or not, by bytes and through the masks of a tokenizer",
        arguments: [nil, "bloom-stories", "t5-spelling"])
    func schema(tokenizer: String?) throws {
        let options = tokenizer.map { ["--tokenizer", Fixtures.models.appending(path: $0).path] } ?? []
        let outcome = try CommandLineTool.run(
            ["grammar", "--json", "--schema", Self.file(Self.schema)] + options, input: Self.input)
        #expect(outcome.status == 0 && outcome.errors == "")
        // The vocabulary of t5-spelling has no braces.
        if tokenizer != "t5-spelling" { #expect(outcome.output == Self.answers) }
    }

    @Test("patterns and grammars")
    func notations() throws {
        let input = "{\"text\": \"ab12\"}\n{\"text\": \"ab\"}\n"
        for options in [["--regex", #"[a-z]+\d+"#], ["--gbnf", try Self.file("root ::= [a-z]+ [0-9]+\n")]] {
            let outcome = try CommandLineTool.run(["grammar"] + options, input: input)
            #expect(outcome.output == "{\"accepted\":true}\n{\"accepted\":false}\n")
        }
    }

    @Test("times of masks are one object")
    func bench() throws {
        let outcome = try CommandLineTool.run(
            [
                "grammar", "--bench", "--schema", Self.file(Self.schema), "--tokenizer",
                Fixtures.models.appending(path: "bloom-stories").path,
            ],
            input: Self.input)
        #expect(outcome.status == 0)
        for key in ["\"mean\":", "\"p50\":", "\"p99\":", "\"max\":", "\"first\":"] { #expect(outcome.output.contains(key)) }
        #expect(outcome.output.split(separator: "\n").count == 1)
    }

    @Test("what is wrong is one line, and says what")
    func errors() throws {
        for (options, status, part) in [
            (["--schema", try Self.file(#"{"uniqueItems": true}"#)], 1, "uniqueItems"),
            (["--schema", try Self.file("{")], 1, "line 1"), (["--schema", "/nowhere/schema.json"], 1, "/nowhere/schema.json"),
            (["--regex", "("], 1, "unmatched"), (["--gbnf", try Self.file("root ::= x")], 1, "line 1"),
            ([], 64, "--schema"), (["--regex", "a", "--gbnf", "b"], 64, "--schema"),
            (["--regex", "a", "--bench"], 64, "--tokenizer"),
            (["--regex", "a", "--lenient"], 64, "--lenient"),
        ] as [([String], Int32, String)] {
            let outcome = try CommandLineTool.run(["grammar"] + options)
            #expect(outcome.status == status && outcome.errors.contains(part), "\(options): \(outcome.errors)")
            if status == 1 { #expect(outcome.errors.split(separator: "\n").count == 1) }
        }
        let line = try CommandLineTool.run(["grammar", "--regex", "a"], input: "{\"text\": \"a\"}\n{\"txt\": 1}\n")
        #expect(line.status == 1 && line.errors.contains("standard input, line 2"))
    }
}
