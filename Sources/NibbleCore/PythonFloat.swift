/// Numbers as Python's `repr(float)` writes them.
package enum PythonFloat {
    /// The shortest digits that read back, with an exponent (`1e+16`, `1e-05`) below 10⁻⁴ and from 10¹⁶ on.
    package static func text(_ number: Double) -> String {
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
}
