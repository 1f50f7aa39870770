import NibbleCore

extension JinjaParser {
    /// Parses statements up to a tag named in `ends`, whose name is consumed and returned. Without `ends`, up to the end of the template.
    mutating func parseBody(until ends: [String]) throws -> (body: [JinjaStatement], end: String) {
        try nested { try $0.parseBodyStatements(until: ends) }
    }

    private mutating func parseBodyStatements(until ends: [String]) throws -> (body: [JinjaStatement], end: String) {
        var body: [JinjaStatement] = []
        while true {
            let line = line
            switch current.kind {
            case .text:
                body.append(JinjaStatement(kind: .text(current.text), line: line))
                advance()
            case .outputBegin:
                advance()
                body.append(JinjaStatement(kind: .output([try parseTuple()]), line: line))
                _ = try expect(.outputEnd, "'}}'")
            case .tagBegin:
                advance()
                if current.kind == .name, ends.contains(current.text) {
                    defer { advance() }
                    return (body, current.text)
                }
                body.append(JinjaStatement(kind: try parseTag(ends), line: line))
                _ = try expect(.tagEnd, "'%}'")
            default:
                guard ends.isEmpty else { throw unexpected(expectation(ends)) }
                return (body, "")
            }
        }
    }

    private func expectation(_ ends: [String]) -> String {
        ends.map { "'{% \($0) %}'" }.joined(separator: " or ")
    }

    /// The rest of an opening tag, then its body.
    private mutating func parseBlock(until ends: String...) throws -> (body: [JinjaStatement], end: String) {
        _ = skipSymbol(":")
        _ = try expect(.tagEnd, "'%}'")
        return try parseBody(until: ends)
    }

    private mutating func parseTag(_ ends: [String]) throws -> JinjaStatement.Kind {
        let token = try expect(.name, "the name of a tag")
        switch token.text {
        case "for": return .loop(try parseFor())
        case "if": return try parseIf()
        case "set": return try parseSet()
        case "macro": return .macro(try parseMacro())
        case "call": return try parseCallBlock()
        case "filter": return try parseFilterBlock()
        case "with": return try parseWith()
        case "print": return .output(try parsePrint())
        case "generation": return .generation(try closureBody { try $0.parseBlock(until: "endgeneration").body })
        case "block": return try parseTemplateBlock()
        case "break", "continue":
            guard loops > 0 else {
                throw JinjaError(.syntax(expected: "a loop around '\(token.text)'", found: "none"), line: token.line)
            }
            return token.text == "break" ? .leaveLoop : .nextIteration
        default:
            guard !token.text.hasPrefix("end"), !["else", "elif"].contains(token.text) else {
                let expected = ends.isEmpty ? "a tag that opens a block" : expectation(ends)
                throw JinjaError(.syntax(expected: expected, found: "'{% \(token.text) %}'"), line: token.line)
            }
            throw JinjaError(.unsupportedTag(token.text), line: token.line)
        }
    }

    private mutating func parseTemplateBlock() throws -> JinjaStatement.Kind {
        let name = try expectName()
        guard blockNames.insert(ByteText(name)).inserted else {
            throw JinjaError(.syntax(expected: "each block once", found: "a second '\(name)'"), line: line)
        }
        let isScoped = skipName("scoped")
        let body = try closureBody { try $0.parseBlock(until: "endblock").body }
        _ = skipName(name)
        return .block(body, isScoped: isScoped)
    }

    // MARK: Loops and branches

    private mutating func parseFor() throws -> JinjaStatement.Loop {
        let target = try parseTarget(allowsAttribute: false)
        guard !target.names.contains("loop") else {
            throw JinjaError(.syntax(expected: "a loop variable not named 'loop'", found: "'loop'"), line: line)
        }
        guard skipName("in") else { throw unexpected("'in'") }
        let sequence = try parseTuple(allowsConditional: false, end: "recursive")
        let condition = skipName("if") ? try parseExpression() : nil
        let isRecursive = skipName("recursive")
        loops += 1
        let (body, end) = try parseBlock(until: "endfor", "else")
        loops -= 1
        let otherwise = end == "else" ? try parseBlock(until: "endfor").body : []
        return JinjaStatement.Loop(
            target: target, sequence: sequence, condition: condition, isRecursive: isRecursive, body: body,
            otherwise: otherwise)
    }

    private mutating func parseIf() throws -> JinjaStatement.Kind {
        var branches: [(test: JinjaExpression, body: [JinjaStatement])] = []
        while true {
            let test = try parseTuple(allowsConditional: false)
            let (body, end) = try parseBlock(until: "elif", "else", "endif")
            branches.append((test, body))
            switch end {
            case "elif": continue
            case "else": return .branch(branches, otherwise: try parseBlock(until: "endif").body)
            default: return .branch(branches, otherwise: [])
            }
        }
    }

    // MARK: Assignments

    private mutating func parseSet() throws -> JinjaStatement.Kind {
        let target = try parseTarget(allowsAttribute: true)
        if skipSymbol("=") { return .set(target, try parseTuple()) }
        let filters = try parseFilters()
        return .setBlock(target, filters, try parseBlock(until: "endset").body)
    }

