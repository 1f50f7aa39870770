/// Walks over a JSON text, one value at a time.
///
/// ``JSONValue/parse(_:options:)`` is built on it. A reader of a known, large form (the header of a safetensors file) may
/// use it directly and never build values. Every byte access is checked against the end; nesting is bounded.
package struct JSONReader {
    private let bytes: UnsafeRawBufferPointer
    private let options: JSONOptions
    private var position = 0
    private var depth = 0

    /// - Parameter bytes: must outlive the reader.
    package init(_ bytes: UnsafeRawBufferPointer, options: JSONOptions = []) {
        self.bytes = bytes
        self.options = options
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { position = 3 }
    }

    /// Any value.
    package mutating func value() throws -> JSONValue {
        switch peek() {
        case UInt8(ascii: "{"): return try .object(objectValue())
        case UInt8(ascii: "["):
            var elements: [JSONValue] = []
            try array { try elements.append($0.value()) }
            return .array(elements)
        case UInt8(ascii: "\""): return try .string(string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case UInt8(ascii: "N"): return try word("NaN", .double(.nan))
        case UInt8(ascii: "I"): return try word("Infinity", .double(.infinity))
        case let byte? where byte == UInt8(ascii: "-") || isDigit(byte): return try number()
        default: throw error("a value")
        }
    }

    /// Passes over any value without building it.
    package mutating func skip() throws {
        switch peek() {
        case UInt8(ascii: "{"): try object { _, reader in try reader.skip() }
        case UInt8(ascii: "["): try array { try $0.skip() }
        default: _ = try value()
        }
    }

    /// Nothing but white space may follow.
    package mutating func finish() throws {
        if peek() != nil { throw error("the end") }
    }

    /// An object: `member` is called after each key and its colon, and must read exactly one value.
    package mutating func object(_ member: (String, inout JSONReader) throws -> Void) throws {
        try list(open: UInt8(ascii: "{"), close: UInt8(ascii: "}"), named: "an object") { reader in
            let key = try reader.string(expecting: "a key")
            guard reader.peek() == UInt8(ascii: ":") else { throw reader.error("':'") }
            reader.position += 1
            try member(key, &reader)
        }
    }

    /// An array: `element` is called where each element begins, and must read exactly one value.
    package mutating func array(_ element: (inout JSONReader) throws -> Void) throws {
        try list(open: UInt8(ascii: "["), close: UInt8(ascii: "]"), named: "an array", element)
    }

    /// An error at the current place.
    package mutating func error(_ expected: String) -> JSONError {
        let found: String
        switch peek() {
        case nil: found = "the end of the text"
        case let byte? where byte >= 0x20 && byte < 0x7F: found = "'\(Character(UnicodeScalar(byte)))'"
        case let byte?: found = "byte \(byte)"
        }
        return error(at: position, expected, found)
    }
}

// MARK: - Structure

extension JSONReader {
    /// The next byte that is not white space; `nil` at the end.
    private mutating func peek() -> UInt8? {
        while position < bytes.count {
            let byte = bytes[position]
            guard byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 else { return byte }
            position += 1
        }
        return nil
    }

    private mutating func list(
        open: UInt8, close: UInt8, named name: String, _ item: (inout JSONReader) throws -> Void
    ) throws {
        guard peek() == open else { throw error(name) }
        guard depth < JSONValue.maximumDepth else { throw error("at most \(JSONValue.maximumDepth) levels of nesting") }
        depth += 1
        defer { depth -= 1 }
        position += 1
        if peek() == close {
            position += 1
            return
        }
        while true {
            try item(&self)
            let next = peek()
            guard next == close || next == UInt8(ascii: ",") else {
                throw error("',' or '\(Character(UnicodeScalar(close)))'")
            }
            position += 1
            if next == close { return }
        }
    }

    private mutating func objectValue() throws -> JSONObject {
        var members = JSONObject()
        try object { key, reader in
            let start = reader.position
            let value = try reader.value()
            if members.insert(key, value) { return }
            guard !reader.options.contains(.rejectDuplicateKeys) else {
                throw reader.error(at: start, "each key once", "a second \"\(key)\"")
            }
            members[key] = value
        }
        return members
    }

    private mutating func word(_ word: StaticString, _ value: JSONValue) throws -> JSONValue {
        let end = position + word.utf8CodeUnitCount
        let letters = UnsafeRawBufferPointer(start: word.utf8Start, count: word.utf8CodeUnitCount)
        guard end <= bytes.count, bytes[position..<end].elementsEqual(letters) else { throw error("a value") }
        position = end
        return value
    }

    private func error(at offset: Int, _ expected: String, _ found: String) -> JSONError {
        let before = bytes[..<offset]
        let line = before.count { $0 == 0x0A } + 1
        let column = offset - (before.lastIndex(of: 0x0A).map { $0 + 1 } ?? 0) + 1
        return .syntax(file: nil, line: line, column: column, expected: expected, found: found)
    }
}

// MARK: - Strings

extension JSONReader {
    package mutating func string() throws -> String { try string(expecting: "a string") }

    private mutating func string(expecting expected: String) throws -> String {
        guard peek() == UInt8(ascii: "\"") else { throw error(expected) }
        position += 1
        let start = position
        skipPlainCharacters()
        if position < bytes.count, bytes[position] == UInt8(ascii: "\"") {
            defer { position += 1 }
            return try text(bytes[start..<position], at: start)
        }
        position = start
        return try escapedString()
    }

    /// Stops at a quote, a backslash, a control character or the end.
    private mutating func skipPlainCharacters() {
        while position < bytes.count {
            let byte = bytes[position]
            if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") || byte < 0x20 { return }
            position += 1
        }
    }

    private mutating func escapedString() throws -> String {
        let begin = position
        var units: [UInt8] = []
        while true {
            let start = position
            skipPlainCharacters()
            units.append(contentsOf: bytes[start..<position])
            guard position < bytes.count else { throw error("the closing '\"'") }
            switch bytes[position] {
            case UInt8(ascii: "\""):
                position += 1
                return try units.withUnsafeBytes { try text($0[...], at: begin) }
            case UInt8(ascii: "\\"):
                position += 1
                try appendEscape(to: &units)
            case let control:
                throw error(at: position, "an escaped control character", "byte \(control)")
            }
        }
    }

    private mutating func appendEscape(to units: inout [UInt8]) throws {
        guard position < bytes.count else { throw error("an escape") }
        let letter = bytes[position]
        position += 1
        switch letter {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): units.append(letter)
        case UInt8(ascii: "b"): units.append(0x08)
        case UInt8(ascii: "f"): units.append(0x0C)
        case UInt8(ascii: "n"): units.append(0x0A)
        case UInt8(ascii: "r"): units.append(0x0D)
        case UInt8(ascii: "t"): units.append(0x09)
        case UInt8(ascii: "u"): try units.append(contentsOf: String(unicodeEscape()).utf8)
        default:
            position -= 1
            throw error("one of \" \\ / b f n r t u after '\\'")
        }
    }

    /// The scalar of `\uXXXX`, after the `u`; a pair of surrogates is one scalar, a lone one becomes U+FFFD.
    private mutating func unicodeEscape() throws -> Character {
        let first = try fourHexDigits()
        if (0xD800..<0xDC00).contains(first), position + 1 < bytes.count,
            bytes[position] == UInt8(ascii: "\\"), bytes[position + 1] == UInt8(ascii: "u")
        {
            let rewind = position
            position += 2
            let second = try fourHexDigits()
            if (0xDC00..<0xE000).contains(second),
                let scalar = UnicodeScalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
            {
                return Character(scalar)
            }
            position = rewind
        }
        return Character(UnicodeScalar(first) ?? "\u{FFFD}")
    }

    private mutating func fourHexDigits() throws -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            let digit = position < bytes.count ? UInt32(hexDigit: bytes[position]) : nil
            guard let digit else { throw error("four hexadecimal digits") }
            value = value << 4 | digit
            position += 1
        }
        return value
    }

    private func text(_ units: Slice<UnsafeRawBufferPointer>, at start: Int) throws -> String {
        let buffer = UnsafeRawBufferPointer(rebasing: units).assumingMemoryBound(to: UInt8.self)
        guard let text = String(validating: buffer, as: UTF8.self) else { throw error(at: start, "UTF-8", "bytes that are not") }
        return text
    }
}

