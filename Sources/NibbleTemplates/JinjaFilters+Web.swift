import Foundation
import NibbleCore

/// Filters made for web pages. Nothing is escaped in chat templates, so what Jinja marks as safe is an ordinary string here.
extension JinjaFilters {
    static let web: [String: Filter] = [
        "escape": escaped, "e": escaped, "forceescape": escaped,
        "urlencode": { interpreter, value, _ in
            let isOne = if case .string = value { true } else { (try? interpreter.elements(of: value)) == nil }
            if isOne { return try interpreter.string(try quoted(value, isQuery: false, interpreter)) }
            var pairs = try interpreter.elements(of: value)
            if case .object(let object) = value { pairs = object.items }
            let parts = try pairs.map { pair in
                let items = try interpreter.elements(of: pair)
                guard items.count == 2 else { throw JinjaError(.type(expected: "pairs", found: "\(items.count) values")) }
                return try quoted(items[0], isQuery: true, interpreter) + "=" + quoted(items[1], isQuery: true, interpreter)
            }
            return try interpreter.string(parts.joined(separator: "&"))
        },
        "striptags": { interpreter, value, _ in
            let text = try interpreter.text(of: value)
            try interpreter.charge(32 * text.utf8.count)
            let plain = try removed(from: removed(from: text, "<!--", "-->", interpreter), "<", ">", interpreter)
            let words = PythonText.splitAtSpaces(plain, maximum: -1, fromRight: false)
            return try interpreter.string(unescaped(words.joined(separator: " ")))
        },
        "xmlattr": { interpreter, value, arguments in
            let given = try arguments.bound(to: "xmlattr", ["autospace"])
            if case .undefined(let undefined) = value { throw undefined.error }
            guard case .object(let object) = value else {
                throw JinjaError(.type(expected: "a dictionary for xmlattr", found: value.typeName))
            }
            var parts: [String] = []
            for (key, value) in zip(object.keys, object.values) where !value.isNull && !value.isUndefined {
                let name = try interpreter.text(of: key)
                guard !name.unicodeScalars.contains(where: { PythonText.isSpace($0) || "/>=".unicodeScalars.contains($0) }) else {
                    throw JinjaError(.arguments(function: "xmlattr", problem: "invalid character in the name '\(name)'"))
                }
                parts.append("\(escape(name))=\"\(escape(try interpreter.text(of: value)))\"")
            }
            let space = (given[0]?.isTruthy ?? true) && !parts.isEmpty ? " " : ""
            return try interpreter.string(space + parts.joined(separator: " "))
        },
        "filesizeformat": { _, value, arguments in
            let given = try arguments.bound(to: "filesizeformat", ["binary"])
            var number = try value.floatingPoint()
            if case .string(let text) = value { number = PythonNumber.double(text) }
            if case .undefined(let undefined) = value { throw undefined.error }
            guard let number else { throw JinjaError(.type(expected: "a size in bytes", found: value.typeName)) }
            return .string(try size(number, binary: given[0]?.isTruthy ?? false))
        },
    ]

    private static let escaped: Filter = { interpreter, value, _ in
        let text = try interpreter.text(of: value)
        try interpreter.charge(16 * text.utf8.count)
        return try interpreter.string(escape(text))
    }

    private static func escape(_ text: String) -> String {
        let entities: [Unicode.Scalar: String] = ["&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&#39;", "\"": "&#34;"]
        var result = ""
        for scalar in text.unicodeScalars { result += entities[scalar] ?? String(scalar) }
        return result
    }

    /// Percent encoding of UTF-8. In queries `/` is encoded too, and a space is `+`.
    private static func quoted(_ value: JinjaValue, isQuery: Bool, _ interpreter: JinjaInterpreter) throws -> String {
        let text = try interpreter.text(of: value)
        try interpreter.charge(text: 3 * text.utf8.count)
        var result: [UInt8] = []
        for byte in text.utf8 {
            switch byte {
            case 48...57, 65...90, 97...122, UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "~"):
                result.append(byte)
            case UInt8(ascii: "/") where !isQuery: result.append(byte)
            case UInt8(ascii: " ") where isQuery: result.append(UInt8(ascii: "+"))
            default: result += String(format: "%%%02X", Int(byte)).utf8
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// The text without everything from each `open` to the next `close`.
    private static func removed(
        from text: String, _ open: String, _ close: String, _ interpreter: JinjaInterpreter
    ) throws -> String {
        var result = ""
        var rest = text[...]
        while let start = rest.firstByteRange(of: open), let end = rest[start.lowerBound...].firstByteRange(of: close) {
            try interpreter.charge(64)
            result += rest[..<start.lowerBound]
            rest = rest[end.upperBound...]
        }
        return result + rest
    }

    /// Numeric entities and the usual named ones as characters.
    private static func unescaped(_ text: String) -> String {
        let names: [String: Unicode.Scalar] = [
            "amp": "&", "lt": "<", "gt": ">", "quot": "\"", "apos": "'", "nbsp": "\u{A0}", "copy": "\u{A9}", "hellip": "\u{2026}",
        ]
        var result = ""
        var rest = text[...]
        while let start = rest.firstByteRange(of: "&"), let end = rest[start.upperBound...].firstByteRange(of: ";") {
            let name = rest[start.upperBound..<end.lowerBound]
            let code =
                name.hasBytePrefix("#x") || name.hasBytePrefix("#X")
                ? UInt32(name.dropFirst(2), radix: 16) : name.hasBytePrefix("#") ? UInt32(name.dropFirst()) : nil
            guard let scalar = code.flatMap(Unicode.Scalar.init) ?? names[String(name)] else {
                result += rest[..<start.upperBound]
                rest = rest[start.upperBound...]
                continue
            }
            result += rest[..<start.lowerBound]
            result.unicodeScalars.append(scalar)
            rest = rest[end.upperBound...]
        }
        return result + rest
    }

    private static func size(_ number: Double, binary: Bool) throws -> String {
        let base = binary ? 1024.0 : 1000.0
        if number == 1 { return "1 Byte" }
        if number < base { return "\(try BigInteger(truncating: number.isFinite ? number : 0).decimalText()) Bytes" }
        let letters = [binary ? "K" : "k", "M", "G", "T", "P", "E", "Z", "Y"]
        var unit = base
        for letter in letters {
            unit *= base
            if number < unit || letter == "Y" {
                return String(format: "%.1f ", base * number / unit) + letter + (binary ? "iB" : "B")
            }
        }
        return ""
    }
}
