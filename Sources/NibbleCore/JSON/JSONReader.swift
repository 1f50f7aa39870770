/// Walks over a JSON text, one value at a time.
///
/// ``JSONValue/parse(_:options:)`` is built on it. A reader of a known, large form (the header of a safetensors file, the
/// vocabulary of a tokenizer) uses it directly and never builds values. It accepts what RFC 8259 describes, and more only
/// where `JSONOptions` says so. Every byte access is checked against the end; nesting is bounded by
/// ``JSONValue/maximumDepth``.
package struct JSONReader {
    let bytes: UnsafeRawBufferPointer
    let options: JSONOptions
    let end: Int
    package internal(set) var position: Int
    private var depth = 0

    /// - Parameters:
    ///   - bytes: must outlive the reader.
    ///   - range: the part of `bytes` that is read; errors still count lines from the start of `bytes`.
    package init(_ bytes: UnsafeRawBufferPointer, options: JSONOptions = [], range: Range<Int>? = nil) {
        self.bytes = bytes
        self.options = options
        end = range?.upperBound ?? bytes.count
        position = range?.lowerBound ?? (bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? 3 : 0)
    }

    /// Bytes that are not read yet.
    package var remaining: Int { end - position }

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
        case let byte? where byte == UInt8(ascii: "-") || isDigit(byte): return try number()
        case UInt8(ascii: "N") where options.contains(.nonFiniteNumbers): return try word("NaN", .double(.nan))
        case UInt8(ascii: "I") where options.contains(.nonFiniteNumbers): return try word("Infinity", .double(.infinity))
        default: throw error("a value")
        }
    }

    /// Passes over any value without building it.
    /// - Returns: where it stands.
    @discardableResult
    package mutating func skip() throws -> Range<Int> {
        let first = peek()
        let start = position
        switch first {
        case UInt8(ascii: "{"):
            try list(open: UInt8(ascii: "{"), close: UInt8(ascii: "}"), named: "an object") { reader in
                try reader.skipString(expecting: "a key")
                try reader.colon()
                try reader.skip()
            }
        case UInt8(ascii: "["): try array { try $0.skip() }
        case UInt8(ascii: "\""): try skipString(expecting: "a string")
        default: _ = try value()
        }
        return start..<position
    }

    /// Only white space may follow.
    package mutating func finish() throws {
        if peek() != nil { throw error("the end") }
    }

    /// An object. `member` is called after each key and its colon, and must read exactly one value.
    package mutating func object(_ member: (String, inout JSONReader) throws -> Void) throws {
        try list(open: UInt8(ascii: "{"), close: UInt8(ascii: "}"), named: "an object") { reader in
            let key = try reader.string(expecting: "a key")
            try reader.colon()
            do { try member(key, &reader) } catch let error as JSONError { throw error.within(.key(key)) }
        }
    }

    /// An object with many members. `member` gets the bytes of each key, which are valid until it returns.
    package mutating func objectOfBytes(
        _ member: (UnsafeBufferPointer<UInt8>, inout JSONReader) throws -> Void
    ) throws {
        var key: [UInt8] = []
        try list(open: UInt8(ascii: "{"), close: UInt8(ascii: "}"), named: "an object") { reader in
            key.removeAll(keepingCapacity: true)
            try reader.string(into: &key, expecting: "a key")
            try reader.colon()
            do {
                try key.withUnsafeBufferPointer { try member($0, &reader) }
            } catch let error as JSONError {
                throw error.within(String(decoding: key, as: UTF8.self))
            }
        }
    }

    /// An array. `element` is called where each element begins, and must read exactly one value.
    package mutating func array(_ element: (inout JSONReader) throws -> Void) throws {
        var index = 0
        try list(open: UInt8(ascii: "["), close: UInt8(ascii: "]"), named: "an array") { reader in
            do { try element(&reader) } catch let error as JSONError { throw error.within(.index(index)) }
            index += 1
        }
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
    /// The next byte that is not white space, which is not consumed; `nil` at the end.
    package mutating func peek() -> UInt8? {
        while position < end {
            let byte = bytes[position]
            guard byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 else { return byte }
            position += 1
        }
        return nil
    }

    private mutating func colon() throws {
        guard peek() == UInt8(ascii: ":") else { throw error("':'") }
        position += 1
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

    mutating func word(_ word: StaticString, _ value: JSONValue) throws -> JSONValue {
        let after = position + word.utf8CodeUnitCount
        let letters = UnsafeRawBufferPointer(start: word.utf8Start, count: word.utf8CodeUnitCount)
        guard after <= end, bytes[position..<after].elementsEqual(letters) else { throw error("a value") }
        position = after
        return value
    }

    func error(at offset: Int, _ expected: String, _ found: String) -> JSONError {
        let before = bytes[..<offset]
        let line = before.count { $0 == 0x0A } + 1
        let column = offset - (before.lastIndex(of: 0x0A).map { $0 + 1 } ?? 0) + 1
        return .syntax(file: nil, path: "", line: line, column: column, expected: expected, found: found)
    }
}
