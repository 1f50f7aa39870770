/// Turns syntax trees of regular expressions into expressions over bytes.
struct RegexCompiler {
    /// How characters are written: as UTF-8, or within JSON strings.
    enum Spelling {
        case plain
        case json
    }

    let spelling: Spelling
    /// The pattern's text, for errors.
    let text: String
    private static let maximumNodes = 200_000

    init(_ text: String, _ spelling: Spelling) {
        self.text = text
        self.spelling = spelling
    }

    /// The texts that match as a whole.
    static func whole(
        _ text: String, _ spelling: Spelling, _ pool: inout ExpressionPool, _ json: inout JSONText
    ) throws(GrammarError) -> Expression {
        let compiler = RegexCompiler(text, spelling)
        return try compiler.branch(try RegexParser.parse(text), isSearched: false, &pool, &json)
    }

    /// The texts that hold a match anywhere.
    static func search(
        _ text: String, _ spelling: Spelling, _ pool: inout ExpressionPool, _ json: inout JSONText
    ) throws(GrammarError) -> Expression {
        let compiler = RegexCompiler(text, spelling)
        return try compiler.branch(try RegexParser.parse(text), isSearched: true, &pool, &json)
    }

    private func error(_ problem: String) -> GrammarError { .pattern(text, problem: problem) }

    private func anyText(_ pool: inout ExpressionPool, _ json: inout JSONText) -> Expression {
        pool.star(character(.all, &pool, &json))
    }

    private func character(_ set: ScalarRanges, _ pool: inout ExpressionPool, _ json: inout JSONText) -> Expression {
        switch spelling {
        case .plain: pool.utf8(set)
        case .json: json.character(set, &pool)
        }
    }

    /// A tree whose ends may be anchored.
    private func branch(
        _ node: RegexNode, isSearched: Bool, _ pool: inout ExpressionPool, _ json: inout JSONText
    ) throws(GrammarError) -> Expression {
        if case .alternatives(let branches) = node {
            var parts: [Expression] = []
            for part in branches { parts.append(try branch(part, isSearched: isSearched, &pool, &json)) }
            return pool.either(parts)
        }
        var parts = [node]
        if case .sequence(let inner) = node { parts = inner }
        let any = anyText(&pool, &json)
        var prefix = isSearched ? any : ExpressionPool.empty
        var result = isSearched ? any : ExpressionPool.empty
        if case .start? = parts.first {
            prefix = ExpressionPool.empty
            parts.removeFirst()
        }
        if case .end? = parts.last {
            result = ExpressionPool.empty
            parts.removeLast()
        }
        if parts.count == 1, case .alternatives(let branches) = parts[0], branches.contains(where: Self.isAnchored) {
            guard isSearched, prefix == any, result == any else { throw error("anchors inside") }
            return try branch(parts[0], isSearched: true, &pool, &json)
        }
        // From the end, so that a look-ahead sees all that follows it.
        for part in parts.reversed() {
            if case .lookAhead(let inner, let isNegative) = part {
                let ahead = pool.sequence(try lookedAt(inner, &pool, &json), any)
                result = pool.both([isNegative ? pool.both([any, pool.complement(ahead)]) : ahead, result])
            } else {
                result = pool.sequence(try expression(part, &pool, &json), result)
            }
        }
        return pool.sequence(prefix, result)
    }

    /// What a look-ahead holds. `$` at its end is an end of the text, so that nothing follows.
    private func lookedAt(
        _ node: RegexNode, _ pool: inout ExpressionPool, _ json: inout JSONText
    ) throws(GrammarError) -> Expression {
        if Self.isAnchored(node) { throw error("anchors in a look-ahead") }
        return try expression(node, &pool, &json)
    }

    private static func isAnchored(_ node: RegexNode) -> Bool {
        switch node {
        case .start, .end: true
        case .sequence(let parts), .alternatives(let parts): parts.contains(where: isAnchored)
        case .repetition(let inner, _, _), .lookAhead(let inner, _): isAnchored(inner)
        case .set: false
        }
    }

    private func expression(
        _ node: RegexNode, _ pool: inout ExpressionPool, _ json: inout JSONText
    ) throws(GrammarError) -> Expression {
        guard pool.count < Self.maximumNodes else { throw .tooComplex(what: "expressions", limit: Self.maximumNodes) }
        switch node {
        case .set(let set): return character(set, &pool, &json)
        case .sequence(let parts):
            var result = ExpressionPool.empty
            for part in parts.reversed() { result = pool.sequence(try expression(part, &pool, &json), result) }
            return result
        case .alternatives(let branches):
            var parts: [Expression] = []
            for part in branches { parts.append(try expression(part, &pool, &json)) }
            return pool.either(parts)
        case .repetition(let inner, let minimum, let maximum):
            return pool.repetition(try expression(inner, &pool, &json), minimum, maximum)
        case .lookAhead: throw error("a look-ahead inside a group")
        case .start, .end: throw error("anchors inside")
        }
    }
}
