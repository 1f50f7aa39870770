/// A JSON value, with the option of leaving named members unread (`raw`: their byte range in the file).
indirect enum JSONTree: Sendable {
    case null
    case bool(Bool)
    case integer(Int)
    case double(Double)
    case string(String)
    case array([JSONTree])
    /// Members in file order; of equal keys the last one counts.
    case object([(key: String, value: JSONTree)])
    case raw(Range<Int>)

    init(from scanner: inout JSONScanner, leavingRaw: Set<String> = [], depth: Int = 0) throws(TokenizerError) {
        guard depth < JSONScanner.maximumDepth else { throw scanner.failure("nested too deeply") }
        guard let first = scanner.peek() else { throw scanner.failure("the text ends where a value should be") }
        switch first {
        case 0x7B: self = .object(try Self.members(&scanner, leavingRaw, depth))
        case 0x5B: self = .array(try Self.elements(&scanner, leavingRaw, depth))
        case 0x22: self = .string(try scanner.string())
        case UInt8(ascii: "t"): self = .bool(try Self.word("true", true, &scanner))
        case UInt8(ascii: "f"): self = .bool(try Self.word("false", false, &scanner))
        case UInt8(ascii: "n"):
            _ = try Self.word("null", true, &scanner)
            self = .null
        case UInt8(ascii: "N"):
            self = .double(try Self.word("NaN", .nan, &scanner))
        case UInt8(ascii: "I"):
            self = .double(try Self.word("Infinity", .infinity, &scanner))
        default: self = try scanner.number()
        }
    }

    /// Parses a whole file.
    ///
    /// - Parameter leavingRaw: names of members whose containers are skipped and kept as `raw`, wherever they stand.
    init(parsing bytes: [UInt8], file: String, leavingRaw: Set<String> = []) throws(TokenizerError) {
        var scanner = JSONScanner(bytes, file: file)
        self = try JSONTree(from: &scanner, leavingRaw: leavingRaw)
        try scanner.expectEnd()
    }

    private static func members(
        _ scanner: inout JSONScanner, _ leavingRaw: Set<String>, _ depth: Int
    ) throws(TokenizerError) -> [(key: String, value: JSONTree)] {
        try scanner.expect(0x7B)
        var members: [(key: String, value: JSONTree)] = []
        if scanner.consume(0x7D) { return members }
        repeat {
            let key = try scanner.string()
            try scanner.expect(0x3A)
            let next = scanner.peek()
            if leavingRaw.contains(key), next == 0x7B || next == 0x5B {
                members.append((key, .raw(try scanner.skipValue())))
            } else {
                members.append((key, try JSONTree(from: &scanner, leavingRaw: leavingRaw, depth: depth + 1)))
            }
        } while try scanner.continues(until: 0x7D)
        return members
    }

    private static func elements(
        _ scanner: inout JSONScanner, _ leavingRaw: Set<String>, _ depth: Int
    ) throws(TokenizerError) -> [JSONTree] {
        try scanner.expect(0x5B)
        var elements: [JSONTree] = []
        if scanner.consume(0x5D) { return elements }
        repeat {
            elements.append(try JSONTree(from: &scanner, leavingRaw: leavingRaw, depth: depth + 1))
        } while try scanner.continues(until: 0x5D)
        return elements
    }

    private static func word<T>(_ word: StaticString, _ value: T, _ scanner: inout JSONScanner) throws(TokenizerError) -> T {
        let length = word.utf8CodeUnitCount
        guard scanner.end - scanner.position >= length else { throw scanner.failure("unknown word") }
        for index in 0..<length where scanner.bytes[scanner.position + index] != word.utf8Start[index] {
            throw scanner.failure("unknown word")
        }
        scanner.position += length
        return value
    }
}

extension JSONTree {
    /// The member `key`, `nil` when absent or null.
    subscript(key: String) -> JSONTree? {
        guard case .object(let members) = self, let value = members.last(where: { $0.key == key })?.value else { return nil }
        if case .null = value { return nil }
        return value
    }

    var stringValue: String? { if case .string(let text) = self { text } else { nil } }
    var boolValue: Bool? { if case .bool(let flag) = self { flag } else { nil } }
    var arrayValue: [JSONTree]? { if case .array(let elements) = self { elements } else { nil } }
    var objectValue: [(key: String, value: JSONTree)]? { if case .object(let members) = self { members } else { nil } }

    var integerValue: Int? {
        switch self {
        case .integer(let value): value
        case .double(let value): Int(exactly: value)
        default: nil
        }
    }

    var doubleValue: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .double(let value): value
        default: nil
        }
    }

    /// A few words for error messages.
    var summary: String {
        switch self {
        case .null: "null"
        case .bool(let flag): "\(flag)"
        case .integer(let value): "\(value)"
        case .double(let value): "\(value)"
        case .string(let text): "'\(text.prefix(60))'"
        case .array: "a list"
        case .object: "an object"
        case .raw: "a list or an object"
        }
    }
}

/// A value in a file together with the path that leads to it, so that errors can name the field.
struct JSONField {
    let value: JSONTree
    let file: String
    let path: String

    func child(_ key: String) -> JSONField? {
        value[key].map { JSONField(value: $0, file: file, path: path.isEmpty ? key : "\(path).\(key)") }
    }

    func required(_ key: String) throws(TokenizerError) -> JSONField {
        guard let child = child(key) else {
            throw .missingField(file: file, field: path.isEmpty ? key : "\(path).\(key)")
        }
        return child
    }

    func invalid(expected: String) -> TokenizerError {
        .invalidField(file: file, field: path, expected: expected, found: value.summary)
    }

    func string() throws(TokenizerError) -> String {
        guard let text = value.stringValue else { throw invalid(expected: "a string") }
        return text
    }

    func bool() throws(TokenizerError) -> Bool {
        guard let flag = value.boolValue else { throw invalid(expected: "true or false") }
        return flag
    }

    func integer(in range: ClosedRange<Int>) throws(TokenizerError) -> Int {
        guard let number = value.integerValue, range.contains(number) else {
            throw invalid(expected: "a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    func tokenID() throws(TokenizerError) -> Int32 { Int32(try integer(in: 0...TokenTable.maximumID)) }

    func double() throws(TokenizerError) -> Double {
        guard let number = value.doubleValue else { throw invalid(expected: "a number") }
        return number
    }

    func elements() throws(TokenizerError) -> [JSONField] {
        guard let elements = value.arrayValue else { throw invalid(expected: "a list") }
        return elements.enumerated().map { JSONField(value: $1, file: file, path: "\(path)[\($0)]") }
    }

    func members() throws(TokenizerError) -> [(key: String, field: JSONField)] {
        guard let members = value.objectValue else { throw invalid(expected: "an object") }
        return members.map { ($0.key, JSONField(value: $0.value, file: file, path: "\(path).\($0.key)")) }
    }

    func flag(_ key: String, default fallback: Bool) throws(TokenizerError) -> Bool {
        try child(key)?.bool() ?? fallback
    }

    func text(_ key: String) throws(TokenizerError) -> String { try required(key).string() }

    func unsupported(_ found: String) -> TokenizerError { .unsupported(file: file, field: path, found: found) }
}
