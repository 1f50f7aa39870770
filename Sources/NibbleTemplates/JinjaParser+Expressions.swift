extension JinjaParser {
    mutating func parseExpression(allowsConditional: Bool = true) throws -> JinjaExpression {
        try nested { try allowsConditional ? $0.parseConditional() : $0.parseOr() }
    }

    /// Expressions separated by commas make a tuple, parentheses or not.
    /// - Parameter end: a name that ends the tuple as `)` or the end of the tag does.
    mutating func parseTuple(allowsConditional: Bool = true, end: String? = nil, inParentheses: Bool = false) throws
        -> JinjaExpression
    {
        let line = line
        var items: [JinjaExpression] = []
        var isTuple = false
        while !isTupleEnd(end) {
            items.append(try parseExpression(allowsConditional: allowsConditional))
            guard skipSymbol(",") else { break }
            isTuple = true
        }
        if !isTuple, let single = items.first { return single }
        guard isTuple || inParentheses else { throw unexpected("an expression") }
        return try node(.tuple(items), line: line, over: items)
    }

    private func isTupleEnd(_ end: String?) -> Bool {
        current.kind == .outputEnd || current.kind == .tagEnd || isSymbol(")") || (end.map(isName) ?? false)
    }

    // MARK: Operators, loosest first

    private mutating func parseConditional() throws -> JinjaExpression {
        var value = try parseOr()
        while isName("if") {
            let line = line
            advance()
            let test = try parseOr()
            let otherwise = skipName("else") ? try nested { try $0.parseConditional() } : nil
            let children = [test, value] + (otherwise.map { [$0] } ?? [])
            value = try node(.conditional(test: test, then: value, otherwise: otherwise), line: line, over: children)
        }
        return value
    }

    private mutating func parseOr() throws -> JinjaExpression {
        let line = line
        var terms = [try parseAnd()]
        while skipName("or") { terms.append(try parseAnd()) }
        return terms.count == 1 ? terms[0] : try node(.or(terms), line: line, over: terms)
    }

    private mutating func parseAnd() throws -> JinjaExpression {
        let line = line
        var terms = [try parseNot()]
        while skipName("and") { terms.append(try parseNot()) }
        return terms.count == 1 ? terms[0] : try node(.and(terms), line: line, over: terms)
    }

    private mutating func parseNot() throws -> JinjaExpression {
        let line = line
        guard skipName("not") else { return try parseComparison() }
        let inner = try nested { try $0.parseNot() }
        return try node(.not(inner), line: line, over: [inner])
    }

    private mutating func parseComparison() throws -> JinjaExpression {
        let line = line
        let first = try parseSum()
        var rest: [(JinjaExpression.ComparisonOperator, JinjaExpression)] = []
        while let comparison = takeComparison() { rest.append((comparison, try parseSum())) }
        return rest.isEmpty ? first : try node(.comparison(first, rest), line: line, over: [first] + rest.map(\.1))
    }

    private mutating func takeComparison() -> JinjaExpression.ComparisonOperator? {
        if current.kind == .symbol, let comparison = JinjaExpression.ComparisonOperator(rawValue: current.text) {
            advance()
            return comparison
        }
        if skipName("in") { return .contained }
        guard isName("not"), next.kind == .name, next.text == "in" else { return nil }
        advance()
        advance()
        return .notContained
    }

    private mutating func parseSum() throws -> JinjaExpression {
        try parseChain([.add, .subtract]) { try $0.parseConcatenation() }
    }

    private mutating func parseConcatenation() throws -> JinjaExpression {
        let line = line
        var parts = [try parseProduct()]
        while skipSymbol("~") { parts.append(try parseProduct()) }
        return parts.count == 1 ? parts[0] : try node(.concatenation(parts), line: line, over: parts)
    }

    private mutating func parseProduct() throws -> JinjaExpression {
        try parseChain([.multiply, .divide, .floorDivide, .modulo]) { parser in
            try parser.parseChain([.power]) { try $0.parseUnary() }
        }
    }

    /// `a op b op c`, from left to right; powers too, unlike Python's.
    private mutating func parseChain(
        _ operators: [JinjaExpression.ArithmeticOperator], _ operand: (inout JinjaParser) throws -> JinjaExpression
    ) throws -> JinjaExpression {
        let line = line
        let first = try operand(&self)
        var rest: [(JinjaExpression.ArithmeticOperator, JinjaExpression)] = []
        while current.kind == .symbol, let symbol = JinjaExpression.ArithmeticOperator(rawValue: current.text),
            operators.contains(symbol)
        {
            advance()
            rest.append((symbol, try operand(&self)))
        }
        return rest.isEmpty ? first : try node(.arithmetic(first, rest), line: line, over: [first] + rest.map(\.1))
    }

    /// A sign binds less tightly than `.`, `[]` and calls, and more tightly than filters: `-1|abs` is 1.
    private mutating func parseUnary(withFilters: Bool = true) throws -> JinjaExpression {
        let line = line
        var value: JinjaExpression
        if skipSymbol("-") {
            let inner = try nested { try $0.parseUnary(withFilters: false) }
            value = try node(.negative(inner), line: line, over: [inner])
        } else if skipSymbol("+") {
            let inner = try nested { try $0.parseUnary(withFilters: false) }
            value = try node(.positive(inner), line: line, over: [inner])
        } else {
            value = try parsePrimary()
        }
        value = try parsePostfix(value)
        return withFilters ? try parseFiltersAndTests(value) : value
    }

    // MARK: Literals and names

    private mutating func parsePrimary() throws -> JinjaExpression {
        let token = current
        switch token.kind {
        case .name:
            advance()
            return try parseName(token)
        case .string:
            var text = ""
            while current.kind == .string {
                text += current.text
                advance()
            }
            return try node(.constant(.string(text)), line: token.line)
        case .integer, .float:
            advance()
            return try node(.constant(try number(token)), line: token.line)
        case .symbol where token.text == "(":
            advance()
            let inner = try parseTuple(inParentheses: true)
            try expectSymbol(")")
            return inner
        case .symbol where token.text == "[": return try parseList()
        case .symbol where token.text == "{": return try parseDictionary()
        default: throw unexpected("an expression")
        }
    }

    private mutating func parseName(_ token: JinjaToken) throws -> JinjaExpression {
        switch token.text {
        case "true", "True": return try node(.constant(.bool(true)), line: token.line)
        case "false", "False": return try node(.constant(.bool(false)), line: token.line)
        case "none", "None": return try node(.constant(.null), line: token.line)
        default:
            recordRead(token.text)
            return try node(.name(token.text), line: token.line)
        }
    }

    private func number(_ token: JinjaToken) throws -> JinjaValue {
        if token.kind == .float, let value = Double(token.text) { return .double(value) }
        let radixes: [String: UInt32] = ["0b": 2, "0o": 8, "0x": 16]
        let radix = radixes[String(token.text.prefix(2)).lowercased()]
        let digits = radix == nil ? token.text : String(token.text.dropFirst(2))
        guard digits.utf8.count <= BigInteger.decimalDigits, let value = BigInteger(digits, radix: radix ?? 10) else {
            throw JinjaError(.arithmetic("an integer of \(digits.utf8.count) digits"), line: token.line)
        }
        return .integer(value)
    }

    private mutating func parseList() throws -> JinjaExpression {
        let line = line
        var items: [JinjaExpression] = []
        try expectSymbol("[")
        while !isSymbol("]") {
            if !items.isEmpty {
                try expectSymbol(",")
                if isSymbol("]") { break }
            }
            items.append(try parseExpression())
        }
        try expectSymbol("]")
        return try node(.list(items), line: line, over: items)
    }

    private mutating func parseDictionary() throws -> JinjaExpression {
        let line = line
        var pairs: [(key: JinjaExpression, value: JinjaExpression)] = []
        try expectSymbol("{")
        while !isSymbol("}") {
            if !pairs.isEmpty {
                try expectSymbol(",")
                if isSymbol("}") { break }
            }
            let key = try parseExpression()
            try expectSymbol(":")
            pairs.append((key, try parseExpression()))
        }
        try expectSymbol("}")
        return try node(.dictionary(pairs), line: line, over: pairs.flatMap { [$0.key, $0.value] })
    }

    // MARK: Postfixes

    private mutating func parsePostfix(_ base: JinjaExpression) throws -> JinjaExpression {
        var value = base
        while current.kind == .symbol {
            switch current.text {
            case ".": value = try parseAttribute(value)
            case "[": value = try parseElement(value)
            case "(": value = try parseCall(value)
            default: return value
            }
        }
        return value
    }

    private mutating func parseFiltersAndTests(_ base: JinjaExpression) throws -> JinjaExpression {
        var value = base
        while true {
            let line = line
            if skipSymbol("|") {
                let call = try parseFilterCall()
                value = try node(.filter(value, call), line: line, over: [value], depth: call.arguments.depth)
            } else if skipName("is") {
                value = try parseTest(value, line: line)
            } else if isSymbol("(") {
                value = try parseCall(value)
            } else {
                return value
            }
        }
    }

    private mutating func parseAttribute(_ base: JinjaExpression) throws -> JinjaExpression {
        let line = line
        try expectSymbol(".")
        let token = current
        advance()
        switch token.kind {
        case .name: return try node(.attribute(base, token.text), line: line, over: [base])
        case .integer:
            let index = try node(.constant(try number(token)), line: token.line)
            return try node(.element(base, index), line: line, over: [base])
        default: throw JinjaError(.syntax(expected: "a name or a number after '.'", found: token.description), line: token.line)
        }
    }

    private mutating func parseElement(_ base: JinjaExpression) throws -> JinjaExpression {
        let line = line
        try expectSymbol("[")
        if let slice = try parseSlice(of: base, line: line) { return slice }
        var items = [try parseExpression()]
        if isSymbol(":") {
            guard let slice = try parseSlice(of: base, from: items[0], line: line) else { throw unexpected("':'") }
            return slice
        }
        while skipSymbol(",") { items.append(try parseExpression()) }
        try expectSymbol("]")
        let key = items.count == 1 ? items[0] : try node(.tuple(items), line: line, over: items)
        return try node(.element(base, key), line: line, over: [base, key])
    }

    /// `[start:stop:step]` from its first colon on; nil if there is none here.
    private mutating func parseSlice(of base: JinjaExpression, from start: JinjaExpression? = nil, line: Int) throws
        -> JinjaExpression?
    {
        guard skipSymbol(":") else { return nil }
        let stop = isSymbol(":") || isSymbol("]") ? nil : try parseExpression()
        let step = skipSymbol(":") && !isSymbol("]") ? try parseExpression() : nil
        try expectSymbol("]")
        return try node(
            .slice(base, start: start, stop: stop, step: step), line: line, over: [base] + [start, stop, step].compactMap { $0 })
    }

    private mutating func parseCall(_ callee: JinjaExpression) throws -> JinjaExpression {
        let line = line
        let arguments = try parseArguments()
        return try node(.call(callee, arguments), line: line, over: [callee], depth: arguments.depth)
    }

    private mutating func parseArguments() throws -> JinjaArgumentList {
        var list = JinjaArgumentList()
        var isFirst = true
        try expectSymbol("(")
        while !isSymbol(")") {
            if !isFirst {
                try expectSymbol(",")
                if isSymbol(")") { break }
            }
            isFirst = false
            try parseArgument(&list)
        }
        try expectSymbol(")")
        return list
    }

    private mutating func parseArgument(_ list: inout JinjaArgumentList) throws {
        if isSymbol("**"), list.namedSpread == nil {
            advance()
            list.namedSpread = try parseExpression()
        } else if isSymbol("*"), list.spread == nil, list.namedSpread == nil {
            advance()
            list.spread = try parseExpression()
        } else if current.kind == .name, next.kind == .symbol, next.text == "=", list.namedSpread == nil {
            let name = try expectName()
            advance()
            list.named.append((name, try parseExpression()))
        } else {
            guard list.named.isEmpty, list.spread == nil, list.namedSpread == nil else { throw unexpected("a named argument") }
            list.positional.append(try parseExpression())
        }
    }

    mutating func parseFilterCall() throws -> JinjaFilterCall {
        let line = line
        var name = try expectName()
        while skipSymbol(".") { name += "." + (try expectName()) }
        let arguments = isSymbol("(") ? try parseArguments() : JinjaArgumentList()
        return JinjaFilterCall(name: name, arguments: arguments, line: line)
    }

    /// After `is`: perhaps `not`, a name, and arguments in parentheses or a single one without.
    private mutating func parseTest(_ value: JinjaExpression, line: Int) throws -> JinjaExpression {
        let isNegated = skipName("not")
        var name = try expectName()
        while skipSymbol(".") { name += "." + (try expectName()) }
        var arguments = JinjaArgumentList()
        if isSymbol("(") {
            arguments = try parseArguments()
        } else if startsTestArgument {
            guard !isName("is") else { throw unexpected("one test") }
            arguments.positional = [try parsePostfix(try parsePrimary())]
        }
        let call = JinjaFilterCall(name: name, arguments: arguments, line: line)
        let test = try node(.test(value, call), line: line, over: [value], depth: arguments.depth)
        return isNegated ? try node(.not(test), line: line, over: [test]) : test
    }

    private var startsTestArgument: Bool {
        switch current.kind {
        case .name: !["else", "or", "and"].contains(current.text)
        case .string, .integer, .float: true
        case .symbol: current.text == "[" || current.text == "{"
        default: false
        }
    }
}
