/// Numbers and quoted strings as Python writes and reads them.
enum PythonNumber {
    /// `int(text, base)`; nil where Python raises.
    static func integer(_ text: String, base: Int) -> BigInteger? {
        guard var digits = asciiDigits(text)?[...], base == 0 || (2...36).contains(base) else { return nil }
        var sign = ""
        if let first = digits.first, first == UInt8(ascii: "-") || first == UInt8(ascii: "+") {
            sign = first == UInt8(ascii: "-") ? "-" : ""
            digits = digits.dropFirst()
        }
        var radix = base
        let letters: [UInt8: Int] = [UInt8(ascii: "b"): 2, UInt8(ascii: "o"): 8, UInt8(ascii: "x"): 16]
        if digits.count > 2, digits.first == UInt8(ascii: "0"), let named = letters[digits[digits.startIndex + 1] | 0x20],
            base == named || base == 0
        {
            radix = named
            digits = digits.dropFirst(2)
            if digits.first == UInt8(ascii: "_") { digits = digits.dropFirst() }
        }
        guard let plain = withoutUnderscores(Array(digits)), plain.count <= BigInteger.decimalDigits || radix & (radix - 1) == 0
        else {
            return nil
        }
        if radix == 0 {
            guard plain.count == 1 || plain.first != UInt8(ascii: "0") || plain.allSatisfy({ $0 == UInt8(ascii: "0") }) else {
                return nil
            }
            radix = 10
        }
        guard let first = plain.first, first != UInt8(ascii: "-"), first != UInt8(ascii: "+") else { return nil }
        return BigInteger(sign + String(decoding: plain, as: UTF8.self), radix: UInt32(radix))
    }

    /// `float(text)`; nil where Python raises.
    static func double(_ text: String) -> Double? {
        guard let bytes = asciiDigits(text) else { return nil }
        var rest = bytes[...]
        var sign = 1.0
        if let first = rest.first, first == UInt8(ascii: "-") || first == UInt8(ascii: "+") {
            sign = first == UInt8(ascii: "-") ? -1 : 1
            rest = rest.dropFirst()
        }
        switch String(decoding: rest, as: UTF8.self).lowercased() {
        case "inf", "infinity": return sign * .infinity
        case "nan": return .nan
        default: break
        }
        guard let plain = withoutUnderscores(Array(rest)), let number = decimal(plain[...]) else { return nil }
        return sign * number
    }

    /// `digits[.digits][e[sign]digits]`, one side of the point being enough.
    private static func decimal(_ text: ArraySlice<UInt8>) -> Double? {
        let isDigit = { (byte: UInt8) in (48...57).contains(byte) }
        let whole = text.prefix(while: isDigit)
        var rest = text.dropFirst(whole.count)
        var fraction: ArraySlice<UInt8> = []
        if rest.first == UInt8(ascii: ".") {
            rest = rest.dropFirst()
            fraction = rest.prefix(while: isDigit)
            rest = rest.dropFirst(fraction.count)
        }
        guard !whole.isEmpty || !fraction.isEmpty else { return nil }
        let mantissa = "\(String(decoding: [48] + whole, as: UTF8.self)).\(String(decoding: fraction + [48], as: UTF8.self))"
        guard let mark = rest.first else { return Double(mantissa) }
        guard mark | 0x20 == UInt8(ascii: "e") else { return nil }
        let exponent = rest.dropFirst()
        let digits =
            exponent.first.map { $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: "+") } ?? false ? exponent.dropFirst() : exponent
        guard !digits.isEmpty, digits.allSatisfy(isDigit) else { return nil }
        return Double("\(mantissa)e\(String(decoding: exponent, as: UTF8.self))")
    }

    /// The text without white space around it, decimal digits of any script as ASCII; nil if other characters remain.
    private static func asciiDigits(_ text: String) -> [UInt8]? {
        var result: [UInt8] = []
        for scalar in PythonText.strip(text).unicodeScalars {
            if scalar.isASCII {
                result.append(UInt8(scalar.value))
            } else if scalar.properties.numericType == .decimal, let value = scalar.properties.numericValue {
                result.append(48 + UInt8(value))
            } else {
                return nil
            }
        }
        return result
    }

    /// Drops underscores that stand between two digits or letters; nil if one stands elsewhere.
    private static func withoutUnderscores(_ text: [UInt8]) -> [UInt8]? {
        let underscore = UInt8(ascii: "_")
        let isPart = { (byte: UInt8) in (48...57).contains(byte) || (97...122).contains(byte | 0x20) }
        for (index, byte) in text.enumerated() where byte == underscore {
            guard index > 0, index + 1 < text.count, isPart(text[index - 1]), isPart(text[index + 1]) else { return nil }
        }
        return text.filter { $0 != underscore }
    }

    /// `repr(str)`: single quotes unless double quotes avoid escapes. Characters that do not print are escaped.
    static func quoted(_ text: String) -> String {
        let quote: Unicode.Scalar = text.utf8.contains(39) && !text.utf8.contains(34) ? "\"" : "'"
        var result = String(quote)
        for scalar in text.unicodeScalars {
            switch scalar {
            case quote, "\\": result += "\\\(scalar)"
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case " "..."~": result.unicodeScalars.append(scalar)
            default:
                if isPrintable(scalar) { result.unicodeScalars.append(scalar) } else { result += escape(scalar) }
            }
        }
        return result + String(quote)
    }

    /// `ascii(text)` of a text that is quoted already.
    static func escapingNonASCII(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars { result += scalar.isASCII ? String(scalar) : escape(scalar) }
        return result
    }

    private static func escape(_ scalar: Unicode.Scalar) -> String {
        let hex = String(scalar.value, radix: 16)
        let (letter, width) = scalar.value < 0x100 ? ("x", 2) : scalar.value < 0x10000 ? ("u", 4) : ("U", 8)
        return "\\\(letter)" + String(repeating: "0", count: width - hex.count) + hex
    }

    static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator, .spaceSeparator: false
        default: true
        }
    }
}
