/// `tojson`: Python's `json.dumps` with `ensure_ascii=False` unless asked for.
enum JinjaJSON {
    struct Style {
        var isASCII = false
        var indentation: String?
        var itemSeparator = ", "
        var keySeparator = ": "
        var sortsKeys = false

        init(_ arguments: JinjaArguments) throws {
            let given = try arguments.bound(to: "tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])
            isASCII = given[0]?.isTruthy ?? false
            sortsKeys = given[3]?.isTruthy ?? false
            if case .string(let text)? = given[1] { indentation = text }
            if let width = given[1]?.integer { indentation = String(repeating: " ", count: max(0, min(width, 1000))) }
            if indentation != nil { itemSeparator = "," }
            guard let separators = given[2], !separators.isNull else { return }
            guard case .tuple(let pair) = separators, pair.count == 2, case .string(let item) = pair[0],
                case .string(let key) = pair[1]
            else {
                throw JinjaError(.type(expected: "a tuple of two strings as separators", found: separators.typeName))
            }
            (itemSeparator, keySeparator) = (item, key)
        }
    }

    static func text(_ value: JinjaValue, _ style: Style, _ interpreter: JinjaInterpreter) throws -> String {
        var writer = JinjaJSONWriter(style: style, interpreter: interpreter)
        try writer.write(value, level: 0)
        return String(decoding: writer.result, as: UTF8.self)
    }
}

private struct JinjaJSONWriter {
    let style: JinjaJSON.Style
    let interpreter: JinjaInterpreter
    private(set) var result: [UInt8] = []

    init(style: JinjaJSON.Style, interpreter: JinjaInterpreter) {
        self.style = style
        self.interpreter = interpreter
    }

    mutating func write(_ value: JinjaValue, level: Int) throws {
        try interpreter.charge(16)
        switch value {
        case .null: result += "null".utf8
        case .bool(let flag): result += (flag ? "true" : "false").utf8
        case .int(let number): result += String(number).utf8
        case .double(let number): result += Self.text(number).utf8
        case .string(let text): try writeString(text)
        case .array(let items), .tuple(let items):
            try writeItems(items.elements, "[", "]", level: level) { try $0.write($1, level: level + 1) }
        case .object(let object): try write(object, level: level)
        case .undefined, .opaque:
            throw JinjaError(.type(expected: "a value that JSON can hold", found: value.typeName))
        }
        if result.count > interpreter.limits.outputBytes { try interpreter.charge(text: result.count) }
    }

    private mutating func write(_ object: JinjaObject, level: Int) throws {
        var pairs = Array(zip(object.keys, object.values))
        if style.sortsKeys { try pairs.sort { try JinjaOperators.precedes($0.0, $1.0, interpreter) } }
        try writeItems(pairs, "{", "}", level: level) { writer, pair in
            try writer.writeString(try writer.key(pair.0))
            writer.result += writer.style.keySeparator.utf8
            try writer.write(pair.1, level: level + 1)
        }
    }

    private mutating func writeItems<Item>(
        _ items: [Item], _ open: String, _ close: String, level: Int, _ write: (inout JinjaJSONWriter, Item) throws -> Void
    ) throws {
        result += open.utf8
        for (index, item) in items.enumerated() {
            if index > 0 { result += style.itemSeparator.utf8 }
            breakLine(level + 1)
            try write(&self, item)
        }
        if !items.isEmpty { breakLine(level) }
        result += close.utf8
    }

    private mutating func breakLine(_ level: Int) {
        guard let indentation = style.indentation else { return }
        result += ("\n" + String(repeating: indentation, count: level)).utf8
    }

    private func key(_ value: JinjaValue) throws -> String {
        switch value {
        case .string(let text): text
        case .int(let number): String(number)
        case .double(let number): Self.text(number)
        case .bool(let flag): flag ? "true" : "false"
        case .null: "null"
        default: throw JinjaError(.type(expected: "a plain value as a JSON key", found: value.typeName))
        }
    }

    private static func text(_ number: Double) -> String {
        number.isFinite ? PythonNumber.text(number) : number.isNaN ? "NaN" : number < 0 ? "-Infinity" : "Infinity"
    }

    private mutating func writeString(_ text: String) throws {
        try interpreter.charge(text: text.utf8.count)
        result.append(UInt8(ascii: "\""))
        if style.isASCII, !text.utf8.allSatisfy({ $0 < 0x7F }) {
            try interpreter.charge(16 * text.utf8.count)
            for unit in text.utf16 {
                if unit < 0x7F { writeByte(UInt8(unit)) } else { result += Self.escape(unit).utf8 }
            }
        } else {
            for byte in text.utf8 { writeByte(byte) }
        }
        result.append(UInt8(ascii: "\""))
    }

    private mutating func writeByte(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "\""): result += "\\\"".utf8
        case UInt8(ascii: "\\"): result += "\\\\".utf8
        case 10: result += "\\n".utf8
        case 13: result += "\\r".utf8
        case 9: result += "\\t".utf8
        case 8: result += "\\b".utf8
        case 12: result += "\\f".utf8
        case 0..<32: result += Self.escape(UInt16(byte)).utf8
        default: result.append(byte)
        }
    }

    private static func escape(_ unit: UInt16) -> String {
        let hex = String(unit, radix: 16)
        return "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
    }
}