    private mutating func parseWith() throws -> JinjaStatement.Kind {
        var assignments: [(JinjaTarget, JinjaExpression)] = []
        while current.kind != .tagEnd, !isSymbol(":") {
            if !assignments.isEmpty { try expectSymbol(",") }
            let target = try parseTargetItem(allowsAttribute: false)
            try expectSymbol("=")
            assignments.append((target, try parseExpression()))
        }
        return .with(assignments, try parseBlock(until: "endwith").body)
    }

    private mutating func parseTarget(allowsAttribute: Bool) throws -> JinjaTarget {
        var items = [try parseTargetItem(allowsAttribute: allowsAttribute)]
        var isTuple = false
        while skipSymbol(",") {
            isTuple = true
            guard current.kind == .name && !isName("in") || isSymbol("(") else { break }
            items.append(try parseTargetItem(allowsAttribute: allowsAttribute))
        }
        return isTuple ? .tuple(items) : items[0]
    }

    private mutating func parseTargetItem(allowsAttribute: Bool) throws -> JinjaTarget {
        if skipSymbol("(") {
            let inner = try nested { try $0.parseTarget(allowsAttribute: allowsAttribute) }
            try expectSymbol(")")
            return inner
        }
        guard current.kind == .name, !["true", "false", "none", "True", "False", "None"].contains(current.text) else {
            throw unexpected("a name to assign to")
        }
        let name = try expectName()
        guard allowsAttribute, skipSymbol(".") else { return .name(name) }
        recordRead(name)
        return .attribute(of: name, try expectName())
    }

    // MARK: Macros

    private mutating func parseMacro() throws -> JinjaMacroDefinition {
        let name = try expectName()
        return try parseMacroParts(name: name, end: "endmacro", signature: true)
    }

    private mutating func parseCallBlock() throws -> JinjaStatement.Kind {
        let hasSignature = isSymbol("(")
        var parameters: [(name: String, value: JinjaExpression?)] = []
        if hasSignature { parameters = try parseSignature() }
        let call = try parseExpression()
        guard case .call = call.kind else {
            throw JinjaError(.syntax(expected: "a call", found: "another expression"), line: call.line)
        }
        let (body, names) = try collectingReads { try $0.parseBlock(until: "endcall").body }
        return .call(call, definition("caller", parameters, body, names))
    }

    private mutating func parseMacroParts(name: String, end: String, signature: Bool) throws -> JinjaMacroDefinition {
        let parameters = signature ? try parseSignature() : []
        let (body, names) = try collectingReads { try $0.parseBlock(until: end).body }
        return definition(name, parameters, body, names)
    }

    private func definition(
        _ name: String, _ parameters: [(name: String, value: JinjaExpression?)], _ body: [JinjaStatement], _ names: Set<String>
    ) -> JinjaMacroDefinition {
        let specials = names.intersection(["caller", "varargs", "kwargs"]).subtracting(parameters.map(\.name))
        return JinjaMacroDefinition(name: name, parameters: parameters, body: body, specials: specials)
    }

    private mutating func parseSignature() throws -> [(name: String, value: JinjaExpression?)] {
        var parameters: [(name: String, value: JinjaExpression?)] = []
        try expectSymbol("(")
        while !isSymbol(")") {
            if !parameters.isEmpty { try expectSymbol(",") }
            let name = try expectName()
            let value = skipSymbol("=") ? try parseExpression() : nil
            if value == nil, parameters.last?.value != nil { throw unexpected("a default value for '\(name)'") }
            parameters.append((name, value))
        }
        try expectSymbol(")")
        return parameters
    }

    /// Parses a body from which the loops around it cannot be left.
    private mutating func closureBody<T>(_ rule: (inout JinjaParser) throws -> T) throws -> T {
        let outer = loops
        loops = 0
        defer { loops = outer }
        return try rule(&self)
    }

    private mutating func collectingReads(
        _ rule: (inout JinjaParser) throws -> [JinjaStatement]
    ) throws -> ([JinjaStatement], Set<String>) {
        readNames.append([])
        let body = try closureBody(rule)
        let names = readNames.removeLast()
        if let outer = readNames.indices.last { readNames[outer].formUnion(names) }
        return (body, names)
    }

    mutating func recordRead(_ name: String) {
        if let last = readNames.indices.last { readNames[last].insert(name) }
    }

    // MARK: The rest

    private mutating func parseFilterBlock() throws -> JinjaStatement.Kind {
        var filters = [try parseFilterCall()]
        filters += try parseFilters()
        return .filter(filters, try parseBlock(until: "endfilter").body)
    }

    private mutating func parseFilters() throws -> [JinjaFilterCall] {
        var filters: [JinjaFilterCall] = []
        while skipSymbol("|") { filters.append(try parseFilterCall()) }
        return filters
    }

    private mutating func parsePrint() throws -> [JinjaExpression] {
        var expressions: [JinjaExpression] = []
        while current.kind != .tagEnd {
            if !expressions.isEmpty { try expectSymbol(",") }
            expressions.append(try parseExpression())
        }
        return expressions
    }
}

extension JinjaTarget {
    var names: [String] {
        switch self {
        case .name(let name): [name]
        case .attribute: []
        case .tuple(let items): items.flatMap(\.names)
        }
    }
}
