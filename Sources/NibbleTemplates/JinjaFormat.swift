import Foundation
import NibbleCore

/// One conversion of Python's two formatting languages: `%#06x` and `{:#06x}`.
struct JinjaFormat {
    enum Align { case left, right, center, afterSign }

    var fill: Unicode.Scalar = " "
    /// `nil` puts numbers right and other values left.
    var align: Align?
    /// Written before numbers that are not negative: `+`, a space, or nothing.
    var sign = ""
    /// Whether a sign, be it `-`, is asked for.
    var hasSign = false
    /// Whether a negative number that is written as zero loses its sign.
    var dropsNegativeZero = false
    var isAlternate = false
    var width = 0
    /// `,` or `_`
    var grouping: String?
    var precision: Int?
    /// `nil` where the format names none.
    var kind: Unicode.Scalar?

    /// The largest width and precision.
    private static let maximumWidth = 1 << 20

    static func problem(_ text: String) -> JinjaError { JinjaError(.arguments(function: "format", problem: text)) }

    /// Digits of a width or a precision; `nil` if there are none.
    static func readNumber(_ scalars: [Unicode.Scalar], _ index: inout Int) throws -> Int? {
        let start = index
        while index < scalars.count, (48...57).contains(scalars[index].value) { index += 1 }
        guard index > start else { return nil }
        guard let number = Int(PythonText.text(scalars[start..<index])), number <= maximumWidth else {
            throw JinjaError(.limit("characters of width", maximum: maximumWidth))
        }
        return number
    }

    // MARK: Texts

    func text(_ text: String) -> String {
        let kept = precision.map { PythonText.text(text.unicodeScalars.prefix($0)) } ?? text
        return padded("", kept, align ?? .left)
    }

    // MARK: Integers

    /// - Parameter minimumDigits: as a precision in the `%` language.
    func integer(_ value: BigInteger, minimumDigits: Int = 0) throws -> String {
        var (radix, prefix): (UInt32, String) = (10, "")
        switch kind {
        case "b": (radix, prefix) = (2, "0b")
        case "o": (radix, prefix) = (8, "0o")
        case "x": (radix, prefix) = (16, "0x")
        case "X": (radix, prefix) = (16, "0X")
        default: _ = try value.decimalText()
        }
        let digits = value.magnitude.text(radix: radix, uppercase: kind == "X")
        let missing = max(0, minimumDigits - digits.utf8.count)
        let sign = value.isNegative ? "-" : sign
        return number(
            sign + (isAlternate ? prefix : ""), PythonText.repeated("0", missing) + digits, groupSize: radix == 10 ? 3 : 4)
    }

    // MARK: Floating point

    func double(_ value: Double) -> String {
        var isNegative = value.sign == .minus && !value.isNaN
        if dropsNegativeZero, value.isFinite {
            isNegative = isNegative && digits(value.magnitude).contains { ("1"..."9").contains($0) }
        }
        let sign = isNegative ? "-" : sign
        let isUpper = kind.map { ("A"..."Z").contains($0) } ?? false
        guard value.isFinite else {
            let word = value.isNaN ? "nan" : "inf"
            return number(sign, (isUpper ? word.uppercased() : word) + (kind == "%" ? "%" : ""), groupSize: 3)
        }
        return number(sign, digits(value.magnitude), groupSize: 3)
    }

    private func digits(_ value: Double) -> String {
        switch kind {
        case "%": return String(format: "%\(isAlternate ? "#" : "").\(precision ?? 6)f", value * 100) + "%"
        case nil where precision == nil: return PythonFloat.text(value)
        case nil: return general(value)
        case "n": return String(format: "%\(isAlternate ? "#" : "").\(precision ?? 6)g", value)
        case let kind?: return String(format: "%\(isAlternate ? "#" : "").\(precision ?? 6)\(kind)", value)
        }
    }

    /// A precision without a kind: as `g`, but with a digit after the point, and with an exponent already if all digits are
    /// before the point.
    private func general(_ value: Double) -> String {
        let precision = max(1, precision ?? 6)
        let scientific = String(format: "%.\(precision - 1)e", value)
        let exponent = Int(scientific.split(separator: "e").last ?? "0") ?? 0
        guard (-4..<max(precision - 1, -4)).contains(exponent) else {
            let text = String(format: "%.\(precision)g", value)
            return text.containsBytes("e") ? text : Self.withExponent(scientific)
        }
        let text = String(format: "%.\(precision)g", value)
        return text.containsBytes(".") || text.containsBytes("e") ? text : text + ".0"
    }

    /// `1.500e+06` without the zeros at the end of the fraction.
    private static func withExponent(_ text: String) -> String {
        let parts = text.split(separator: "e")
        var mantissa = parts[0]
        while mantissa.last == "0" { mantissa = mantissa.dropLast() }
        if mantissa.last == "." { mantissa = mantissa.dropLast() }
        return "\(mantissa)e\(parts[1])"
    }

    // MARK: Layout

    /// - Parameter head: sign and radix prefix.
    private func number(_ head: String, _ digits: String, groupSize: Int) -> String {
        guard let grouping else { return padded(head, digits, align ?? .right) }
        let whole = groupSize == 3 ? digits.prefix { ("0"..."9").contains($0) } : digits[...]
        let rest = digits.dropFirst(whole.count)
        var minimum = 0
        if align == .afterSign, fill == "0" { minimum = width - head.utf8.count - rest.utf8.count }
        return padded(head, Self.grouped(String(whole), groupSize, grouping, minimum) + rest, align ?? .right)
    }

    /// Digits in groups, with zeros in front up to `minimum` characters.
    private static func grouped(_ digits: String, _ size: Int, _ separator: String, _ minimum: Int) -> String {
        var result: [Character] = []
        var rest = Array(digits)
        var count = 0
        while !rest.isEmpty || result.count < minimum {
            if count > 0, count % size == 0 { result.append(Character(separator)) }
            result.append(rest.popLast() ?? "0")
            count += 1
        }
        return String(result.reversed())
    }

    private func padded(_ head: String, _ body: String, _ align: Align) -> String {
        let missing = width - PythonText.length(head) - PythonText.length(body)
        guard missing > 0 else { return head + body }
        func filling(_ count: Int) -> String { PythonText.repeated(String(fill), count) }
        switch align {
        case .left: return head + body + filling(missing)
        case .right: return filling(missing) + head + body
        case .center: return filling(missing / 2) + head + body + filling(missing - missing / 2)
        case .afterSign: return head + filling(missing) + body
        }
    }
}
