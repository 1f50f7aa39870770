/// A cursor over JSON text in UTF-8.
///
/// Vocabularies run to tens of megabytes, so the big parts are read from the bytes without building a value for every
/// entry. Everything here throws on bad input; nesting is limited by `maximumDepth`.
struct JSONScanner {
    static let maximumDepth = 128

    let bytes: [UInt8]
    let file: String
    var position: Int
    let end: Int

    init(_ bytes: [UInt8], file: String, range: Range<Int>? = nil) {
        self.bytes = bytes
        self.file = file
        let hasMark = range == nil && bytes.starts(with: [0xEF, 0xBB, 0xBF])
        self.position = range?.lowerBound ?? (hasMark ? 3 : 0)
        self.end = range?.upperBound ?? bytes.count
    }

    func failure(_ reason: String) -> TokenizerError {
        .malformedJSON(file: file, offset: position, reason: reason)
    }

    /// The next byte that is not white space, not consumed; `nil` at the end.
    mutating func peek() -> UInt8? {
        while position < end {
            let byte = bytes[position]
            guard byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 else { return byte }
            position += 1
        }
        return nil
    }

    mutating func expect(_ byte: UInt8) throws(TokenizerError) {
        guard let found = peek() else {
            throw failure("the text ends where '\(Character(Unicode.Scalar(byte)))' should be")
        }
        guard found == byte else { throw failure("expected '\(Character(Unicode.Scalar(byte)))'") }
        position += 1
    }

    /// Consumes `byte` if it is next.
    mutating func consume(_ byte: UInt8) -> Bool {
        guard peek() == byte else { return false }
        position += 1
        return true
    }

    /// After an element: whether another follows (`,`) or the container ends with `close`.
    mutating func continues(until close: UInt8) throws(TokenizerError) -> Bool {
        if consume(0x2C) { return true }
        try expect(close)
        return false
    }

    mutating func expectEnd() throws(TokenizerError) {
        if peek() != nil { throw failure("something follows the value") }
    }
}

// MARK: - Strings

extension JSONScanner {
    /// Appends the text of the string literal at the cursor to `out` as UTF-8. Lone surrogates become U+FFFD.
    mutating func string(into out: inout [UInt8]) throws(TokenizerError) {
        try expect(0x22)
        while true {
            let start = position
            var index = position
            var byte: UInt8 = 0
            while index < end {
                byte = bytes[index]
                if byte == 0x22 || byte == 0x5C || byte < 0x20 { break }
                index += 1
            }
            out.append(contentsOf: bytes[start..<index])
            position = index
            guard index < end else { throw failure("the text ends inside a string") }
            position += 1
            if byte == 0x22 { return }
            guard byte == 0x5C else { throw failure("control character inside a string") }
            try escape(into: &out)
        }
    }

    mutating func string() throws(TokenizerError) -> String {
        var out: [UInt8] = []
        try string(into: &out)
        return String(decoding: out, as: UTF8.self)
    }

    private mutating func escape(into out: inout [UInt8]) throws(TokenizerError) {
        guard position < end else { throw failure("the text ends inside an escape") }
        let letter = bytes[position]
        position += 1
        switch letter {
        case 0x22, 0x5C, 0x2F: out.append(letter)
        case UInt8(ascii: "b"): out.append(0x08)
        case UInt8(ascii: "f"): out.append(0x0C)
        case UInt8(ascii: "n"): out.append(0x0A)
        case UInt8(ascii: "r"): out.append(0x0D)
        case UInt8(ascii: "t"): out.append(0x09)
        case UInt8(ascii: "u"): UTF8Text.append(try unicodeEscape(), to: &out)
        default: throw failure("unknown escape")
        }
    }

    private mutating func unicodeEscape() throws(TokenizerError) -> UInt32 {
        let first = try hexQuad()
        guard first & 0xF800 == 0xD800 else { return first }
        let isHigh = first < 0xDC00
        let pairFollows = position + 1 < end && bytes[position] == 0x5C && bytes[position + 1] == UInt8(ascii: "u")
        guard isHigh, pairFollows else { return 0xFFFD }
        let mark = position
        position += 2
        let second = try hexQuad()
        guard second & 0xFC00 == 0xDC00 else {
            position = mark
            return 0xFFFD
        }
        return 0x10000 + (first - 0xD800) << 10 + (second - 0xDC00)
    }

    private mutating func hexQuad() throws(TokenizerError) -> UInt32 {
        guard end - position >= 4 else { throw failure("the text ends inside an escape") }
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = Character(Unicode.Scalar(bytes[position])).hexDigitValue, bytes[position] < 0x80 else {
                throw failure("bad hexadecimal digit in an escape")
            }
            value = value << 4 | UInt32(digit)
            position += 1
        }
        return value
    }
}

// MARK: - Numbers and skipping

extension JSONScanner {
    /// The number at the cursor: exact when it is a whole number that fits, else as a double.
    mutating func number() throws(TokenizerError) -> JSONTree {
        guard let first = peek(), first == 0x2D || (first >= 0x30 && first <= 0x39) else { throw failure("expected a number") }
        let start = position
        var isWhole = true
        while position < end {
            switch bytes[position] {
            case 0x30...0x39, 0x2D: break
            case 0x2B, 0x2E, 0x45, 0x65: isWhole = false
            default:
                return try number(text: start..<position, isWhole: isWhole)
            }
            position += 1
        }
        return try number(text: start..<position, isWhole: isWhole)
    }

    private func number(text range: Range<Int>, isWhole: Bool) throws(TokenizerError) -> JSONTree {
        let text = String(decoding: bytes[range], as: UTF8.self)
        if isWhole, let value = Int(text) { return .integer(value) }
        guard let value = Double(text) else { throw failure("'\(text.prefix(40))' is not a number") }
        return .double(value)
    }

    /// A whole number, or `nil` (cursor unspecified) if the number is fractional or too large.
    mutating func integer() throws(TokenizerError) -> Int? {
        let start = position
        guard let first = peek() else { throw failure("the text ends where a number should be") }
        if first >= 0x30, first <= 0x39 {
            var value = 0
            var index = position
            while index < end, bytes[index] >= 0x30, bytes[index] <= 0x39, index - position < 18 {
                value = value * 10 + Int(bytes[index] - 0x30)
                index += 1
            }
            let next = index < end ? bytes[index] : 0
            if next == 0x2C || next == 0x7D || next == 0x5D || next == 0x0A || next == 0x20 {
                position = index
                return value
            }
        }
        position = start
        if case .integer(let value) = try number() { return value }
        return nil
    }

    /// Moves past the value at the cursor without interpreting it; brackets are only balanced by depth.
    mutating func skipValue() throws(TokenizerError) -> Range<Int> {
        guard let first = peek() else { throw failure("the text ends where a value should be") }
        let start = position
        guard first == 0x7B || first == 0x5B else {
            _ = try JSONTree(from: &self)
            return start..<position
        }
        var depth = 0
        while position < end {
            switch bytes[position] {
            case 0x22:
                skipString()
                continue
            case 0x7B, 0x5B: depth += 1
            case 0x7D, 0x5D: depth -= 1
            default: break
            }
            position += 1
            if depth == 0 { return start..<position }
        }
        throw failure("the text ends inside a container")
    }

    private mutating func skipString() {
        var index = position + 1
        while index < end {
            let byte = bytes[index]
            index += 1
            if byte == 0x22 { break }
            if byte == 0x5C { index += 1 }
        }
        position = min(index, end)
    }
}
