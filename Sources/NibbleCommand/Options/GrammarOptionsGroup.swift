import ArgumentParser
import Nibble

/// What generated text must look like.
struct GrammarOptionsGroup: ParsableArguments {
    @Option(help: ArgumentHelp("The new text is a value of this JSON schema (draft 2020-12 or 7).", valueName: "file"))
    var jsonSchema: String?

    @Flag(help: "Members of the schema's objects may come in any order, not only in the schema's.")
    var anyOrder = false

    @Option(help: ArgumentHelp("The new text matches this regular expression (ECMA 262) as a whole.", valueName: "text"))
    var regex: String?

    @Option(help: ArgumentHelp("The new text is one of this grammar in llama.cpp's notation (GBNF).", valueName: "file"))
    var grammar: String?

    func validate() throws {
        guard [jsonSchema, regex, grammar].count(where: { $0 != nil }) <= 1 else {
            throw ValidationError("give only one of --json-schema, --regex and --grammar")
        }
        guard jsonSchema != nil || !anyOrder else { throw ValidationError("--any-order has no effect without --json-schema") }
    }

    var isGiven: Bool { jsonSchema != nil || regex != nil || grammar != nil }

    /// The compiled grammar; `nil` if none was asked for.
    /// - Throws: `GrammarError`, `JSONError`, `TextFile.ReadError`
    func compiled() throws -> GenerationGrammar? {
        if let jsonSchema { return try GenerationGrammar(jsonSchema: TextFile.read(jsonSchema), hasAnyOrder: anyOrder) }
        if let regex { return try GenerationGrammar(regex: regex) }
        return try grammar.map { try GenerationGrammar(gbnf: TextFile.read($0)) }
    }
}