extension UInt32 {
    fileprivate init?(hexDigit: UInt8) {
        switch hexDigit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): self = UInt32(hexDigit - UInt8(ascii: "0"))
        case UInt8(ascii: "a")...UInt8(ascii: "f"): self = UInt32(hexDigit - UInt8(ascii: "a") + 10)
        case UInt8(ascii: "A")...UInt8(ascii: "F"): self = UInt32(hexDigit - UInt8(ascii: "A") + 10)
        default: return nil
        }
    }
}

// MARK: - Numbers

extension JSONReader {
    /// A whole number that fits.
    package mutating func integer() throws -> Int {
        guard let first = peek(), first == UInt8(ascii: "-") || isDigit(first) else { throw error("a whole number") }
        let start = position
        guard case .int(let value) = try number() else { throw error(at: start, "a whole number", "another number") }
        return value
    }

    private func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }

    /// Digits at the current position, gathered into `value` as long as they fit.
    private mutating func digits(into value: inout Int, fits: inout Bool) throws -> Int {
        let start = position
        while position < bytes.count, isDigit(bytes[position]) {
            let (tenfold, tooLarge) = value.multipliedReportingOverflow(by: 10)
            let (sum, overflow) = tenfold.addingReportingOverflow(Int(bytes[position] - UInt8(ascii: "0")))
            if tooLarge || overflow { fits = false } else { value = sum }
            position += 1
        }
        guard position > start else { throw error("a digit") }
        return position - start
    }

    private mutating func number() throws -> JSONValue {
        let start = position
        let negative = bytes[position] == UInt8(ascii: "-")
        if negative { position += 1 }
        if negative, position < bytes.count, bytes[position] == UInt8(ascii: "I") {
            return try word("Infinity", .double(-.infinity))
        }
        var mantissa = 0
        var fits = true
        let leading = position
        let whole = try digits(into: &mantissa, fits: &fits)
        if whole > 1, bytes[leading] == UInt8(ascii: "0") {
            throw error(at: leading, "a number without leading zeros", "'0' before another digit")
        }
        var fraction = 0
        var isWhole = true
        if position < bytes.count, bytes[position] == UInt8(ascii: ".") {
            position += 1
            isWhole = false
            fraction = try digits(into: &mantissa, fits: &fits)
        }
        var exponent = 0
        var exponentFits = true
        if position < bytes.count, bytes[position] | 0x20 == UInt8(ascii: "e") {
            isWhole = false
            try readExponent(into: &exponent, fits: &exponentFits)
        }
        if isWhole, fits { return .int(negative ? -mantissa : mantissa) }
        let scale = exponentFits ? exponent.subtractingReportingOverflow(fraction).partialValue : .max
        if fits, exponentFits, mantissa <= 1 << 53, let power = Self.exactPowers[safely: scale.magnitude] {
            let value = scale < 0 ? Double(mantissa) / power : Double(mantissa) * power
            return .double(negative ? -value : value)
        }
        return .double(slowDouble(bytes[start..<position]))
    }

    private mutating func readExponent(into exponent: inout Int, fits: inout Bool) throws {
        position += 1
        var negative = false
        if position < bytes.count, bytes[position] == UInt8(ascii: "-") || bytes[position] == UInt8(ascii: "+") {
            negative = bytes[position] == UInt8(ascii: "-")
            position += 1
        }
        _ = try digits(into: &exponent, fits: &fits)
        if negative { exponent = -exponent }
    }

    /// Correctly rounded, for the rare numbers that one multiplication or division does not round correctly.
    private func slowDouble(_ digits: Slice<UnsafeRawBufferPointer>) -> Double {
        let text = String(decoding: digits, as: UTF8.self)
        // Overflow gives infinity and underflow zero, as in Python.
        return Double(text) ?? .nan
    }

    private static let exactPowers: [Double] = [
        1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
        1e21, 1e22,
    ]
}

extension Array {
    fileprivate subscript(safely index: UInt) -> Element? { index < UInt(count) ? self[Int(index)] : nil }
}
