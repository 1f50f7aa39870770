/// How JSON is laid out.
package enum JSONStyle: Sendable {
    /// `{"a":1,"b":[1,2]}`
    case compact
    /// `{"a": 1, "b": [1, 2]}`, as Python's `json.dumps` writes.
    case spaced
    /// One member a line, indented by two, as `json.dumps(…, indent=2)` writes.
    case pretty
}

extension JSONValue {
    /// This value as text.
    /// - Parameters:
    ///   - sortedKeys: members in the order of their keys' code points instead of their own.
    ///   - escapingNonASCII: write `\u00e9` for `é`, as Python does unless told otherwise.
    package func encoded(_ style: JSONStyle = .compact, sortedKeys: Bool = false, escapingNonASCII: Bool = false) -> String {
        var writer = JSONWriter(style: style, sortedKeys: sortedKeys, escapingNonASCII: escapingNonASCII)
        writer.write(self, indent: 0)
        return String(decoding: writer.bytes, as: UTF8.self)
    }
}

private struct JSONWriter {
    let style: JSONStyle
    let sortedKeys: Bool
    let escapingNonASCII: Bool
    var bytes: [UInt8] = []

    mutating func write(_ value: JSONValue, indent: Int) {
        switch value {
        case .null: append("null")
        case .bool(let value): append(value ? "true" : "false")
        case .int(let value): append(String(value))
        case .double(let value): append(Self.text(of: value))
        case .string(let value): write(string: value)
        case .array(let elements):
            writeList(elements, "[", "]", indent: indent) { writer, element in writer.write(element, indent: indent + 1) }
        case .object(let object):
            writeList(ordered(object), "{", "}", indent: indent) { writer, member in
                writer.write(string: member.key)
                writer.append(writer.style == .compact ? ":" : ": ")
                writer.write(member.value, indent: indent + 1)
            }
        }
    }

    private func ordered(_ object: JSONObject) -> [(key: String, value: JSONValue)] {
        guard sortedKeys else { return object.members }
        return object.members.sorted { $0.key.unicodeScalars.lexicographicallyPrecedes($1.key.unicodeScalars) }
    }

    private mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

    private mutating func writeList<Item>(
        _ items: [Item], _ open: String, _ close: String, indent: Int, _ write: (inout JSONWriter, Item) -> Void
    ) {
        append(open)
        for (position, item) in items.enumerated() {
            if position > 0 { append(style == .spaced ? ", " : ",") }
            if style == .pretty { newLine(indent + 1) }
            write(&self, item)
        }
        if style == .pretty, !items.isEmpty { newLine(indent) }
        append(close)
    }

    private mutating func newLine(_ indent: Int) {
        bytes.append(0x0A)
        bytes.append(contentsOf: repeatElement(0x20, count: indent * 2))
    }

    /// The shortest text that reads back as the same number; never without a point or an exponent.
    private static func text(of value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Infinity" : "Infinity" }
        return value.description
    }

    private mutating func write(string: String) {
        bytes.append(UInt8(ascii: "\""))
        if escapingNonASCII {
            for unit in string.utf16 { write(unit: unit) }
        } else {
            for byte in string.utf8 {
                if byte < 0x80 { write(unit: UInt16(byte)) } else { bytes.append(byte) }
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }

    private mutating func write(unit: UInt16) {
        switch unit {
        case 0x22: append("\\\"")
        case 0x5C: append("\\\\")
        case 0x08: append("\\b")
        case 0x09: append("\\t")
        case 0x0A: append("\\n")
        case 0x0C: append("\\f")
        case 0x0D: append("\\r")
        case 0x20..<0x7F: bytes.append(UInt8(unit))
        case 0x7F where !escapingNonASCII: bytes.append(0x7F)
        default:
            let digits = String(unit, radix: 16)
            append("\\u" + String(repeating: "0", count: 4 - digits.count) + digits)
        }
    }
}
