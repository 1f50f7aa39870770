import NibbleCore

extension SchemaCompiler {
    private static let maximumCountedMembers = 4096
    /// So many patterns give few enough cells; with more, cells without keys are looked for and left out.
    private static let unprunedPatterns = 3
    private static let maximumCells = 64

    /// A member that the schema names.
    private struct Named {
        var key: Expression
        var value: Int32
        var isRequired: Bool
    }

    /// Members that the schema does not name.
    private struct Unnamed {
        var key: Expression
        var value: Int32
    }

    /// An object: the symbols of its one alternative.
    mutating func object(_ constraints: SchemaConstraints) throws(GrammarError) -> [GrammarRules.Symbol] {
        let impossible: [GrammarRules.Symbol] = [.rule(rules.addRule())]
        guard let named = try namedMembers(constraints) else { return impossible }
        let unnamed = try unnamedMembers(constraints)
        let least = constraints.minimumMembers
        let most = constraints.maximumMembers
        if let most, most < least { return impossible }
        // Counts above the last that matters are one.
        let top = max(least, most ?? 0, 1)
        guard (named.count + 1) * (top + 1) <= Self.maximumCountedMembers else {
            throw .tooComplex(what: "counted members of an object", limit: Self.maximumCountedMembers)
        }
        let space = space()
        let separator = pool.sequence(punctuation(","), space)
        let close = pool.sequence(space, punctuation("}"))
        func canGrow(_ count: Int) -> Bool { most.map { count < $0 } ?? true }
        func lead(_ count: Int, _ key: Expression) -> Expression { count == 0 ? key : pool.sequence(separator, key) }

        // By count: what follows the named members, then, member by member from the last, what follows those before it.
        var following = (0...top).map { _ in rules.addRule() }
        for count in 0...top {
            var alternatives: [[GrammarRules.Symbol]] = []
            if count >= least { alternatives.append([.lexeme(count == 0 ? punctuation("}") : close)]) }
            if canGrow(count) {
                for member in unnamed {
                    alternatives.append([
                        .lexeme(lead(count, member.key)), .rule(member.value), .rule(following[min(count + 1, top)]),
                    ])
                }
            }
            try rules.set(following[count], to: alternatives)
        }
        for member in named.reversed() {
            var before: [Int32] = []
            for count in 0...top {
                let rule = rules.addRule()
                var alternatives: [[GrammarRules.Symbol]] = []
                if canGrow(count) {
                    alternatives.append([
                        .lexeme(lead(count, member.key)), .rule(member.value), .rule(following[min(count + 1, top)]),
                    ])
                }
                if !member.isRequired { alternatives.append([.rule(following[count])]) }
                try rules.set(rule, to: alternatives)
                before.append(rule)
            }
            following = before
        }
        if options.hasAnyOrder, named.count + unnamed.count > 1 {
            let members = named.map { member in
                UnorderedObjects.Member(
                    first: member.key, later: lead(1, member.key), value: member.value, isRequired: member.isRequired,
                    isNamed: true)
            }
            let others = unnamed.map { member in
                UnorderedObjects.Member(first: member.key, later: lead(1, member.key), value: member.value, isNamed: false)
            }
            rules.unordered.add(
                UnorderedObjects.Object(
                    members: members + others, minimumCount: least, maximumCount: most, firstEnd: punctuation("}"),
                    laterEnd: close),
                for: following[0])
        }
        return [.lexeme(pool.sequence(punctuation("{"), space)), .rule(following[0])]
    }

    /// A key as it stands before its value.
    private mutating func key(_ text: Expression) -> Expression { pool.sequence([text, punctuation(":"), space()]) }

    /// The members that schemas name, in their order, then those that are only required. `nil` if a required one is impossible.
    private mutating func namedMembers(_ constraints: SchemaConstraints) throws(GrammarError) -> [Named]? {
        var result: [Named] = []
        for name in Self.names(constraints) {
            let isRequired = constraints.requires(name)
            let schemas = try memberSchemas(name, constraints)
            let literal = json.literal(name, &pool)
            guard try !isImpossible(schemas), try isNameAllowed(name, constraints) else {
                if isRequired { return nil }
                continue
            }
            result.append(Named(key: key(literal), value: try rule(for: schemas), isRequired: isRequired))
        }
        return result
    }

