import NibbleCore

/// `tojson`: Python's `json.dumps` with `ensure_ascii=False` unless asked for.
struct JinjaJSON {
    private let interpreter: JinjaInterpreter

    /// The text of `value`. `arguments` are those of the filter.
    static func text(_ value: JinjaValue, _ arguments: JinjaArguments, _ interpreter: JinjaInterpreter) throws -> String {
        var writer = JSONWriter(try style(arguments))
        try JinjaJSON(interpreter: interpreter).write(value, level: 0, into: &writer)
        return writer.text
    }

    private static func style(_ arguments: JinjaArguments) throws -> JSONStyle {
        let given = try arguments.bound(to: "tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])
        var style = JSONStyle.spaced
        style.escapesNonASCII = given[0]?.isTruthy ?? false
        style.sortsKeys = given[3]?.isTruthy ?? false
        if case .string(let text)? = given[1] { style.indentation = text }
        if let width = given[1]?.integer { style.indentation = String(repeating: " ", count: max(0, min(width, 1000))) }
        if style.indentation != nil { style.itemSeparator = "," }
        guard let separators = given[2], !separators.isNull else { return style }
        let pair = separators.sequence ?? []
        guard pair.count == 2, case .string(let item) = pair[0], case .string(let key) = pair[1] else {
            throw JinjaError(.type(expected: "two strings as separators", found: separators.typeName))
        }
        (style.itemSeparator, style.keySeparator) = (item, key)
        return style
    }

    private func write(_ value: JinjaValue, level: Int, into writer: inout JSONWriter) throws {
        try interpreter.charge(16)
        switch value {
        case .null: writer.write(json: "null")
        case .bool(let flag): writer.write(json: flag ? "true" : "false")
        case .int(let number): writer.write(json: String(number))
        case .bigInteger(let number): writer.write(json: try number.decimalText())
        case .double(let number): writer.write(number)
        case .string(let text):
            try charge(text, writer.style)
            writer.write(text)
        case .array(let items), .tuple(let items):
            try writer.array(items.elements, level: level) { try write($1, level: level + 1, into: &$0) }
        case .object(let object):
            try writer.object(members(of: object, writer.style), level: level) { try write($1, level: level + 1, into: &$0) }
        case .undefined, .opaque:
            throw JinjaError(.type(expected: "a value that JSON can hold", found: value.typeName))
        }
        if writer.count > interpreter.limits.outputBytes { try interpreter.charge(text: writer.count) }
    }

    private func charge(_ text: String, _ style: JSONStyle) throws {
        try interpreter.charge(text: text.utf8.count)
        if style.escapesNonASCII { try interpreter.charge(16 * text.utf8.count) }
    }

    /// The members with their keys as JSON texts. Keys are sorted by their values, not by their texts.
    private func members(of object: JinjaObject, _ style: JSONStyle) throws -> [(key: String, value: JinjaValue)] {
        var pairs = Array(zip(object.keys, object.values))
        if style.sortsKeys { try pairs.sort { try JinjaOperators.precedes($0.0, $1.0, interpreter) } }
        return try pairs.map { (try key($0.0, style), $0.1) }
    }

    private func key(_ value: JinjaValue, _ style: JSONStyle) throws -> String {
        switch value {
        case .string(let text):
            try charge(text, style)
            return text
        case .null, .bool, .int, .bigInteger, .double:
            var writer = JSONWriter(.compact)
            try write(value, level: 0, into: &writer)
            return writer.text
        default: throw JinjaError(.type(expected: "a plain value as a JSON key", found: value.typeName))
        }
    }
}
