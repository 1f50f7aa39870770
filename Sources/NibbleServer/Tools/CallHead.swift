import NibbleCore

/// The beginning of a call: everything before its arguments.
enum CallHead: Equatable {
    /// More text is needed.
    case incomplete
    /// This is no call.
    case invalid
    /// The arguments begin at this offset.
    case found(name: String, arguments: Int)
    /// A call whose arguments came before its name, or that has none. It ends at this offset.
    case whole(name: String, arguments: String, end: Int)
}

extension CallHead {
    /// Longest text before the arguments.
    static let limit = 1 << 16

    /// Reads `{"name": …, "arguments": …}`; `parameters` means the same, other members are skipped.
    init(object bytes: [UInt8]) {
        var scanner = JSONScanner(bytes)
        do throws(JSONScanner.Stop) {
            self = try Self.object(&scanner, bytes)
        } catch {
            self = error == .incomplete && bytes.count <= Self.limit ? .incomplete : .invalid
        }
    }

    private static func object(_ scanner: inout JSONScanner, _ bytes: [UInt8]) throws(JSONScanner.Stop) -> CallHead {
        var name: String?
        var arguments: Range<Int>?
        try scanner.expect(UInt8(ascii: "{"))
        while true {
            let key = try scanner.text()
            try scanner.expect(UInt8(ascii: ":"))
            try scanner.skipSpace()
            switch key {
            case "name": name = try scanner.text()
            case "arguments", "parameters":
                if let name, scanner.peek == UInt8(ascii: "{") { return .found(name: name, arguments: scanner.position) }
                arguments = try scanner.value()
            default: _ = try scanner.value()
            }
            try scanner.skipSpace()
            guard let next = scanner.peek else { throw .incomplete }
            scanner.position += 1
            if next == UInt8(ascii: ",") { continue }
            guard next == UInt8(ascii: "}"), let name else { throw .invalid }
            let text = arguments.map { Self.text(of: bytes[$0]) } ?? "{}"
            guard let text else { throw .invalid }
            return .whole(name: name, arguments: text, end: scanner.position)
        }
    }

    /// Arguments may be an object, or a string that holds the text of one.
    private static func text(of bytes: ArraySlice<UInt8>) -> String? {
        switch bytes.first {
        case UInt8(ascii: "{"): String(decoding: bytes, as: UTF8.self)
        case UInt8(ascii: "\""): (try? JSONValue.parse(bytes))?.string
        default: bytes.elementsEqual("null".utf8) ? "{}" : nil
        }
    }

    /// Reads `name[ARGS]{…}` or `name{…}`.
    init(nameFirst bytes: [UInt8]) {
        let mark = Array("[ARGS]".utf8)
        guard let end = bytes.firstIndex(where: { $0 == UInt8(ascii: "[") || $0 == UInt8(ascii: "{") }) else {
            self = bytes.count < 256 ? .incomplete : .invalid
            return
        }
        let name = String(decoding: bytes[..<end], as: UTF8.self).filter { !$0.isWhitespace }
        guard !name.isEmpty else {
            self = .invalid
            return
        }
        if bytes[end] == UInt8(ascii: "{") {
            self = .found(name: name, arguments: end)
        } else if bytes[end...].starts(with: mark) {
            let rest = bytes[(end + mark.count)...].drop { $0 == 0x20 || $0 == 0x0A }
            self =
                rest.isEmpty
                ? .incomplete : rest.first == UInt8(ascii: "{") ? .found(name: name, arguments: rest.startIndex) : .invalid
        } else {
            // `[CALL_ID]…` of newer templates stands between name and arguments.
            let text = String(decoding: bytes[end...], as: UTF8.self)
            let isOpen = "[CALL_ID]".hasPrefix(text.prefix(9)) || "[ARGS]".hasPrefix(text.prefix(6))
            guard isOpen, bytes.count < 512 else {
                self = .invalid
                return
            }
            guard let range = text.range(of: "[ARGS]"), let brace = text[range.upperBound...].first else {
                self = .incomplete
                return
            }
            let offset = end + text.utf8.distance(from: text.startIndex, to: range.upperBound)
            self = brace == "{" ? .found(name: name, arguments: offset) : .invalid
        }
    }
}

/// Reads JSON text of which the end may not have come yet.
struct JSONScanner {
    enum Stop: Error { case incomplete, invalid }

    let bytes: [UInt8]
    var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var peek: UInt8? { position < bytes.count ? bytes[position] : nil }

    mutating func skipSpace() throws(Stop) {
        while let byte = peek, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { position += 1 }
        if peek == nil { throw .incomplete }
    }

    mutating func expect(_ byte: UInt8) throws(Stop) {
        try skipSpace()
        guard peek == byte else { throw .invalid }
        position += 1
    }

    /// A string's text.
    mutating func text() throws(Stop) -> String {
        try skipSpace()
        let start = position
        try skipString()
        guard let text = (try? JSONValue.parse(bytes[start..<position]))?.string else { throw .invalid }
        return text
    }

    private mutating func skipString() throws(Stop) {
        guard peek == UInt8(ascii: "\"") else { throw .invalid }
        position += 1
        while let byte = peek {
            position += byte == UInt8(ascii: "\\") ? 2 : 1
            if byte == UInt8(ascii: "\"") { return }
        }
        throw .incomplete
    }

    /// Where a whole value lies.
    mutating func value() throws(Stop) -> Range<Int> {
        try skipSpace()
        let start = position
        var extent = JSONExtent()
        while let byte = peek {
            if let ends = extent.take(byte) {
                if ends { position += 1 }
                return start..<position
            }
            position += 1
        }
        throw .incomplete
    }
}

/// Finds the end of a JSON value byte by byte.
struct JSONExtent: Sendable {
    private var depth = 0
    private var isInString = false
    private var isEscaped = false

    /// Takes the next byte. `true`: the value ends with it; `false`: the value has ended before it; `nil`: it goes on.
    mutating func take(_ byte: UInt8) -> Bool? {
        if isInString {
            if isEscaped {
                isEscaped = false
            } else if byte == UInt8(ascii: "\\") {
                isEscaped = true
            } else if byte == UInt8(ascii: "\"") {
                isInString = false
                return depth == 0 ? true : nil
            }
            return nil
        }
        switch byte {
        case UInt8(ascii: "\""): isInString = true
        case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
        case UInt8(ascii: "}"), UInt8(ascii: "]"):
            if depth == 0 { return false }
            depth -= 1
            return depth == 0 ? true : nil
        case UInt8(ascii: ","), UInt8(ascii: ":"), 0x20, 0x0A, 0x0D, 0x09:
            if depth == 0 { return false }
        default: break
        }
        return nil
    }
}
