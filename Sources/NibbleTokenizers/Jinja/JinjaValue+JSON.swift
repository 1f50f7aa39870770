extension JinjaValue {
    /// Reads JSON text. Objects keep the order of their keys; a repeated key keeps its first place and last value.
    /// Numbers without fraction and exponent are integers, as in Python.
    /// - Throws: `JinjaError` (`json`) for text that is not JSON, integers outside 64 bits, and more than 200 nested levels.
    public init(json text: String) throws {
        var reader = JinjaJSONReader(bytes: Array(text.utf8))
        self = try reader.readDocument()
    }
}

private struct JinjaJSONReader {
    let bytes: [UInt8]
    private var position = 0
    private static let maximumDepth = 200

    init(bytes: [UInt8]) { self.bytes = bytes }

    mutating func readDocument() throws -> JinjaValue {
        let value = try readValue(depth: 0)
        skipSpaces()
        guard position == bytes.count else { throw unexpected("the end of the text") }
        return value
    }

    private var current: UInt8? { position < bytes.count ? bytes[position] : nil }

    private func unexpected(_ expected: String) -> JinjaError {
        let found = current.map { $0 < 0x80 ? "'\(Character(Unicode.Scalar($0)))'" : "byte \($0)" } ?? "the end of the text"
        return JinjaError(.json(offset: position, expected: expected, found: found))
    }

    private mutating func skipSpaces() {
        while let byte = current, byte == 32 || byte == 10 || byte == 13 || byte == 9 { position += 1 }
    }

    private mutating func skip(_ character: Unicode.Scalar) -> Bool {
        skipSpaces()
        guard let byte = current, UInt32(byte) == character.value else { return false }
        position += 1
        return true
    }

    private mutating func readValue(depth: Int) throws -> JinjaValue {
        guard depth <= Self.maximumDepth else {
            throw JinjaError(.json(offset: position, expected: "at most \(Self.maximumDepth) nested levels", found: "more"))
        }
        skipSpaces()
        switch current {
        case UInt8(ascii: "{"): return try readObject(depth: depth)
        case UInt8(ascii: "["): return try readArray(depth: depth)
        case UInt8(ascii: "\""): return .string(try readString())
        case UInt8(ascii: "t"): return try readWord("true", .bool(true))
        case UInt8(ascii: "f"): return try readWord("false", .bool(false))
        case UInt8(ascii: "n"): return try readWord("null", .null)
        default: return try readNumber()
        }
    }

    private mutating func readWord(_ word: String, _ value: JinjaValue) throws -> JinjaValue {
        guard bytes[position...].starts(with: word.utf8) else { throw unexpected("'\(word)'") }
        position += word.utf8.count
        return value
    }

    private mutating func readArray(depth: Int) throws -> JinjaValue {
        position += 1
        var items: [JinjaValue] = []
        if skip("]") { return .list(items) }
        repeat { items.append(try readValue(depth: depth + 1)) } while skip(",")
        guard skip("]") else { throw unexpected("',' or ']'") }
        return .list(items)
    }

    private mutating func readObject(depth: Int) throws -> JinjaValue {
        position += 1
        var object = JinjaObject()
        if skip("}") { return .object(object) }
        repeat {
            skipSpaces()
            guard current == UInt8(ascii: "\"") else { throw unexpected("a key in quotes") }
            let key = try readString()
            guard skip(":") else { throw unexpected("':'") }
            object[key] = try readValue(depth: depth + 1)
        } while skip(",")
        guard skip("}") else { throw unexpected("',' or '}'") }
        return .object(object)
    }

    private mutating func readNumber() throws -> JinjaValue {
        let start = position
        func isDigit(_ byte: UInt8?) -> Bool { byte.map { (48...57).contains($0) } ?? false }
        if current == UInt8(ascii: "-") { position += 1 }
        guard isDigit(current) else { throw unexpected("a value") }
        if current == 48 { position += 1 } else { while isDigit(current) { position += 1 } }
        var isInteger = true
        if current == UInt8(ascii: ".") {
            isInteger = false
            position += 1
            guard isDigit(current) else { throw unexpected("a digit") }
            while isDigit(current) { position += 1 }
        }
        if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
            isInteger = false
            position += 1
            if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { position += 1 }
            guard isDigit(current) else { throw unexpected("a digit") }
            while isDigit(current) { position += 1 }
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isInteger, let number = Int(text) { return .int(number) }
        if !isInteger, let number = Double(text) { return .double(number) }
        throw JinjaError(.json(offset: start, expected: "a number of 64 bits", found: text))
    }

    private mutating func readString() throws -> String {
        position += 1
        var result: [UInt8] = []
        while let byte = current {
            position += 1
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: result, as: UTF8.self)
            case UInt8(ascii: "\\"): try readEscape(into: &result)
            case 0..<32:
                position -= 1
                throw unexpected("an escape for a control character")
            default: result.append(byte)
            }
        }
        throw unexpected("'\"'")
    }

    private mutating func readEscape(into result: inout [UInt8]) throws {
        let letter = current
        position += 1
        switch letter {
        case UInt8(ascii: "n"): result.append(10)
        case UInt8(ascii: "t"): result.append(9)
        case UInt8(ascii: "r"): result.append(13)
        case UInt8(ascii: "b"): result.append(8)
        case UInt8(ascii: "f"): result.append(12)
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): result.append(letter ?? 0)
        case UInt8(ascii: "u"):
            var code = try readHex()
            if (0xD800..<0xDC00).contains(code), bytes[position...].starts(with: "\\u".utf8) {
                let place = position
                position += 2
                let low = try readHex()
                if (0xDC00..<0xE000).contains(low) {
                    code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
                } else {
                    position = place
                }
            }
            // A lone surrogate is no character; Swift's strings cannot hold one.
            result += Array(String(Unicode.Scalar(code) ?? "\u{FFFD}").utf8)
        default:
            position -= 1
            throw unexpected("an escape")
        }
    }

    private mutating func readHex() throws -> UInt32 {
        let end = min(position + 4, bytes.count)
        let text = String(decoding: bytes[position..<end], as: UTF8.self)
        guard text.utf8.count == 4, text.allSatisfy(\.isHexDigit), let code = UInt32(text, radix: 16) else {
            throw unexpected("four hexadecimal digits")
        }
        position = end
        return code
    }
}
