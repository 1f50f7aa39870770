extension JinjaFilters {
    /// `map` and the four filters that select items by a test. All return iterators, which can be iterated once and are always true.
    static let selections: [String: Filter] = [
        "map": mapped,
        "select": selecting("select", keeps: true, byAttribute: false),
        "reject": selecting("reject", keeps: false, byAttribute: false),
        "selectattr": selecting("selectattr", keeps: true, byAttribute: true),
        "rejectattr": selecting("rejectattr", keeps: false, byAttribute: true),
    ]

    /// As in jinja2, false values such as none and 0 are empty sequences here.
    private static func elements(of value: JinjaValue, _ interpreter: JinjaInterpreter) throws -> [JinjaValue] {
        value.isTruthy ? try interpreter.elements(of: value) : []
    }

    private static let mapped: Filter = { interpreter, value, arguments in
        let items = try elements(of: value, interpreter)
        if arguments.positional.isEmpty, let path = arguments.named.first(where: { $0.key == "attribute" }) {
            let fallback = arguments.named.first { $0.key == "default" }?.value ?? .null
            return try interpreter.iterator(try items.map { try lookUp(path.value, in: $0, orElse: fallback, interpreter) })
        }
        guard case .string(let name)? = arguments.positional.first else {
            throw JinjaError(.arguments(function: "map", problem: "needs the name of a filter, or attribute="))
        }
        let rest = JinjaArguments(positional: Array(arguments.positional.dropFirst()), named: arguments.named)
        return try interpreter.iterator(try items.map { try interpreter.applyFilter(name, to: $0, rest) })
    }

    private static func selecting(_ name: String, keeps: Bool, byAttribute: Bool) -> Filter {
        { interpreter, value, arguments in
            var rest = arguments.positional[...]
            let path = byAttribute ? rest.popFirst() : JinjaValue.null
            guard let path else { throw JinjaError(.arguments(function: name, problem: "needs the name of an attribute")) }
            let test = rest.popFirst()
            let testArguments = JinjaArguments(positional: Array(rest), named: arguments.named)
            let kept = try elements(of: value, interpreter).filter { item in
                let subject = try lookUp(path, in: item, interpreter)
                guard let test else { return subject.isTruthy == keeps }
                guard case .string(let testName) = test else {
                    throw JinjaError(.arguments(function: name, problem: "the test must be named by a string"))
                }
                return try interpreter.applyTest(testName, to: subject, testArguments) == keeps
            }
            return try interpreter.iterator(kept)
        }
    }
}
