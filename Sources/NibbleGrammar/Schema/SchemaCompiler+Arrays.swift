extension SchemaCompiler {
    private static let maximumCountedElements = 4096

    /// An array: the symbols of its one alternative.
    mutating func array(_ constraints: SchemaConstraints) throws(GrammarError) -> [GrammarRules.Symbol] {
        let space = space()
        let open = pool.sequence(punctuation("["), space)
        let separator = pool.sequence(punctuation(","), space)
        let close = pool.sequence(space, punctuation("]"))
        let closeEmpty = punctuation("]")
        let fixed = constraints.elements.map(\.first.count).max() ?? 0
        let counted = max(fixed, constraints.minimumElements, constraints.maximumElements ?? 0)
        guard counted <= Self.maximumCountedElements else {
            throw .tooComplex(what: "counted elements of an array", limit: Self.maximumCountedElements)
        }
        if let maximum = constraints.maximumElements, maximum < constraints.minimumElements { return [.rule(rules.addRule())] }
        // What follows `count` elements, from the end. Behind the counted ones, any number of the same.
        var next: Int32?
        if constraints.maximumElements == nil {
            let loop = rules.addRule()
            let element = try rule(for: element(counted, constraints))
            let more: [GrammarRules.Symbol] = [.lexeme(separator), .rule(element), .rule(loop)]
            let first: [GrammarRules.Symbol] = [.rule(element), .rule(loop)]
            try rules.set(loop, to: [[.lexeme(close)], more])
            if counted == 0 {
                let start = rules.addRule()
                try rules.set(start, to: [[.lexeme(closeEmpty)], first])
                return [.lexeme(open), .rule(start)]
            }
            next = loop
        }
        for count in (0...counted).reversed() {
            if count == counted, next != nil { continue }
            var alternatives: [[GrammarRules.Symbol]] = []
            if count >= constraints.minimumElements { alternatives.append([.lexeme(count == 0 ? closeEmpty : close)]) }
            if let following = next, constraints.maximumElements.map({ count < $0 }) ?? true {
                let element = try rule(for: element(count, constraints))
                alternatives.append((count == 0 ? [] : [.lexeme(separator)]) + [.rule(element), .rule(following)])
            }
            let rule = rules.addRule()
            try rules.set(rule, to: alternatives)
            next = rule
        }
        return [.lexeme(open), .rule(next ?? rules.addRule())]
    }

    /// The schemas of the element at `index`.
    private func element(_ index: Int, _ constraints: SchemaConstraints) -> [Place] {
        constraints.elements.compactMap { index < $0.first.count ? $0.first[index] : $0.others }
    }
}
