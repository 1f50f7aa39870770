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
    static let maximumSymbols = 500_000

    var count: Int { alternatives.count }

    mutating func addRule() -> Int32 {
        alternatives.append([])
        return Int32(alternatives.count - 1)
    }

    mutating func set(_ rule: Int32, to alternatives: [[Symbol]]) throws(GrammarError) {
        symbolCount += alternatives.reduce(0) { $0 + $1.count + 1 }
        guard symbolCount <= Self.maximumSymbols else { throw .tooComplex(what: "symbols", limit: Self.maximumSymbols) }
        self.alternatives[Int(rule)] = alternatives
    }

    /// Drops what cannot end in a text. Answers which rules have texts.
    mutating func removeUnproductive(isDead: (Expression) -> Bool) -> [Bool] {
        var isProductive = Array(repeating: false, count: count)
        var users: [[Int32]] = Array(repeating: [], count: count)
        var queue: [Int32] = []
        for (rule, alternatives) in alternatives.enumerated() {
            for case .rule(let used) in alternatives.joined() { users[Int(used)].append(Int32(rule)) }
            queue.append(Int32(rule))
        }
        func ends(_ symbol: Symbol) -> Bool {
            switch symbol {
            case .lexeme(let expression): !isDead(expression)
            case .rule(let rule): isProductive[Int(rule)]
            }
        }
        while let rule = queue.popLast() {
            guard !isProductive[Int(rule)], alternatives[Int(rule)].contains(where: { $0.allSatisfy(ends) }) else { continue }
            isProductive[Int(rule)] = true
            queue += users[Int(rule)]
        }
        for rule in alternatives.indices { alternatives[rule].removeAll { !$0.allSatisfy(ends) } }
        return isProductive
    }

    /// A rule that can begin with itself, if there is one.
    func leftRecursiveRule(nullable: (Expression) -> Bool) -> Int32? {
        let isEmptiable = emptiableRules(nullable)
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

    private func emptiableRules(_ nullable: (Expression) -> Bool) -> [Bool] {
        var isEmptiable = Array(repeating: false, count: count)
        var hasChanged = true
        while hasChanged {
            hasChanged = false
            for (rule, alternatives) in alternatives.enumerated() where !isEmptiable[rule] {
                let isEmpty = alternatives.contains { alternative in
                    alternative.allSatisfy { symbol in
                        switch symbol {
                        case .lexeme(let expression): nullable(expression)
                        case .rule(let used): isEmptiable[Int(used)]
                        }
                    }
                }
                if isEmpty {
                    isEmptiable[rule] = true
                    hasChanged = true
                }
            }
        }
        return isEmptiable
    }
}
