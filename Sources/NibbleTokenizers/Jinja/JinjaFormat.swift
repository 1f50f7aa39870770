import Foundation

/// The parts of Python's two string formatting languages that templates use.
enum JinjaFormat {
    // MARK: '%s' % values

    /// `format % values`, for `%s %r %d %i %f %e %g %x %%` with flags, width, precision and `(name)`.
    static func percent(_ format: String, _ values: JinjaValue, _ interpreter: JinjaInterpreter) throws -> String {
        let scalars = Array(format.unicodeScalars)
        var positional: [JinjaValue] = [values]
        if case .tuple(let items) = values { positional = items.elements }
        var used = 0
        var result = ""
        var index = 0
        while index < scalars.count {
            guard scalars[index] == "%" else {
                result.unicodeScalars.append(scalars[index])
                index += 1
                continue
            }
            index += 1
            let specification = try readPercent(scalars, &index)
            if specification.kind == "%" {
                result += "%"
                continue
            }
            let value: JinjaValue
            if let name = specification.name {
                value = try interpreter.element(.string(name), of: values)
            } else {
                guard used < positional.count else { throw problem("not enough values for the format") }
                value = positional[used]
                used += 1
            }
            result += try specification.text(of: value, interpreter)
            try interpreter.charge(text: result.utf8.count)
        }
        if case .tuple = values, used < positional.count { throw problem("too many values for the format") }
        return result
    }

    private static func problem(_ text: String) -> JinjaError { JinjaError(.arguments(function: "format", problem: text)) }

    private static func readPercent(_ scalars: [Unicode.Scalar], _ index: inout Int) throws -> Specification {
        var specification = Specification()
        if index < scalars.count, scalars[index] == "(" {
            guard let end = scalars[index...].firstIndex(of: ")") else { throw problem("')' is missing") }
            specification.name = PythonText.text(scalars[(index + 1)..<end])
            index = end + 1
        }
        while index < scalars.count, "-+0 #".unicodeScalars.contains(scalars[index]) {
            specification.flags.append(Character(scalars[index]))
            index += 1
        }
        specification.width = try readNumber(scalars, &index) ?? 0
        if index < scalars.count, scalars[index] == "." {
            index += 1
            specification.precision = try readNumber(scalars, &index) ?? 0
        }
        guard index < scalars.count else { throw problem("incomplete format") }
        specification.kind = Character(scalars[index])
        index += 1
        return specification
    }

    private static func readNumber(_ scalars: [Unicode.Scalar], _ index: inout Int) throws -> Int? {
        let start = index
        while index < scalars.count, (48...57).contains(scalars[index].value) { index += 1 }
        guard index > start else { return nil }
        guard let number = Int(PythonText.text(scalars[start..<index])), number <= 1000 else {
            throw problem("a width above 1000")
        }
        return number
    }

    /// One conversion of either language.
    struct Specification {
        var name: String?
        var flags = ""
        var fill: Unicode.Scalar = " "
        var align: Unicode.Scalar?
        var width = 0
        var precision: Int?
        var kind: Character = "s"

        func text(of value: JinjaValue, _ interpreter: JinjaInterpreter) throws -> String {
            switch kind {
            case "s": return padded(clipped(try interpreter.text(of: value)), isNumber: false)
            case "r": return padded(clipped(try interpreter.representation(of: value)), isNumber: false)
            case "d", "i", "x", "X":
                guard let number = value.integer ?? value.number.flatMap({ Int(exactly: $0.rounded(.towardZero)) }) else {
                    throw mismatch(value)
                }
                let digits = String(number.magnitude, radix: kind.lowercased() == "x" ? 16 : 10, uppercase: kind == "X")
                return padded(signed(digits, negative: number < 0), isNumber: true)
            case "f", "F", "e", "E", "g", "G":
                guard let number = value.number else { throw mismatch(value) }
                let digits = String(format: "%.\(precision ?? 6)\(kind)", number.magnitude)
                return padded(signed(digits, negative: number.sign == .minus), isNumber: true)
            default: throw problem("unsupported format character '\(kind)'")
            }
        }

        private func mismatch(_ value: JinjaValue) -> JinjaError {
            if case .undefined(let undefined) = value { return undefined.error }
            return JinjaError(.type(expected: "a number for '%\(kind)'", found: value.typeName))
        }

        private func clipped(_ text: String) -> String { precision.map { String(text.unicodeScalars.prefix($0)) } ?? text }

