import NibbleCore

extension JinjaInterpreter {
    // Inlined into its callers, it would double the machine code of the interpreter and the stack of each level.
    @inline(never)
    func evaluate(_ expression: JinjaExpression) throws -> JinjaValue {
        line = expression.line
        return try nested { try evaluateKind(expression) }
    }

    // The cases are split over several functions: a single function would reserve the stack of all cases
    // at each level of the recursion.
    private func evaluateKind(_ expression: JinjaExpression) throws -> JinjaValue {
        switch expression.kind {
        case .constant(let value): value
        case .name(let name): scope.value(of: name) ?? .undefined("'\(name)' is undefined")
        case .list, .tuple, .dictionary: try evaluateLiteral(expression)
        case .attribute, .element, .slice: try evaluateAccess(expression)
        case .call: try evaluate(expression, caller: nil)
        case .filter, .test: try evaluateFilterOrTest(expression)
        case .negative, .positive, .arithmetic, .concatenation: try evaluateArithmetic(expression)
        case .not, .comparison, .and, .or, .conditional: try evaluateLogic(expression)
        }
    }

    private func evaluateLiteral(_ expression: JinjaExpression) throws -> JinjaValue {
        switch expression.kind {
        case .list(let items): try list(try items.map(evaluate))
        case .tuple(let items): try tuple(try items.map(evaluate))
        case .dictionary(let pairs): try evaluateDictionary(pairs)
        default: .null
        }
    }

    private func evaluateAccess(_ expression: JinjaExpression) throws -> JinjaValue {
        switch expression.kind {
        case .attribute(let base, let name): try attribute(name, of: try evaluate(base))
        case .element(let base, let key): try evaluateElement(base, key)
        case .slice(let base, let start, let stop, let step): try evaluateSlice(base, start, stop, step)
        default: .null
        }
    }

    private func evaluateFilterOrTest(_ expression: JinjaExpression) throws -> JinjaValue {
        switch expression.kind {
        case .filter(let value, let call): try evaluateFilter(value, call)
        case .test(let value, let call): try evaluateTest(value, call)
        default: .null
        }
    }

    private func evaluateArithmetic(_ expression: JinjaExpression) throws -> JinjaValue {
        switch expression.kind {
        case .negative(let inner): try JinjaOperators.negative(try evaluate(inner))
        case .positive(let inner): try JinjaOperators.positive(try evaluate(inner))
        case .arithmetic(let first, let rest): try evaluateChain(first, rest, line: expression.line)
        case .concatenation(let parts): try string(try parts.map { try text(of: try evaluate($0)) }.joined())
        default: .null
        }
    }

    private func evaluateLogic(_ expression: JinjaExpression) throws -> JinjaValue {
        switch expression.kind {
        case .not(let inner): .bool(!(try evaluate(inner).isTruthy))
        case .comparison(let first, let rest): try evaluateComparison(first, rest)
        case .and(let terms): try evaluateTerms(terms, until: false)
        case .or(let terms): try evaluateTerms(terms, until: true)
        case .conditional(let test, let then, let otherwise): try evaluateConditional(test, then, otherwise)
        default: .null
        }
    }

    private func evaluateElement(_ base: JinjaExpression, _ key: JinjaExpression) throws -> JinjaValue {
        let value = try evaluate(base)
        return try element(try evaluate(key), of: value)
    }

    private func evaluateDictionary(_ pairs: [(key: JinjaExpression, value: JinjaExpression)]) throws -> JinjaValue {
        var result = JinjaObject()
        for (key, value) in pairs {
            let key = try evaluate(key)
            try charge(key: key)
            try result.set(key, to: try evaluate(value))
        }
        return try object(result)
    }

    private func evaluateChain(
        _ first: JinjaExpression, _ rest: [(JinjaExpression.ArithmeticOperator, JinjaExpression)], line: Int
    ) throws -> JinjaValue {
        var value = try evaluate(first)
        for (symbol, operand) in rest {
            let right = try evaluate(operand)
            self.line = line
            value = try JinjaOperators.apply(symbol, value, right, self)
        }
        return value
    }

    /// `a < b < c` is `a < b and b < c`.
    private func evaluateComparison(
        _ first: JinjaExpression, _ rest: [(JinjaExpression.ComparisonOperator, JinjaExpression)]
    ) throws -> JinjaValue {
        var left = try evaluate(first)
        for (comparison, operand) in rest {
            let right = try evaluate(operand)
            guard try JinjaOperators.compare(comparison, left, right, self) else { return .bool(false) }
            left = right
        }
        return .bool(true)
    }

    /// `and` gives the first false value, `or` the first true one, or else the last.
    private func evaluateTerms(_ terms: [JinjaExpression], until wanted: Bool) throws -> JinjaValue {
        var value = JinjaValue.null
        for term in terms {
            value = try evaluate(term)
            if value.isTruthy == wanted { break }
        }
        return value
    }

    private func evaluateConditional(
        _ test: JinjaExpression, _ then: JinjaExpression, _ otherwise: JinjaExpression?
    ) throws -> JinjaValue {
        if try evaluate(test).isTruthy { return try evaluate(then) }
        return try otherwise.map(evaluate)
            ?? .undefined("the inline if-expression evaluated to false and no else section was defined")
    }

    private func evaluateSlice(
        _ base: JinjaExpression, _ start: JinjaExpression?, _ stop: JinjaExpression?, _ step: JinjaExpression?
    ) throws -> JinjaValue {
        let value = try evaluate(base)
        let bounds = try [start, stop, step].map { try $0.map(evaluate) ?? .null }
        return try slice(value, bounds)
    }

