import Foundation

/// The filters behind `|`. The value comes first; parameters have the names that Jinja gives them.
enum JinjaFilters {
    typealias Filter = @Sendable (JinjaInterpreter, JinjaValue, JinjaArguments) throws -> JinjaValue

    static let all: [String: Filter] = strings.merging(sequences) { $1 }.merging(selections) { $1 }.merging(values) { $1 }

    private static let values: [String: Filter] = [
        "default": defaulted, "d": defaulted,
        "length": counted, "count": counted,
        "int": { _, value, arguments in
            let given = try arguments.bound(to: "int", ["default", "base"])
            return try integer(value, base: given[1]?.integer ?? 10).map(JinjaValue.int) ?? given[0] ?? .int(0)
        },
        "float": { _, value, arguments in
            let given = try arguments.bound(to: "float", ["default"])
            if case .undefined(let undefined) = value { throw undefined.error }
            if case .string(let text) = value {
                return PythonNumber.double(text).map(JinjaValue.double) ?? given[0] ?? .double(0)
            }
            return value.number.map(JinjaValue.double) ?? given[0] ?? .double(0)
        },
        "abs": { _, value, _ in
            if case .double(let number) = value { return .double(abs(number)) }
            return (value.integer ?? 0) < 0 ? try JinjaOperators.negative(value) : try JinjaOperators.positive(value)
        },
        "round": rounded,
        "tojson": { interpreter, value, arguments in
            .string(try JinjaJSON.text(value, try JinjaJSON.Style(arguments), interpreter))
        },
        "attr": { interpreter, value, arguments in
            guard case .string(let name)? = try arguments.bound(to: "attr", ["name"], required: 1)[0] else {
                return .undefined("attr() takes a string")
            }
            // Only what the type offers, not what a dictionary holds.
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

    /// `int(value)`, nil where Python gives up and takes the default.
    /// - Throws: `arithmetic` where Python's integer would not fit 64 bits; `undefined`.
    private static func integer(_ value: JinjaValue, base: Int) throws -> Int? {
        if case .undefined(let undefined) = value { throw undefined.error }
        if let number = value.integer { return number }
        var number: Double?
        if case .string(let text) = value {
            if let number = PythonNumber.integer(text, base: base) { return number }
            number = PythonNumber.double(text)
            if number?.isInfinite ?? false { return nil }
        } else {
            number = value.number
        }
        guard let number, !number.isNaN else { return nil }
        guard let whole = Int(exactly: number.rounded(.towardZero)) else {
            throw JinjaError(.arithmetic("the number \(PythonNumber.text(number)) does not fit 64 bits"))
        }
        return whole
    }

    private static let rounded: Filter = { _, value, arguments in
        let given = try arguments.bound(to: "round", ["precision", "method"])
        let precision = given[0]?.integer ?? 0
        var method = "common"
        if case .string(let name)? = given[1] { method = name }
        guard ["common", "ceil", "floor"].contains(method), abs(precision) <= 300 else {
            throw JinjaError(.arguments(function: "round", problem: "method must be common, ceil or floor"))
        }
        guard let number = value.number else {
            if case .undefined(let undefined) = value { throw undefined.error }
            throw JinjaError(.type(expected: "a number to round", found: value.typeName))
        }
        let scale = pow(10, Double(precision))
        switch method {
        case "ceil": return .double((number * scale).rounded(.up) / scale)
        case "floor": return .double((number * scale).rounded(.down) / scale)
        default:
            if value.integer != nil, precision >= 0 { return try JinjaOperators.positive(value) }
            guard precision >= 0 else {
                let result = (number * scale).rounded(.toNearestOrEven) / scale
                return value.integer != nil ? Int(exactly: result).map(JinjaValue.int) ?? .double(result) : .double(result)
            }
            // Printing rounds the exact binary value, ties to even, as Python's round() does.
            return .double(Double(String(format: "%.\(precision)f", number)) ?? number)
        }
    }
}
