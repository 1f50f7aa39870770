import NibbleCore
import NibbleGrammar

/// What a grammar of answers is compiled from. Equal sources have one compiled grammar; see ``GrammarCache``.
enum GrammarSource: Hashable, Sendable {
    case piece(GrammarPiece)
    /// In llama.cpp's notation.
    case gbnf(String)

    static func schema(_ value: JSONValue, isStrict: Bool = true, isCompact: Bool = false) -> GrammarSource {
        var options = SchemaOptions()
        options.isLenient = !isStrict
        options.isCompact = isCompact
        return .piece(.value(schema: GrammarPiece.SchemaText(value), options))
    }

    static let anyObject = schema(["type": "object"])
}

/// What the text of an answer must look like, as a request says it.
struct OutputForm: Sendable, Equatable {
    /// The field that says so, for errors.
    var field: String
    var source: GrammarSource
}

extension OutputForm {
    /// Reads `response_format`, `structured_outputs` and the older `guided_…` fields. `nil`: any text.
    /// - Throws: `JSONError`, ``APIError``: each names the field.
    init?(_ body: JSONField) throws {
        let forms =
            try [
                body.child("response_format").flatMap { try Self.responseFormat($0) },
                body.child("structured_outputs").flatMap { try Self.structuredOutputs($0) },
            ].compactMap(\.self) + Self.constraints(body, prefix: "guided_", isCompact: false)
        guard forms.count <= 1 else {
            throw APIError.invalid("\(forms[0].field) and \(forms[1].field) exclude each other", param: forms[1].field)
        }
        guard let form = forms.first else { return nil }
        self = form
    }

    /// OpenAI's `response_format`, and `text.format` of responses, where the schema's members stand beside the type.
    static func responseFormat(_ format: JSONField) throws -> OutputForm? {
        let type = try format.text("type")
        switch type {
        case "text": return nil
        case "json_object":
            // llama.cpp takes a schema here.
            guard let schema = format.child("schema") else { return OutputForm(field: format.path, source: .anyObject) }
            return try schemaForm(schema, isStrict: true)
        case "json_schema":
            let description = format.child("json_schema") ?? format
            _ = try description.child("name")?.string()
            // Whoever says that it need not be strict gets what can be enforced; others are told what cannot.
            return try schemaForm(description.required("schema"), isStrict: description.flag("strict", default: true))
        default:
            throw APIError.invalid(
                "field '\(format.path).type': expected text, json_object or json_schema, found '\(type.prefix(40))'",
                param: "\(format.path).type", code: "unsupported_value")
        }
    }

    /// vLLM's `structured_outputs`.
    private static func structuredOutputs(_ outputs: JSONField) throws -> OutputForm? {
        let isCompact = try outputs.flag("disable_any_whitespace", default: false)
        let forms = try constraints(outputs, prefix: "", isCompact: isCompact)
        guard forms.count == 1 else { throw outputs.unexpected("one of json, json_object, regex, choice and grammar") }
        return forms[0]
    }

    private static func constraints(_ body: JSONField, prefix: String, isCompact: Bool) throws -> [OutputForm] {
        var forms: [OutputForm] = []
        if let field = body.child(prefix + "json") {
            let text = field.value.string
            guard let schema = text.map({ try? JSONValue.parse($0) }) ?? field.value else { throw field.unexpected("JSON") }
            forms.append(
                try schemaForm(JSONField(schema, file: "body", path: field.path), isStrict: true, isCompact: isCompact))
        }
        if try body.flag(prefix + "json_object", default: false) {
            forms.append(OutputForm(field: prefix + "json_object", source: .anyObject))
        }
        if let field = body.child(prefix + "regex") {
            forms.append(OutputForm(field: field.path, source: .piece(.regex(try field.string()))))
        }
        if let field = body.child(prefix + "choice") {
            let choices = try field.elements().map { GrammarPiece.text(try $0.string()) }
            guard !choices.isEmpty else { throw field.unexpected("at least one text") }
            forms.append(OutputForm(field: field.path, source: .piece(.either(choices))))
        }
        if let field = body.child(prefix + "grammar") {
            forms.append(OutputForm(field: field.path, source: .gbnf(try field.string())))
        }
        return forms
    }

    /// Ollama's `format`: `"json"`, or a schema. `nil`: any text.
    static func ollama(_ field: JSONField?) throws -> OutputForm? {
        guard let field, field.value.string != "" else { return nil }
        if let word = field.value.string {
            guard word == "json" else { throw field.unexpected("\"json\" or a schema") }
            return OutputForm(field: field.path, source: .anyObject)
        }
        return try schemaForm(field, isStrict: true)
    }

    private static func schemaForm(_ field: JSONField, isStrict: Bool, isCompact: Bool = false) throws -> OutputForm {
        guard field.value.object != nil || field.value.bool != nil else { throw field.unexpected("a schema") }
        return OutputForm(field: field.path, source: .schema(field.value, isStrict: isStrict, isCompact: isCompact))
    }
}
