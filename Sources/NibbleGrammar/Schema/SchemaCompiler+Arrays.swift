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
        if !constraints.contained.isEmpty { return try arrayWithContained(constraints, fixed) }
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

    /// An array of which some elements are counted: a rule for each number of elements and of those that count, as far as these
    /// matter.
    private mutating func arrayWithContained(
        _ constraints: SchemaConstraints, _ fixed: Int
    ) throws(GrammarError) -> [GrammarRules.Symbol] {
        let tops = constraints.contained.map { $0.maximum ?? $0.minimum }
        let top = max(fixed, constraints.minimumElements, constraints.maximumElements ?? 0)
        var counts: [[Int]] = [[]]
        for limit in tops {
            guard counts.count * (limit + 1) <= Self.maximumCountedElements else {
                throw .tooComplex(what: "counted elements of an array", limit: Self.maximumCountedElements)
            }
            counts = counts.flatMap { count in (0...limit).map { count + [$0] } }
        }
        guard (top + 1) * counts.count <= Self.maximumCountedElements else {
            throw .tooComplex(what: "counted elements of an array", limit: Self.maximumCountedElements)
        }
        let space = space()
        let open = pool.sequence(punctuation("["), space)
        let separator = pool.sequence(punctuation(","), space)
        let close = pool.sequence(space, punctuation("]"))
        // A start of its own: nothing stands before the first element.
        let start = rules.addRule()
        var numbers: [[Int]: Int32] = [:]
        for index in 0...top { for count in counts { numbers[[index] + count] = rules.addRule() } }
        for (place, number) in [([0] + tops.map { _ in 0 }, start)] + numbers.map({ ($0.key, $0.value) }) {
            let (index, count) = (place[0], Array(place[1...]))
            let isStart = number == start
            var alternatives: [[GrammarRules.Symbol]] = []
            let isComplete = zip(constraints.contained, count).allSatisfy { $0.minimum <= $1 }
            if isComplete, index >= constraints.minimumElements {
                alternatives.append([.lexeme(isStart ? punctuation("]") : close)])
            }
            if constraints.maximumElements.map({ index < $0 }) ?? true {
                for (schemas, next) in try elements(count, constraints) {
                    let element = try rule(for: self.element(index, constraints) + schemas)
                    guard let following = numbers[[min(index + 1, top)] + next] else { continue }
                    alternatives.append((isStart ? [] : [.lexeme(separator)]) + [.rule(element), .rule(following)])
                }
            }
            try rules.set(number, to: alternatives)
        }
        return [.lexeme(open), .rule(start)]
    }

    /// What an element may satisfy besides, each with the counts behind it.
    private mutating func elements(
        _ count: [Int], _ constraints: SchemaConstraints
    ) throws(GrammarError) -> [(schemas: [Place], next: [Int])] {
        var result: [(schemas: [Place], next: [Int])] = [([], [])]
        for (index, contained) in constraints.contained.enumerated() {
            var grown: [(schemas: [Place], next: [Int])] = []
            let top = contained.maximum ?? contained.minimum
            for (schemas, next) in result {
                if count[index] < top { grown.append((schemas + [contained.schema], next + [count[index] + 1])) }
                let others = contained.maximum == nil ? [] : [try contrary(of: contained.schema)]
                grown.append((schemas + others, next + [count[index]]))
            }
            result = grown
        }
        return result
    }

    /// The schemas of the element at `index`.
    private func element(_ index: Int, _ constraints: SchemaConstraints) -> [Place] {
        constraints.elements.compactMap { index < $0.first.count ? $0.first[index] : $0.others }
    }
}
