extension JinjaFormat {
    /// `format.format(…)`: fields with attributes and elements, `!r`, `!s`, `!a`, and formats that may hold fields.
    static func braces(_ format: String, _ arguments: JinjaArguments, _ interpreter: JinjaInterpreter) throws -> String {
        var fields = FieldReader(arguments: arguments, interpreter: interpreter)
        return try fields.text(of: Array(format.unicodeScalars), depth: 2)
    }

    /// `value` written by a format such as `>10,.2f`, as `format(value, text)` does.
    static func text(of value: JinjaValue, _ text: String, _ interpreter: JinjaInterpreter) throws -> String {
        if text.isEmpty { return try interpreter.text(of: value) }
        let isNumber = value.number != nil
        let format = try JinjaFormat(specification: Array(text.unicodeScalars), isOfText: !isNumber)
        try interpreter.charge(text: max(format.width, format.precision ?? 0))
        switch value {
        case .string(let text): return try format.formatted(string: text)
        case .bool, .int, .bigInteger: return try format.formatted(integer: value, interpreter)
        case .double(let number):
            guard format.kind.map({ "eEfFgGn%".unicodeScalars.contains($0) }) ?? true else { throw format.unknownKind("float") }
            return format.double(number)
        default: throw problem("unsupported format for \(value.typeName)")
        }
    }

    private func unknownKind(_ type: String) -> JinjaError {
        Self.problem("the format '\(kind.map(String.init) ?? "")' is not one of \(type)")
    }

    private func formatted(string: String) throws -> String {
        guard kind == nil || kind == "s" else { throw unknownKind("str") }
        guard !hasSign, !dropsNegativeZero, !isAlternate, grouping == nil, align != .afterSign else {
            throw Self.problem("signs, '=', '#' and ',' are formats of numbers")
        }
        return text(string)
    }

    private func formatted(integer value: JinjaValue, _ interpreter: JinjaInterpreter) throws -> String {
        switch kind {
        case nil, "d", "n", "b", "o", "x", "X":
            guard precision == nil, !dropsNegativeZero, let number = value.wholeNumber else {
                throw Self.problem("a precision or 'z' is not allowed for integers")
            }
            guard grouping != "," || kind == nil || kind == "d" else {
                throw Self.problem("cannot use ',' with '\(kind ?? "d")'")
            }
            return try integer(number)
        case "c":
            guard !hasSign, !isAlternate, grouping == nil, precision == nil else {
                throw Self.problem("signs, '#' and ',' are not allowed with 'c'")
            }
            return padded(character: try Self.character(value))
        default:
            guard kind.map({ "eEfFgG%".unicodeScalars.contains($0) }) ?? false, let number = try value.floatingPoint() else {
                throw unknownKind("int")
            }
            return double(number)
        }
    }

    private func padded(character: String) -> String {
        var format = self
        if format.align == nil { format.align = .right }
        return format.text(character)
    }

    // MARK: Reading a format

    /// `[[fill]align][sign][z][#][0][width][grouping][.precision][kind]`
    private init(specification scalars: [Unicode.Scalar], isOfText: Bool) throws {
        let aligns: [Unicode.Scalar: Align] = ["<": .left, ">": .right, "^": .center, "=": .afterSign]
        var index = 0
        func take(_ set: String) -> Unicode.Scalar? {
            guard index < scalars.count, set.unicodeScalars.contains(scalars[index]) else { return nil }
            index += 1
            return scalars[index - 1]
        }
        var (hasFill, hasZeros) = (false, false)
        if scalars.count > 1, let align = aligns[scalars[1]] {
            (fill, self.align, hasFill, index) = (scalars[0], align, true, 2)
        } else if let align = aligns[scalars[0]] {
            (self.align, index) = (align, 1)
        }
        if let mark = take("+- ") { (sign, hasSign) = (mark == "-" ? "" : String(mark), true) }
        dropsNegativeZero = take("z") != nil
        isAlternate = take("#") != nil
        if !hasFill, take("0") != nil {
            fill = "0"
            hasZeros = align == nil
        }
        width = try Self.readNumber(scalars, &index) ?? 0
        grouping = take(",_").map(String.init)
        if take(".") != nil {
            guard let digits = try Self.readNumber(scalars, &index) else { throw Self.problem("a precision is missing") }
            precision = digits
        }
        if index < scalars.count {
            kind = scalars[index]
            index += 1
        }
        // Zero padding of a number goes between its sign and its digits. Texts stay at the left.
        if hasZeros { align = isOfText ? .left : .afterSign }
        guard index == scalars.count else { throw Self.problem("unsupported format ':\(PythonText.text(scalars))'") }
    }
}