        private func signed(_ digits: String, negative: Bool) -> String {
            negative ? "-" + digits : flags.contains("+") ? "+" + digits : flags.contains(" ") ? " " + digits : digits
        }

        private func padded(_ text: String, isNumber: Bool) -> String {
            let missing = width - PythonText.length(text)
            guard missing > 0 else { return text }
            func filling(_ count: Int, _ scalar: Unicode.Scalar) -> String { String(repeating: String(scalar), count: count) }
            if isNumber, flags.contains("0"), !flags.contains("-"), align == nil {
                let sign = text.prefix { "+- ".contains($0) }
                return sign + filling(missing, "0") + text.dropFirst(sign.count)
            }
            switch align ?? (flags.contains("-") ? "<" : ">") {
            case "<": return text + filling(missing, fill)
            case "^": return filling(missing / 2, fill) + text + filling(missing - missing / 2, fill)
            default: return filling(missing, fill) + text
            }
        }
    }

    // MARK: '{}'.format(values)

    /// `format.format(…)`: `{}`, `{0}`, `{name}`, `{name.attribute}`, `!r`, `!s`, and `:[fill align][0][width][.precision][kind]`.
    static func braces(_ format: String, _ arguments: JinjaArguments, _ interpreter: JinjaInterpreter) throws -> String {
        let scalars = Array(format.unicodeScalars)
        var result = ""
        var index = 0
        var automatic = 0
        while index < scalars.count {
            let scalar = scalars[index]
            index += 1
            if scalar == "{" || scalar == "}" {
                if index < scalars.count, scalars[index] == scalar {
                    index += 1
                } else {
                    guard scalar == "{", let end = scalars[index...].firstIndex(of: "}") else {
                        throw problem("a single '\(scalar)'")
                    }
                    let field = PythonText.text(scalars[index..<end])
                    result += try replacement(field, arguments, &automatic, interpreter)
                    try interpreter.charge(text: result.utf8.count)
                    index = end + 1
                    continue
                }
            }
            result.unicodeScalars.append(scalar)
        }
        return result
    }

    private static func replacement(
        _ field: String, _ arguments: JinjaArguments, _ automatic: inout Int, _ interpreter: JinjaInterpreter
    ) throws -> String {
        let parts = field.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        let source = parts[0].split(separator: "!", maxSplits: 1, omittingEmptySubsequences: false)
        let path = source[0].split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        var value: JinjaValue
        if let position = path[0].isEmpty ? automatic : Int(path[0]) {
            if path[0].isEmpty { automatic += 1 }
            guard arguments.positional.indices.contains(position) else { throw problem("no argument \(position)") }
            value = arguments.positional[position]
        } else {
            guard let named = arguments.named.first(where: { $0.key == path[0] }) else {
                throw problem("no argument '\(path[0])'")
            }
            value = named.value
        }
        for name in path.dropFirst() { value = try interpreter.attribute(name, of: value) }
        var specification = try readBraces(parts.count > 1 ? String(parts[1]) : "", isText: !isNumber(value) || source.count > 1)
        if source.count > 1, source[1] == "r" { specification.kind = "r" }
        return try specification.text(of: value, interpreter)
    }

    private static func isNumber(_ value: JinjaValue) -> Bool {
        switch value {
        case .int, .double: true
        default: false
        }
    }

    private static func readBraces(_ text: String, isText: Bool) throws -> Specification {
        let scalars = Array(text.unicodeScalars)
        var specification = Specification()
        var index = 0
        let aligns = "<>^".unicodeScalars
        if scalars.count > 1, aligns.contains(scalars[1]) {
            specification.fill = scalars[0]
            specification.align = scalars[1]
            index = 2
        } else if let first = scalars.first, aligns.contains(first) {
            specification.align = first
            index = 1
        }
        while index < scalars.count, "+-0 ".unicodeScalars.contains(scalars[index]) {
            if scalars[index] != "-" { specification.flags.append(Character(scalars[index])) }
            index += 1
        }
        specification.width = try readNumber(scalars, &index) ?? 0
        if index < scalars.count, scalars[index] == "." {
            index += 1
            specification.precision = try readNumber(scalars, &index)
        }
        if index < scalars.count {
            specification.kind = Character(scalars[index])
            index += 1
        } else if specification.precision != nil, !isText {
            specification.kind = "g"
        }
        if isText, specification.align == nil { specification.align = "<" }
        guard index == scalars.count else { throw problem("unsupported format ':\(text)'") }
        return specification
    }
}
