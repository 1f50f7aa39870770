import Foundation

/// Numbers and quoted strings as Python writes and reads them.
enum PythonNumber {
    /// `repr(float)`: the shortest digits that read back, `1e+16` and `1e-05` outside the plain range.
    static func text(_ number: Double) -> String {
        guard number.isFinite else { return number.isNaN ? "nan" : number < 0 ? "-inf" : "inf" }
        guard number != 0 else { return number.sign == .minus ? "-0.0" : "0.0" }
        let (digits, exponent) = shortestDigits(abs(number))
        let sign = number < 0 ? "-" : ""
        guard (-4..<16).contains(exponent) else {
            let mantissa = digits.count == 1 ? digits : "\(digits.prefix(1)).\(digits.dropFirst())"
            return "\(sign)\(mantissa)e\(exponent < 0 ? "-" : "+")\(abs(exponent) < 10 ? "0" : "")\(abs(exponent))"
        }
        if exponent < 0 { return "\(sign)0.\(String(repeating: "0", count: -exponent - 1))\(digits)" }
        let padded = digits + String(repeating: "0", count: max(0, exponent + 1 - digits.count))
        let fraction = padded.dropFirst(exponent + 1)
        return "\(sign)\(padded.prefix(exponent + 1)).\(fraction.isEmpty ? "0" : String(fraction))"
    }

    /// The digits d₁d₂… and e of d₁.d₂… × 10ᵉ, from Swift's own shortest form.
    private static func shortestDigits(_ number: Double) -> (digits: String, exponent: Int) {
        let parts = number.description.split(separator: "e")
        let mantissa = parts[0].split(separator: ".", omittingEmptySubsequences: false)
        let whole = String(mantissa[0])
        var digits = whole + (mantissa.count > 1 ? mantissa[1] : "")
        var exponent = (parts.count > 1 ? Int(parts[1]) ?? 0 : 0) + whole.count - 1
        while digits.first == "0", digits.count > 1 {
            digits.removeFirst()
            exponent -= 1
        }
        while digits.last == "0", digits.count > 1 { digits.removeLast() }
        return (digits, exponent)
    }

    /// `int(text, base)`; nil where Python raises.
    static func integer(_ text: String, base: Int) -> Int? {
        var digits = PythonText.strip(text)[...]
        var sign = ""
        if let first = digits.first, first == "-" || first == "+" {
            sign = String(first)
            digits = digits.dropFirst()
        }
        var base = base
        let prefixes = [2: "0b", 8: "0o", 16: "0x"]
        for (radix, prefix) in prefixes where (base == radix || base == 0) && digits.lowercased().hasPrefix(prefix) {
            base = radix
            digits = digits.dropFirst(2)
        }
        if base == 0 { base = 10 }
        guard (2...36).contains(base), let plain = withoutUnderscores(digits), plain.first?.isNumber ?? false || base > 10 else {
            return nil
        }
        return plain.hasPrefix("-") || plain.hasPrefix("+") ? nil : Int(sign + plain, radix: base)
    }

    /// `float(text)`; nil where Python raises.
    static func double(_ text: String) -> Double? {
        let trimmed = PythonText.strip(text).lowercased()
        let unsigned = trimmed.first == "-" || trimmed.first == "+" ? trimmed.dropFirst() : trimmed[...]
        switch unsigned {
        case "inf", "infinity": return trimmed.first == "-" ? -.infinity : .infinity
        case "nan": return .nan
        default:
            guard unsigned.utf8.allSatisfy({ "0123456789.e+-_".utf8.contains($0) }), let plain = withoutUnderscores(trimmed[...])
            else { return nil }
            // Swift wants digits on both sides of the point.
            let padded = plain.replacingOccurrences(of: ".e", with: ".0e")
            return Double(padded.hasSuffix(".") ? padded + "0" : padded)
                ?? Double(padded.replacingOccurrences(of: ".", with: "0."))
        }
    }

    /// Drops underscores that stand between two digits; nil if one stands elsewhere.
    private static func withoutUnderscores(_ text: Substring) -> String? {
        let parts = text.split(separator: "_", omittingEmptySubsequences: false)
        return parts.contains(where: \.isEmpty) ? nil : parts.joined()
    }

    /// `repr(str)`: single quotes unless only double ones avoid escapes; what does not print is escaped.
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

    private static func escape(_ scalar: Unicode.Scalar) -> String {
        let hex = String(scalar.value, radix: 16)
        let (letter, width) = scalar.value < 0x100 ? ("x", 2) : scalar.value < 0x10000 ? ("u", 4) : ("U", 8)
        return "\\\(letter)" + String(repeating: "0", count: width - hex.count) + hex
    }

    private static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator, .spaceSeparator: false
        default: true
        }
    }
}
