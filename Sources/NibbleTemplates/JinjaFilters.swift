import Foundation

/// The filters behind `|`. The value comes first; parameters have the names that Jinja gives them.
enum JinjaFilters {
    typealias Filter = @Sendable (JinjaInterpreter, JinjaValue, JinjaArguments) throws -> JinjaValue

    static let all: [String: Filter] = strings.merging(sequences) { $1 }.merging(web) { $1 }.merging(selections) { $1 }.merging(
        values
    ) { $1 }

    private static let values: [String: Filter] = [
        "default": defaulted, "d": defaulted,
        "length": counted, "count": counted,
        "int": { _, value, arguments in
            let given = try arguments.bound(to: "int", ["default", "base"])
            return try integer(value, base: given[1]?.integer ?? 10).map(JinjaValue.integer) ?? given[0] ?? .int(0)
        },
        "float": { _, value, arguments in
            let given = try arguments.bound(to: "float", ["default"])
            if case .undefined(let undefined) = value { throw undefined.error }
            if case .string(let text) = value {
                return PythonNumber.double(text).map(JinjaValue.double) ?? given[0] ?? .double(0)
            }
            return try value.floatingPoint().map(JinjaValue.double) ?? given[0] ?? .double(0)
        },
        "abs": { _, value, _ in
            if case .double(let number) = value { return .double(abs(number)) }
            return value.wholeNumber?.isNegative ?? false
                ? try JinjaOperators.negative(value) : try JinjaOperators.positive(value)
        },
        "round": rounded,
        "tojson": { interpreter, value, arguments in
            .string(try JinjaJSON.text(value, arguments, interpreter))
        },
        "attr": { interpreter, value, arguments in
            guard case .string(let name)? = try arguments.bound(to: "attr", ["name"], required: 1)[0] else {
                return .undefined("attr() takes a string")
            }
            // Looks up methods only, never the keys of a dictionary.
            if case .object = value {
                return JinjaMethods.method(name, of: value) ?? .undefined("a dict has no attribute '\(name)'")
            }
            return try interpreter.attribute(name, of: value)
        },
    ]

    private static let defaulted: Filter = { _, value, arguments in
        let given = try arguments.bound(to: "default", ["default_value", "boolean"])
        let isReplaced = value.isUndefined || ((given[1]?.isTruthy ?? false) && !value.isTruthy)
        return isReplaced ? given[0] ?? .string("") : value
    }

    private static let counted: Filter = { interpreter, value, _ in .int(try interpreter.length(of: value)) }

    /// `int(value)`, nil where Jinja takes the default.
    /// - Throws: `arithmetic` for an infinite number; `undefined`.
    private static func integer(_ value: JinjaValue, base: Int) throws -> BigInteger? {
        if case .undefined(let undefined) = value { throw undefined.error }
        if let number = value.wholeNumber { return number }
        if case .string(let text) = value {
            if let number = PythonNumber.integer(text, base: base) { return number }
            // So that "42.23"|int gives 42.
            return PythonNumber.double(text).flatMap { $0.isFinite ? BigInteger(truncating: $0) : nil }
        }
        guard let number = value.number, !number.isNaN else { return nil }
        guard number.isFinite else { throw JinjaError(.arithmetic("an infinite number is no integer")) }
        return BigInteger(truncating: number)
    }

    private static let rounded: Filter = { _, value, arguments in
        let given = try arguments.bound(to: "round", ["precision", "method"])
        let precision = given[0]?.integer ?? 0
        var method = "common"
        if case .string(let name)? = given[1] { method = name }
        guard ["common", "ceil", "floor"].contains(method), abs(precision) <= 300 else {
            throw JinjaError(.arguments(function: "round", problem: "method must be common, ceil or floor"))
        }
        if method == "common", let whole = value.wholeNumber {
            return .integer(precision < 0 ? rounded(whole, toMultipleOf: power(-precision)) : whole)
        }
        guard let number = try value.floatingPoint() else {
            if case .undefined(let undefined) = value { throw undefined.error }
            throw JinjaError(.type(expected: "a number to round", found: value.typeName))
        }
        let scale = pow(10, Double(precision))
        switch method {
        case "ceil": return .double((number * scale).rounded(.up) / scale)
        case "floor": return .double((number * scale).rounded(.down) / scale)
        // Printing rounds the exact binary value, ties to even, as Python's round() does.
        default:
            guard precision >= 0 else { return .double((number * scale).rounded(.toNearestOrEven) / scale) }
            return .double(Double(String(format: "%.\(precision)f", number)) ?? number)
        }
    }

    private static func power(_ exponent: Int) -> BigInteger {
        (0..<exponent).reduce(BigInteger(1)) { product, _ in product * BigInteger(10) }
    }

    /// Ties go to the even multiple.
    private static func rounded(_ value: BigInteger, toMultipleOf unit: BigInteger) -> BigInteger {
        let (quotient, remainder) = value.dividedByFlooring(unit)
        let twice = remainder + remainder
        let isOdd = (quotient.limbs.first ?? 0) & 1 == 1
        return twice > unit || (twice == unit && isOdd) ? (quotient + BigInteger(1)) * unit : quotient * unit
    }
}
