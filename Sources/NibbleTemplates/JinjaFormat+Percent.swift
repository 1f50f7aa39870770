extension JinjaFormat {
    /// `format % values`.
    static func percent(_ format: String, _ values: JinjaValue, _ interpreter: JinjaInterpreter) throws -> String {
        var rest = PercentValues(values: values)
        let scalars = Array(format.unicodeScalars)
        var result = ""
        var index = 0
        while index < scalars.count {
            guard scalars[index] == "%" else {
                result.unicodeScalars.append(scalars[index])
                index += 1
                continue
            }
            index += 1
            result += try conversion(scalars, &index, &rest, interpreter)
            try interpreter.charge(text: result.utf8.count)
        }
        try rest.requireAllUsed()
        return result
    }

    /// The right-hand side of `%`.
    private struct PercentValues {
        let values: JinjaValue
        private let positional: [JinjaValue]
        private var used = 0
        private var isMapping: Bool

        init(values: JinjaValue) {
            self.values = values
            if case .tuple(let items) = values { positional = items.elements } else { positional = [values] }
            // Python does not require that a value with elements is used, unless it is a tuple or a string.
            switch values {
            case .array, .object, .undefined: isMapping = true
            default: isMapping = false
            }
        }

        mutating func next() throws -> JinjaValue {
            guard used < positional.count else { throw problem("not enough values for the format") }
            defer { used += 1 }
            return positional[used]
        }

        mutating func named(_ name: String, _ interpreter: JinjaInterpreter) throws -> JinjaValue {
            if case .undefined(let undefined) = values { throw undefined.error }
            guard case .object(let object) = values else { throw problem("a format with names needs a mapping") }
            guard let value = object[name] else { throw problem("no value '\(name)'") }
            return value
        }

        func requireAllUsed() throws {
            guard isMapping || used >= positional.count else { throw problem("too many values for the format") }
        }
    }

    private static func conversion(
        _ scalars: [Unicode.Scalar], _ index: inout Int, _ values: inout PercentValues, _ interpreter: JinjaInterpreter
    ) throws -> String {
        var name: String?
        if index < scalars.count, scalars[index] == "(" { name = try readName(scalars, &index) }
        var format = JinjaFormat()
        let flags = readFlags(scalars, &index)
        format.isAlternate = flags.contains("#")
        format.sign = flags.contains("+") ? "+" : flags.contains(" ") ? " " : ""
        format.width = try readCount(scalars, &index, &values) ?? 0
        if format.width < 0 || flags.contains("-") { format.align = .left }
        format.width = abs(format.width)
        if index < scalars.count, scalars[index] == "." {
            index += 1
            format.precision = max(0, try readCount(scalars, &index, &values) ?? 0)
        }
        while index < scalars.count, "hlL".unicodeScalars.contains(scalars[index]) { index += 1 }
        guard index < scalars.count else { throw problem("incomplete format") }
        format.kind = scalars[index]
        index += 1
        if format.kind == "%" { return "%" }
        let value = try name.map { try values.named($0, interpreter) } ?? values.next()
        try interpreter.charge(text: max(format.width, format.precision ?? 0))
        return try format.percent(value, padsWithZeros: flags.contains("0"), interpreter)
    }

    private static func readName(_ scalars: [Unicode.Scalar], _ index: inout Int) throws -> String {
        let start = index + 1
        var depth = 0
        while index < scalars.count {
            if scalars[index] == "(" { depth += 1 }
            if scalars[index] == ")" { depth -= 1 }
            index += 1
            if depth == 0 { return PythonText.text(scalars[start..<(index - 1)]) }
        }
        throw problem("')' is missing")
    }

    private static func readFlags(_ scalars: [Unicode.Scalar], _ index: inout Int) -> Set<Unicode.Scalar> {
        var flags: Set<Unicode.Scalar> = []
        while index < scalars.count, "-+0 #".unicodeScalars.contains(scalars[index]) {
            flags.insert(scalars[index])
            index += 1
        }
        return flags
    }

    /// A width or a precision: digits, or `*` for the next value.
    private static func readCount(
        _ scalars: [Unicode.Scalar], _ index: inout Int, _ values: inout PercentValues
    ) throws -> Int? {
        guard index < scalars.count, scalars[index] == "*" else { return try readNumber(scalars, &index) }
        index += 1
        guard let count = try values.next().integer, abs(count) <= 1 << 20 else { throw problem("'*' needs a small integer") }
        return count
    }

    private func percent(_ value: JinjaValue, padsWithZeros: Bool, _ interpreter: JinjaInterpreter) throws -> String {
        var format = self
        if format.align == nil { format.align = .right }
        switch kind {
        case "s": return format.text(try interpreter.text(of: value))
        case "r": return format.text(try interpreter.representation(of: value))
        case "a": return format.text(PythonNumber.escapingNonASCII(try interpreter.representation(of: value)))
        case "c":
            format.precision = nil
            return format.text(try Self.character(value))
        default: break
        }
        if padsWithZeros, align == nil { (format.fill, format.align) = ("0", .afterSign) }
        switch kind {
        case "d", "i", "u", "o", "x", "X":
            format.kind = ["i", "u"].contains(kind) ? "d" : kind
            let isDecimal = format.kind == "d"
            if case .double(let number) = value, isDecimal, number.isFinite {
                return try format.integer(BigInteger(truncating: number), minimumDigits: precision ?? 0)
            }
            guard let number = value.wholeNumber else { throw mismatch(value) }
            return try format.integer(number, minimumDigits: precision ?? 0)
        case "f", "F", "e", "E", "g", "G":
            guard let number = try value.floatingPoint() else { throw mismatch(value) }
            return format.double(number)
        default: throw Self.problem("unsupported format character '\(kind.map(String.init) ?? "")'")
        }
    }

    func mismatch(_ value: JinjaValue) -> JinjaError {
        if case .undefined(let undefined) = value { return undefined.error }
        return JinjaError(.type(expected: "a number for '\(kind.map(String.init) ?? "")'", found: value.typeName))
    }

    static func character(_ value: JinjaValue) throws -> String {
        if case .string(let text) = value, text.unicodeScalars.count == 1 { return text }
        guard let code = value.integer, let scalar = UInt32(exactly: code).flatMap(Unicode.Scalar.init) else {
            throw JinjaError(.type(expected: "a character or its code for 'c'", found: value.typeName))
        }
        return String(scalar)
    }
}
