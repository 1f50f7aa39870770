import ArgumentParser
import Nibble

/// What generated text must look like.
struct GrammarOptionsGroup: ParsableArguments {
    @Option(
        help: ArgumentHelp("The new text is a value of this JSON schema (draft 2020-12 or 7).", valueName: "file"),
        completion: .file(extensions: ["json"]))
    var jsonSchema: String?

    @Flag(help: "Members of the schema's objects may come in any order, not only in the schema's.")
    var anyOrder = false

    @Option(help: ArgumentHelp("The new text matches this regular expression (ECMA 262) as a whole.", valueName: "text"))
    var regex: String?

    @Option(
        help: ArgumentHelp("The new text is one of this grammar in llama.cpp's notation (GBNF).", valueName: "file"),
        completion: .file(extensions: ["gbnf"]))
    var grammar: String?

    func validate() throws {
        guard [jsonSchema, regex, grammar].count(where: { $0 != nil }) <= 1 else {
            throw ValidationError("give only one of --json-schema, --regex and --grammar")
        }
        guard jsonSchema != nil || !anyOrder else { throw ValidationError("--any-order has no effect without --json-schema") }
    }

    var isGiven: Bool { jsonSchema != nil || regex != nil || grammar != nil }

    /// The compiled grammar; `nil` if none was asked for.
    /// - Throws: ``CommandFailure`` that names the file or option; `TextFile.ReadError`
    func compiled() throws -> GenerationGrammar? {
        if let jsonSchema {
            let text = try TextFile.read(jsonSchema)
            return try CommandFailure.naming(jsonSchema) { try GenerationGrammar(jsonSchema: text, hasAnyOrder: anyOrder) }
        }
        if let regex { return try CommandFailure.naming("--regex") { try GenerationGrammar(regex: regex) } }
        return try grammar.map { file in
            let text = try TextFile.read(file)
            return try CommandFailure.naming(file) { try GenerationGrammar(gbnf: text) }
        }
    }
}
