import Foundation

extension JinjaMethods {
    /// The attributes and methods of integers and floats.
    static func number(_ name: String, _ value: JinjaValue) -> JinjaValue? {
        switch name {
        case "real": value.wholeNumber.map(JinjaValue.integer) ?? value
        case "imag": if case .double = value { .double(0) } else { .int(0) }
        case "conjugate": function(name) { value.wholeNumber.map(JinjaValue.integer) ?? value }
        case "is_integer":
            if case .double(let number) = value { function(name) { .bool(number == number.rounded()) } } else { nil }
        case "numerator": value.wholeNumber.map(JinjaValue.integer)
        case "denominator": value.wholeNumber.map { _ in .int(1) }
        case "bit_length": value.wholeNumber.map { number in function(name) { .int(number.bitWidth) } }
        case "bit_count":
            value.wholeNumber.map { number in function(name) { .int(number.limbs.reduce(0) { $0 + $1.nonzeroBitCount }) } }
        case "as_integer_ratio": ratio(value)
        default: nil
        }
    }

    private static func function(_ name: String, _ body: @escaping @Sendable () throws -> JinjaValue) -> JinjaValue {
        .opaque(
            JinjaOpaque(
                .function(name) { _, arguments in
                    _ = try arguments.bound(to: name, [])
                    return try body()
                }))
    }

    private static func ratio(_ value: JinjaValue) -> JinjaValue? {
        function("as_integer_ratio") {
            if let whole = value.wholeNumber { return .tuple([.integer(whole), .int(1)]) }
            guard let number = value.number, number.isFinite else {
                throw JinjaError(.arithmetic("an infinite number or NaN is no ratio of integers"))
            }
            var (mantissa, shift) = (number, 0)
            while mantissa != mantissa.rounded() { (mantissa, shift) = (mantissa * 2, shift + 1) }
            return .tuple([.integer(BigInteger(truncating: mantissa)), .integer(BigInteger(1).shifted(left: shift))])
        }
    }
}