/// Replaces the fields of a format string.
private struct FieldReader {
    let arguments: JinjaArguments
    let interpreter: JinjaInterpreter
    /// The number of the next `{}`; `nil` before the first field.
    private var automatic: Int?
    private var isManual = false

    init(arguments: JinjaArguments, interpreter: JinjaInterpreter) {
        self.arguments = arguments
        self.interpreter = interpreter
    }

    private func problem(_ text: String) -> JinjaError { JinjaFormat.problem(text) }

    /// - Parameter depth: levels of fields within formats that may still follow.
    mutating func text(of scalars: [Unicode.Scalar], depth: Int) throws -> String {
        guard depth > 0 else { throw problem("fields within fields within fields") }
        var result = ""
        var index = 0
        while index < scalars.count {
            let scalar = scalars[index]
            index += 1
            if scalar == "{" || scalar == "}" {
                if index < scalars.count, scalars[index] == scalar {
                    index += 1
                } else {
                    guard scalar == "{", let end = closing(scalars, from: index) else { throw problem("a single '\(scalar)'") }
                    result += try field(Array(scalars[index..<end]), depth: depth)
                    try interpreter.charge(text: result.utf8.count)
                    index = end + 1
                    continue
                }
            }
            result.unicodeScalars.append(scalar)
        }
        return result
    }

    private func closing(_ scalars: [Unicode.Scalar], from start: Int) -> Int? {
        var depth = 1
        for index in start..<scalars.count {
            if scalars[index] == "{" { depth += 1 }
            if scalars[index] == "}" { depth -= 1 }
            if depth == 0 { return index }
        }
        return nil
    }

    /// `name!conversion:format`
    private mutating func field(_ scalars: [Unicode.Scalar], depth: Int) throws -> String {
        var end = 0
        var bracket = false
        while end < scalars.count, bracket || (scalars[end] != "!" && scalars[end] != ":") {
            if scalars[end] == "[" { bracket = true }
            if scalars[end] == "]" { bracket = false }
            end += 1
        }
        var value = try self.value(Array(scalars[..<end]))
        var rest = scalars[end...]
        if rest.first == "!" {
            guard rest.count >= 2, rest.count == 2 || rest[end + 2] == ":" else { throw problem("expected ':' after '!'") }
            value = .string(try converted(value, by: rest[end + 1]))
            rest = rest.dropFirst(2)
        }
        let format = rest.isEmpty ? "" : try text(of: Array(rest.dropFirst()), depth: depth - 1)
        return try JinjaFormat.text(of: value, format, interpreter)
    }

    private func converted(_ value: JinjaValue, by letter: Unicode.Scalar) throws -> String {
        switch letter {
        case "s": return try interpreter.text(of: value)
        case "r": return try interpreter.representation(of: value)
        case "a": return PythonNumber.escapingNonASCII(try interpreter.representation(of: value))
        default: throw problem("unknown conversion '\(letter)'")
        }
    }

    /// `0`, `name`, nothing, then `.attribute` and `[element]`.
    private mutating func value(_ path: [Unicode.Scalar]) throws -> JinjaValue {
        let end = path.firstIndex { $0 == "." || $0 == "[" } ?? path.count
        var value = try argument(PythonText.text(path[..<end]))
        var index = end
        while index < path.count {
            let isElement = path[index] == "["
            let start = index + 1
            index = start
            while index < path.count, isElement ? path[index] != "]" : path[index] != "." && path[index] != "[" { index += 1 }
            let name = PythonText.text(path[start..<index])
            guard !name.isEmpty, !isElement || index < path.count else { throw problem("an empty attribute") }
            if isElement {
                index += 1
                value = try interpreter.element(Int(name).map(JinjaValue.int) ?? .string(name), of: value)
            } else {
                value = try interpreter.attribute(name, of: value)
            }
        }
        return value
    }

    private mutating func argument(_ name: String) throws -> JinjaValue {
        guard let position = name.isEmpty ? automatic ?? 0 : Int(name) else {
            guard let named = arguments.named.first(where: { $0.key.hasSameBytes(as: name) }) else {
                throw problem("no argument '\(name)'")
            }
            return named.value
        }
        guard name.isEmpty ? !isManual : automatic == nil else {
            throw problem("fields with and without numbers cannot be mixed")
        }
        if name.isEmpty { automatic = position + 1 } else { isManual = true }
        guard arguments.positional.indices.contains(position) else { throw problem("no argument \(position)") }
        return arguments.positional[position]
    }
}