    static func names(_ constraints: SchemaConstraints) -> [String] {
        var seen: Set<ByteText> = []
        let names = constraints.members.flatMap { $0.properties.map(\.name) } + constraints.required
        return names.filter { seen.insert(ByteText($0)).inserted }
    }

    /// All schemas that the member `name` must satisfy.
    mutating func memberSchemas(_ name: String, _ constraints: SchemaConstraints) throws(GrammarError) -> [Place] {
        var result: [Place] = []
        for members in constraints.members {
            pool.fuel.spend(20 + 100 * members.patterns.count)
            var own = members[name].map { [$0] } ?? []
            for (pattern, schema) in members.patterns where try matches(name, pattern) { own.append(schema) }
            if own.isEmpty, let others = members.others { own.append(others) }
            result += own
        }
        return result
    }

    /// Whether a schema among them is `false`.
    private func isImpossible(_ schemas: [Place]) throws(GrammarError) -> Bool {
        schemas.contains { document[$0].value == .bool(false) }
    }

    /// Whether `pattern` matches somewhere in `text`.
    mutating func matches(_ text: String, _ pattern: String) throws(GrammarError) -> Bool {
        holds(text, try content(matching: pattern))
    }

    /// Whether a text is in an expression of contents of JSON strings.
    mutating func holds(_ text: String, _ content: Expression) -> Bool {
        var rest = content
        for byte in JSONValue.string(text).encoded().utf8.dropFirst().dropLast() { rest = pool.derivative(rest, byte) }
        return pool.nullable[Int(rest)]
    }

    private mutating func isNameAllowed(_ name: String, _ constraints: SchemaConstraints) throws(GrammarError) -> Bool {
        guard !constraints.names.isEmpty else { return true }
        guard let names = try self.constraints(constraints.names) else { return false }
        return try satisfies(.string(name), names)
    }

    /// The strings that `propertyNames` allows; `nil`: all.
    private mutating func allowedNames(_ constraints: SchemaConstraints) throws(GrammarError) -> Expression? {
        constraints.names.isEmpty ? nil : try strings(constraints.names)
    }

    /// Members that no schema names: for each set of patterns that a key may match, the keys and the schema of their values.
    private mutating func unnamedMembers(_ constraints: SchemaConstraints) throws(GrammarError) -> [Unnamed] {
        var patterns: [String] = []
        for pattern in constraints.members.flatMap({ $0.patterns.map(\.pattern) })
        where !patterns.contains(where: { $0.hasSameBytes(as: pattern) }) { patterns.append(pattern) }
        let quote = pool.byte(0x22)
        let named = Self.names(constraints).map { json.literal($0, &pool) }
        var common = [pool.sequence([quote, pool.star(json.any(&pool)), quote]), pool.complement(pool.either(named))]
        if let allowed = try allowedNames(constraints) { common.append(allowed) }
        var cells = [(key: pool.both(common), matched: [String]())]
        for pattern in patterns { cells = try split(cells, by: pattern, isPruned: patterns.count > Self.unprunedPatterns) }
        var result: [Unnamed] = []
        for (expression, names) in cells {
            let schemas = constraints.members.flatMap { members in
                let own = members.patterns.filter { pattern in names.contains { $0.hasSameBytes(as: pattern.pattern) } }
                return own.isEmpty ? members.others.map { [$0] } ?? [] : own.map(\.schema)
            }
            guard try !isImpossible(schemas) else { continue }
            result.append(Unnamed(key: key(expression), value: try rule(for: schemas)))
        }
        return result
    }

    /// The keys of each cell that match `pattern`, and those that do not.
    private mutating func split(
        _ cells: [(key: Expression, matched: [String])], by pattern: String, isPruned: Bool
    ) throws(GrammarError) -> [(key: Expression, matched: [String])] {
        let quote = pool.byte(0x22)
        let string = pool.sequence([quote, try content(matching: pattern), quote])
        var result: [(key: Expression, matched: [String])] = []
        for (key, matched) in cells {
            for (part, names) in [(string, matched + [pattern]), (pool.complement(string), matched)] {
                let both = pool.both([key, part])
                let isAlive = isPruned ? try liveness.isAlive(both, &pool) : true
                if isAlive { result.append((both, names)) }
            }
        }
        guard result.count <= Self.maximumCells else {
            throw .unsupportedKeyword(
                "patternProperties", path: "an object", reason: "the patterns overlap in more than \(Self.maximumCells) ways")
        }
        return result
    }
}
