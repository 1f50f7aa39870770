extension JSONReader {
    /// A string. A surrogate without its pair becomes U+FFFD.
    package mutating func string() throws -> String { try string(expecting: "a string") }

    /// Appends the UTF-8 of a string to `text`.
    package mutating func string(into text: inout [UInt8]) throws { try string(into: &text, expecting: "a string") }

    mutating func string(expecting expected: String) throws -> String {
        let start = try openingQuote(expected)
        skipPlainCharacters()
        if position < end, bytes[position] == UInt8(ascii: "\"") {
            defer { position += 1 }
            return try text(bytes[start..<position], at: start)
        }
        position = start
        var units: [UInt8] = []
        try contents(into: &units)
        return try units.withUnsafeBytes { try text($0[...], at: start) }
    }

    mutating func string(into text: inout [UInt8], expecting expected: String) throws {
        let start = try openingQuote(expected)
        let count = text.count
        try contents(into: &text)
        guard !options.contains(.validUTF8) else { return }
        _ = try text.withUnsafeBytes { try self.text($0[count...], at: start) }
    }

    /// Passes over a string.
    mutating func skipString(expecting expected: String) throws {
        let start = try openingQuote(expected)
        while true {
            skipPlainCharacters()
            guard position < end else { throw error("the closing '\"'") }
            guard bytes[position] != UInt8(ascii: "\"") else { break }
            try escape { _ in }
        }
        if !options.contains(.validUTF8) { _ = try text(bytes[start..<position], at: start) }
        position += 1
    }

    private mutating func openingQuote(_ expected: String) throws -> Int {
        guard peek() == UInt8(ascii: "\"") else { throw error(expected) }
        position += 1
        return position
    }

    /// Stops at a quote, a backslash, a control character or the end.
    @inline(__always)
    private mutating func skipPlainCharacters() {
        var index = position
        while index < end {
            let byte = bytes[index]
            if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") || byte < 0x20 { break }
            index += 1
        }
        position = index
    }

    /// Appends what stands between the quotes, escapes replaced.
    private mutating func contents(into units: inout [UInt8]) throws {
        while true {
            let start = position
            skipPlainCharacters()
            units.append(contentsOf: UnsafeRawBufferPointer(rebasing: bytes[start..<position]))
            guard position < end else { throw error("the closing '\"'") }
            guard bytes[position] != UInt8(ascii: "\"") else { break }
            try escape { units.append(contentsOf: $0.utf8) }
        }
        position += 1
    }

    private mutating func escape(_ write: (Unicode.Scalar) -> Void) throws {
        guard bytes[position] == UInt8(ascii: "\\") else {
            throw error(at: position, "an escaped control character", "byte \(bytes[position])")
        }
        position += 1
        guard position < end else { throw error("an escape") }
        let letter = bytes[position]
        position += 1
        switch letter {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): write(Unicode.Scalar(letter))
        case UInt8(ascii: "b"): write("\u{08}")
        case UInt8(ascii: "f"): write("\u{0C}")
        case UInt8(ascii: "n"): write("\n")
        case UInt8(ascii: "r"): write("\r")
        case UInt8(ascii: "t"): write("\t")
        case UInt8(ascii: "u"): try write(unicodeEscape())
        default:
            position -= 1
            throw error("one of \" \\ / b f n r t u after '\\'")
        }
    }

    /// The scalar of `\uXXXX`, after the `u`. A pair of surrogates is one scalar.
    private mutating func unicodeEscape() throws -> Unicode.Scalar {
        let first = try fourHexDigits()
        if (0xD800..<0xDC00).contains(first), position + 1 < end,
            bytes[position] == UInt8(ascii: "\\"), bytes[position + 1] == UInt8(ascii: "u")
        {
            let rewind = position
            position += 2
            let second = try fourHexDigits()
            if (0xDC00..<0xE000).contains(second),
                let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
            {
                return scalar
            }
            position = rewind
        }
        return Unicode.Scalar(first) ?? "\u{FFFD}"
    }

    private mutating func fourHexDigits() throws -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            let digit = position < end ? UInt32(hexDigit: bytes[position]) : nil
            guard let digit else { throw error("four hexadecimal digits") }
            value = value << 4 | digit
            position += 1
        }
        return value
    }

    private func text(_ units: Slice<UnsafeRawBufferPointer>, at start: Int) throws -> String {
        let buffer = UnsafeRawBufferPointer(rebasing: units).assumingMemoryBound(to: UInt8.self)
        if options.contains(.validUTF8) { return String(decoding: buffer, as: UTF8.self) }
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