    // MARK: Calls, filters, tests

    /// Evaluates a call. `caller` is the macro that a call block passes.
    func evaluate(_ expression: JinjaExpression, caller: JinjaValue?) throws -> JinjaValue {
        guard case .call(let callee, let list) = expression.kind else { return try evaluate(expression) }
        let function = try evaluate(callee)
        var arguments = try evaluateArguments(list)
        if let caller { arguments.named.append(("caller", caller)) }
        line = expression.line
        return try call(function, arguments)
    }

    func evaluateArguments(_ list: JinjaArgumentList) throws -> JinjaArguments {
        var arguments = JinjaArguments()
        arguments.positional = try list.positional.map(evaluate)
        if let spread = list.spread { arguments.positional += try elements(of: try evaluate(spread)) }
        for (key, value) in list.named { arguments.named.append((key, try evaluate(value))) }
        for value in arguments.positional { try charge(scanning: value) }
        for (_, value) in arguments.named { try charge(scanning: value) }
        guard let spread = list.namedSpread else { return arguments }
        guard case .object(let object) = try evaluate(spread) else {
            throw JinjaError(.type(expected: "a dictionary after **", found: "another value"))
        }
        try charge(64 * object.count)
        for (key, value) in zip(object.keys, object.values) {
            guard case .string(let name) = key else {
                throw JinjaError(.type(expected: "string keys after **", found: key.typeName))
            }
            arguments.named.append((name, value))
        }
        return arguments
    }

    func call(_ function: JinjaValue, _ arguments: JinjaArguments) throws -> JinjaValue {
        switch function {
        case .undefined(let undefined): throw undefined.error
        case .opaque(let opaque):
            switch opaque.payload {
            case .function(_, let body): return try checkDepth(try body(self, arguments))
            case .macro(let macro): return try call(macro, arguments)
            case .loop(let loop):
                let items = try arguments.bound(to: "loop", ["iterable"], required: 1)[0] ?? .null
                return try loop.recurse(items)
            case .joiner(let separator):
                _ = try arguments.bound(to: "joiner", [])
                opaque.position += 1
                return opaque.position == 1 ? .string("") : separator
            default: break
            }
        default: break
        }
        throw JinjaError(.type(expected: "something that can be called", found: function.typeName))
    }

    private func evaluateFilter(_ value: JinjaExpression, _ call: JinjaFilterCall) throws -> JinjaValue {
        let input = try evaluate(value)
        let arguments = try evaluateArguments(call.arguments)
        line = call.line
        return try applyFilter(call.name, to: input, arguments)
    }

    private func evaluateTest(_ value: JinjaExpression, _ call: JinjaFilterCall) throws -> JinjaValue {
        let input = try evaluate(value)
        let arguments = try evaluateArguments(call.arguments)
        line = call.line
        return .bool(try applyTest(call.name, to: input, arguments))
    }

    func applyFilter(_ name: String, to value: JinjaValue, _ arguments: JinjaArguments) throws -> JinjaValue {
        guard let filter = JinjaFilters.all[name] else { throw JinjaError(.unknownFilter(name)) }
        try charge(scanning: value)
        return try nested { try filter(self, value, arguments) }
    }

    func applyTest(_ name: String, to value: JinjaValue, _ arguments: JinjaArguments) throws -> Bool {
        guard let test = JinjaTests.all[name] else { throw JinjaError(.unknownTest(name)) }
        try charge(scanning: value)
        return try test(self, value, arguments)
    }

    // MARK: Macros

    private func call(_ macro: JinjaMacro, _ arguments: JinjaArguments) throws -> JinjaValue {
        let definition = macro.definition
        let inner = JinjaScope(parent: macro.scope)
        var named = arguments.named
        func take(_ name: String) -> JinjaValue? {
            named.firstIndex { $0.key.hasSameBytes(as: name) }.map { named.remove(at: $0).value }
        }
        let (text, _) = try captured {
            try inScope(inner) {
                for (index, parameter) in definition.parameters.enumerated() {
                    let given = index < arguments.positional.count ? arguments.positional[index] : take(parameter.name)
                    inner.variables[parameter.name] =
                        try given ?? parameter.value.map(evaluate) ?? .undefined("parameter '\(parameter.name)' was not provided")
                }
                if definition.specials.contains("caller") {
                    inner.variables["caller"] = take("caller") ?? .undefined("no caller defined")
                }
                let extra = arguments.positional.dropFirst(definition.parameters.count)
                try bindRest(of: definition, Array(extra), named, in: inner)
                return try execute(definition.body)
            }
        }
        return .string(text)
    }

    /// Binds arguments without a parameter to `varargs` and `kwargs` if the body mentions them. Otherwise they are an error.
    private func bindRest(
        of definition: JinjaMacroDefinition, _ positional: [JinjaValue], _ named: [(key: String, value: JinjaValue)],
        in scope: JinjaScope
    ) throws {
        if definition.specials.contains("kwargs") {
            scope.variables["kwargs"] = try object(JinjaObject(named))
        } else if let extra = named.first {
            throw JinjaError(.arguments(function: definition.name, problem: "takes no keyword argument '\(extra.key)'"))
        }
        if definition.specials.contains("varargs") {
            scope.variables["varargs"] = try tuple(positional)
        } else if !positional.isEmpty {
            throw JinjaError(
                .arguments(function: definition.name, problem: "takes not more than \(definition.parameters.count) arguments"))
        }
    }
}
