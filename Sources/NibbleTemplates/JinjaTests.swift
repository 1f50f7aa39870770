/// The tests that `is`, `select`, `selectattr` and their opposites name.
enum JinjaTests {
    typealias Test = @Sendable (JinjaInterpreter, JinjaValue, JinjaArguments) throws -> Bool

    static let all: [String: Test] = kinds.merging(comparisons) { $1 }

    private static let kinds: [String: Test] = [
        "defined": { _, value, _ in !value.isUndefined },
        "undefined": { _, value, _ in value.isUndefined },
        "none": { _, value, _ in value.isNull },
        "boolean": { _, value, _ in bool(value) != nil },
        "true": { _, value, _ in bool(value) == true },
        "false": { _, value, _ in bool(value) == false },
        "integer": { _, value, _ in
            switch value {
            case .int, .bigInteger: true
            default: false
            }
        },
        "float": { _, value, _ in if case .double = value { true } else { false } },
        "number": { _, value, _ in value.number != nil },
        "string": { _, value, _ in if case .string = value { true } else { false } },
        "mapping": { _, value, _ in if case .object = value { true } else { false } },
        "sequence": { _, value, _ in isSequence(value) },
        "iterable": { _, value, _ in isIterable(value) },
        "callable": { _, value, _ in isCallable(value) },
        "escaped": { _, _, _ in false },
        "odd": { interpreter, value, _ in try remainder(value, 2, interpreter) == 1 },
        "even": { interpreter, value, _ in try remainder(value, 2, interpreter) == 0 },
        "divisibleby": { interpreter, value, arguments in
            try remainder(value, try argument("divisibleby", arguments), interpreter) == 0
        },
        "lower": { interpreter, value, _ in try isUniform(value, upper: false, interpreter) },
        "upper": { interpreter, value, _ in try isUniform(value, upper: true, interpreter) },
        "sameas": { interpreter, value, arguments in try isSame(value, try argument("sameas", arguments), interpreter) },
        "in": comparison("in", .contained),
        "filter": { _, value, _ in try name(value).map { JinjaFilters.all[$0] != nil } ?? false },
        "test": { _, value, _ in try name(value).map(isKnown) ?? false },
    ]

    private static let comparisons: [String: Test] = {
        var tests: [String: Test] = [:]
        let names: [(JinjaExpression.ComparisonOperator, [String])] = [
            (.equal, ["==", "eq", "equalto"]), (.notEqual, ["!=", "ne"]), (.less, ["<", "lt", "lessthan"]),
            (.lessOrEqual, ["<=", "le"]),
            (.greater, [">", "gt", "greaterthan"]), (.greaterOrEqual, [">=", "ge"]),
        ]
        for (symbol, spellings) in names {
            for spelling in spellings { tests[spelling] = comparison(spelling, symbol) }
        }
        return tests
    }()

    private static func comparison(_ name: String, _ symbol: JinjaExpression.ComparisonOperator) -> Test {
        { interpreter, value, arguments in try JinjaOperators.compare(symbol, value, try argument(name, arguments), interpreter) }
    }

    private static func isUniform(_ value: JinjaValue, upper: Bool, _ interpreter: JinjaInterpreter) throws -> Bool {
        let text = try interpreter.text(of: value)
        try interpreter.charge(4 * text.utf8.count)
        return PythonText.isUniform(text, upper: upper)
    }

    /// A name to look up, which Python's dictionaries can only do with what they can hash.
    private static func name(_ value: JinjaValue) throws -> String? {
        if case .string(let name) = value { return name }
        _ = try JinjaKey(value)
        return nil
    }

    private static func isKnown(_ name: String) -> Bool { all[name] != nil }

    private static func argument(_ name: String, _ arguments: JinjaArguments) throws -> JinjaValue {
        try arguments.bound(to: name, ["other"], required: 1)[0] ?? .null
    }

    private static func bool(_ value: JinjaValue) -> Bool? {
        if case .bool(let flag) = value { return flag }
        return nil
    }

    private static func remainder(
        _ value: JinjaValue, _ divisor: JinjaValue, _ interpreter: JinjaInterpreter
    ) throws -> JinjaValue { try JinjaOperators.apply(.modulo, value, divisor, interpreter) }

    /// Has a length and elements by index or key.
    private static func isSequence(_ value: JinjaValue) -> Bool {
        switch value {
        case .undefined, .string, .array, .tuple, .object: return true
        case .opaque(let opaque):
            if case .range = opaque.payload { return true }
            return false
        default: return false
        }
    }

    private static func isIterable(_ value: JinjaValue) -> Bool {
        guard case .opaque(let opaque) = value else { return isSequence(value) }
        switch opaque.payload {
        case .iterator, .view, .range, .loop: return true
        default: return false
        }
    }

    private static func isCallable(_ value: JinjaValue) -> Bool {
        switch value {
        // jinja2's Undefined defines `__call__`, which raises.
        case .undefined: return true
        case .opaque(let opaque):
            switch opaque.payload {
            case .function, .macro, .loop, .joiner: return true
            default: return false
            }
        default: return false
        }
    }

    /// Python's `is`, for values that have identity here.
    private static func isSame(_ a: JinjaValue, _ b: JinjaValue, _ interpreter: JinjaInterpreter) throws -> Bool {
        switch (a, b) {
        case (.opaque(let x), .opaque(let y)): x === y
        default: try a.typeName == b.typeName && JinjaOperators.equal(a, b, interpreter)
        }
    }
}
