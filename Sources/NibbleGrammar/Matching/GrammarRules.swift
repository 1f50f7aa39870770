/// A context-free grammar over lexemes, which are regular expressions over bytes: the form that schemas, patterns and
/// notations become.
struct GrammarRules: Sendable {
    enum Symbol: Hashable, Sendable {
        case lexeme(Expression)
        case rule(Int32)
    }

    /// Of each rule.
    private(set) var alternatives: [[[Symbol]]] = []
    private(set) var symbolCount = 0
    var unordered = UnorderedObjects()

    var count: Int { alternatives.count }

    mutating func addRule() -> Int32 {
        alternatives.append([])
        return Int32(alternatives.count - 1)
    }

    mutating func set(_ rule: Int32, to alternatives: [[Symbol]]) throws(GrammarError) {
        symbolCount += alternatives.reduce(0) { $0 + $1.count + 1 }
        guard symbolCount <= GrammarLimits.symbols else { throw .tooComplex(what: "symbols", limit: GrammarLimits.symbols) }
        self.alternatives[Int(rule)] = alternatives
    }

    /// The alternatives of a rule, made now if they are those of an object whose members come in any order.
    mutating func alternatives(of rule: Int32) -> [[Symbol]] {
        unordered.isEmpty ? alternatives[Int(rule)] : unordered.alternatives(rule) ?? alternatives[Int(rule)]
    }

    /// Drops what cannot end in a text. Answers which rules have texts.
    mutating func removeUnproductive(isDead: (Expression) -> Bool) -> [Bool] {
        let isProductive = rules(where: { !isDead($0) })
        for rule in alternatives.indices {
            alternatives[rule].removeAll { alternative in
                alternative.contains { symbol in
                    switch symbol {
                    case .lexeme(let expression): isDead(expression)
                    case .rule(let used): !isProductive[Int(used)]
                    }
                }
            }
        }
        return isProductive
    }

    /// The rules with an alternative of nothing but such rules and lexemes for which `holds` is true, in linear time.
    private func rules(where holds: (Expression) -> Bool) -> [Bool] {
        var isMember = Array(repeating: false, count: count)
        /// By alternative: its rule, and how many of its symbols are not yet known to be members.
        var owners: [Int32] = []
        var missing: [Int32] = []
        var users: [[Int32]] = Array(repeating: [], count: count)
        var queue: [Int32] = []
        for (rule, alternatives) in alternatives.enumerated() {
            for alternative in alternatives {
                let isHopeless = alternative.contains { symbol in
                    if case .lexeme(let expression) = symbol { !holds(expression) } else { false }
                }
                if isHopeless { continue }
                var open: Int32 = 0
                for case .rule(let used) in alternative {
                    users[Int(used)].append(Int32(owners.count))
                    open += 1
                }
                owners.append(Int32(rule))
                missing.append(open)
                if open == 0 { queue.append(Int32(rule)) }
            }
        }
        while let rule = queue.popLast() {
            guard !isMember[Int(rule)] else { continue }
            isMember[Int(rule)] = true
            for alternative in users[Int(rule)] {
                missing[Int(alternative)] -= 1
                if missing[Int(alternative)] == 0 { queue.append(owners[Int(alternative)]) }
            }
        }
        return isMember
    }

    /// A rule that can begin with itself, if there is one.
    func leftRecursiveRule(nullable: (Expression) -> Bool) -> Int32? {
        let isEmptiable = rules(where: nullable)
        // Depth first over what rules can begin with; 1 is on the way, 2 is done.
        var marks = Array(repeating: 0, count: count)
        for start in 0..<count where marks[start] == 0 {
            var stack: [(rule: Int, next: [Int])] = [(start, firstRules(start, isEmptiable, nullable))]
            marks[start] = 1
            while var top = stack.popLast() {
                guard let next = top.next.popLast() else {
                    marks[top.rule] = 2
                    continue
                }
                stack.append(top)
                if marks[next] == 1 { return Int32(next) }
                if marks[next] == 0 {
                    marks[next] = 1
                    stack.append((next, firstRules(next, isEmptiable, nullable)))
                }
            }
        }
        return nil
    }

    private func firstRules(_ rule: Int, _ isEmptiable: [Bool], _ nullable: (Expression) -> Bool) -> [Int] {
        var first: Set<Int> = []
        for alternative in alternatives[rule] {
            symbols: for symbol in alternative {
                switch symbol {
                case .lexeme(let expression): if !nullable(expression) { break symbols }
                case .rule(let used):
                    first.insert(Int(used))
                    if !isEmptiable[Int(used)] { break symbols }
                }
            }
        }
        return Array(first)
    }
}
