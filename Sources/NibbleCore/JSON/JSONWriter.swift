/// How JSON is laid out.
package struct JSONStyle: Sendable {
    /// What each level of nesting is indented by; `nil` writes everything on one line.
    package var indentation: String?
    package var itemSeparator: String
    package var keySeparator: String
    /// Members in the order of their keys' code points instead of their own.
    package var sortsKeys = false
    /// Writes `\u00e9` for `é`, as Python does unless told otherwise.
    package var escapesNonASCII = false

    package init(indentation: String? = nil, itemSeparator: String, keySeparator: String) {
        self.indentation = indentation
        self.itemSeparator = itemSeparator
        self.keySeparator = keySeparator
    }

    /// `{"a":1,"b":[1,2]}`
    package static let compact = JSONStyle(itemSeparator: ",", keySeparator: ":")
    /// `{"a": 1, "b": [1, 2]}`, as Python's `json.dumps` writes.
    package static let spaced = JSONStyle(itemSeparator: ", ", keySeparator: ": ")
    /// One member a line, indented by two, as `json.dumps(…, indent=2)` writes.
    package static let pretty = JSONStyle(indentation: "  ", itemSeparator: ",", keySeparator: ": ")
}

extension JSONValue {
    /// This value as text.
    /// - Parameters:
    ///   - sortedKeys: members in the order of their keys' code points instead of their own.
    ///   - escapingNonASCII: write `\u00e9` for `é`, as Python does unless told otherwise.
    package func encoded(_ style: JSONStyle = .compact, sortedKeys: Bool = false, escapingNonASCII: Bool = false) -> String {
        var style = style
        if sortedKeys { style.sortsKeys = true }
        if escapingNonASCII { style.escapesNonASCII = true }
        var writer = JSONWriter(style)
        writer.write(self, level: 0)
        return writer.text
    }
}

/// Writes JSON text piece by piece, for values of any type.
package struct JSONWriter {
    package let style: JSONStyle
    private var bytes: [UInt8] = []

    package init(_ style: JSONStyle) { self.style = style }

    package var text: String { String(decoding: bytes, as: UTF8.self) }

    /// Bytes written so far.
    package var count: Int { bytes.count }

    /// Appends text that is JSON already.
    package mutating func write(json text: String) { bytes.append(contentsOf: text.utf8) }

    /// A number as Python writes it: the shortest text that reads back as the same number, never without a point or an
    /// exponent.
    package mutating func write(_ number: Double) {
        write(
            json: number.isFinite ? PythonFloat.text(number) : number.isNaN ? "NaN" : number < 0 ? "-Infinity" : "Infinity")
    }

    /// A string in quotes.
    package mutating func write(_ string: String) {
        bytes.append(UInt8(ascii: "\""))
        if style.escapesNonASCII {
            for unit in string.utf16 { write(unit: unit) }
        } else {
            for byte in string.utf8 {
                switch byte {
                case 0x22, 0x5C, ..<0x20: write(unit: UInt16(byte))
                default: bytes.append(byte)
                }
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }

    /// An array. `write` writes one element.
    /// - Parameter level: how many arrays and objects surround it.
    package mutating func array<Item>(
        _ items: [Item], level: Int, _ write: (inout JSONWriter, Item) throws -> Void
    ) rethrows {
        try list(items, "[", "]", level: level, write)
    }

    /// An object. `write` writes one value; its key is written before.
    package mutating func object<Value>(
        _ members: [(key: String, value: Value)], level: Int, _ write: (inout JSONWriter, Value) throws -> Void
    ) rethrows {
        try list(members, "{", "}", level: level) { writer, member in
            writer.write(member.key)
            writer.write(json: writer.style.keySeparator)
            try write(&writer, member.value)
        }
    }

    private mutating func list<Item>(
        _ items: [Item], _ open: String, _ close: String, level: Int, _ write: (inout JSONWriter, Item) throws -> Void
    ) rethrows {
        self.write(json: open)
        for (position, item) in items.enumerated() {
            if position > 0 { self.write(json: style.itemSeparator) }
            newLine(level + 1)
            try write(&self, item)
        }
        if !items.isEmpty { newLine(level) }
        self.write(json: close)
    }

    private mutating func newLine(_ level: Int) {
        guard let indentation = style.indentation else { return }
        bytes.append(0x0A)
        for _ in 0..<level { bytes.append(contentsOf: indentation.utf8) }
    }

    private mutating func write(unit: UInt16) {
        switch unit {
        case 0x22: write(json: "\\\"")
        case 0x5C: write(json: "\\\\")
        case 0x08: write(json: "\\b")
        case 0x09: write(json: "\\t")
        case 0x0A: write(json: "\\n")
        case 0x0C: write(json: "\\f")
        case 0x0D: write(json: "\\r")
        case 0x20..<0x7F: bytes.append(UInt8(unit))
        case 0x7F where !style.escapesNonASCII: bytes.append(0x7F)
        default:
            let digits = String(unit, radix: 16)
            write(json: "\\u" + String(repeating: "0", count: 4 - digits.count) + digits)
        }
    }
}

extension JSONWriter {
    package mutating func write(_ value: JSONValue, level: Int) {
        switch value {
        case .null: write(json: "null")
        case .bool(let flag): write(json: flag ? "true" : "false")
        case .int(let number): write(json: String(number))
        case .largeInteger(let digits): write(json: digits)
        case .double(let number): write(number)
        case .string(let text): write(text)
        case .array(let elements): array(elements, level: level) { $0.write($1, level: level + 1) }
        case .object(let object): self.object(ordered(object), level: level) { $0.write($1, level: level + 1) }
        }
    }

    private func ordered(_ object: JSONObject) -> [(key: String, value: JSONValue)] {
        style.sortsKeys ? object.members.sorted { $0.key.precedesInBytes($1.key) } : object.members
    }
}
