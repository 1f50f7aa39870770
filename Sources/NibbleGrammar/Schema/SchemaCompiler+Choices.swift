import NibbleCore

extension SchemaCompiler {
    private static let maximumAlternatives = 2000

    /// One alternative for each schema of a choice, each together with all that is asked beside the choice.
    mutating func alternatives(
        of choice: SchemaConstraints.Choice, in constraints: SchemaConstraints
    ) throws(GrammarError) -> [[GrammarRules.Symbol]] {
        var result: [[GrammarRules.Symbol]] = []
        for schemas in try conjunctions(of: choice, in: constraints) { result.append([.rule(try rule(for: schemas))]) }
        return result
    }

    /// For each schema of a choice what a value must satisfy together.
    mutating func conjunctions(
        of choice: SchemaConstraints.Choice, in constraints: SchemaConstraints
    ) throws(GrammarError) -> [Set<Place>] {
        guard choice.schemas.count <= Self.maximumAlternatives else {
            throw .tooComplex(what: "alternatives", limit: Self.maximumAlternatives)
        }
        // What schemas refer to is among the places already; the references themselves would bring the choice back.
        var beside: Set<Place> = []
        for place in constraints.places {
            let own = place == choice.place ? [choice.keyword] + choice.companions : []
            beside.insert(try part(of: place, without: ["$ref", "allOf"] + own))
        }
        var result = choice.schemas.map { beside.union([$0]) }
        guard choice.keyword == "oneOf", !options.isLenient else { return result }
        for (first, second) in try overlaps(choice, Array(beside)) {
            result[first].insert(try contrary(of: choice.schemas[second]))
            result[second].insert(try contrary(of: choice.schemas[first]))
        }
        return result
    }

    /// The values that do not satisfy the schema at `place`.
    mutating func contrary(of place: Place) throws(GrammarError) -> Place {
        let schema = document[place]
        return try document.place(.object(["not": schema.value]), "not " + schema.path, base: schema.base, rank: .max)
    }

    /// The schema at `place` without some of its keywords.
    private mutating func part(of place: Place, without keywords: [String]) throws(GrammarError) -> Place {
        let schema = document[place]
        guard let object = schema.value.object, keywords.contains(where: { object[$0] != nil }) else { return place }
        let rest = JSONObject(object.filter { !keywords.contains($0.key) && $0.key != "$id" }.map { ($0.key, $0.value) })
        return try document.place(
            .object(rest), schema.path + " without " + keywords.joined(separator: ", "), base: schema.base, rank: schema.rank)
    }

    // MARK: oneOf

    /// Pairs of schemas of a `oneOf` that a value might satisfy both.
    private mutating func overlaps(
        _ choice: SchemaConstraints.Choice, _ beside: [Place]
    ) throws(GrammarError) -> [(Int, Int)] {
        var parts: [(index: Int, constraints: SchemaConstraints)] = []
        var result: [(Int, Int)] = []
        for (index, schema) in choice.schemas.enumerated() {
            guard let part = try constraints(beside + [schema]) else { continue }
            for other in parts where try !areDisjoint(part, other.constraints, depth: 0) { result.append((other.index, index)) }
            parts.append((index, part))
        }
        return result
    }

    private mutating func areDisjoint(
        _ a: SchemaConstraints, _ b: SchemaConstraints, depth: Int
    ) throws(GrammarError) -> Bool {
        pool.fuel.spend(200)
        try pool.check()
        let kinds = a.kinds.intersection(b.kinds)
        if kinds.isEmpty { return true }
        if let values = a.values {
            for value in values {
                if try satisfies(value, a), try mightSatisfy(value, b) { return false }
            }
            return true
        }
        if b.values != nil { return try areDisjoint(b, a, depth: depth) }
        guard a.choices.isEmpty, b.choices.isEmpty else { return false }
        var open = kinds
        if !kinds.isDisjoint(with: .number), Self.isBelow(a, b) || Self.isBelow(b, a) { open.subtract(.number) }
        if kinds.contains(.string), Self.isShorter(a, b) || Self.isShorter(b, a) { open.remove(.string) }
        if kinds.contains(.object), depth < 4, try haveDisjointMembers(a, b, depth) { open.remove(.object) }
        return open.isEmpty
    }

    private mutating func mightSatisfy(_ value: JSONValue, _ constraints: SchemaConstraints) throws(GrammarError) -> Bool {
        guard constraints.choices.isEmpty else { return true }
        return try satisfies(value, constraints)
    }

    private static func isBelow(_ a: SchemaConstraints, _ b: SchemaConstraints) -> Bool {
        guard let most = a.maximum, let least = b.minimum else { return false }
        return most.value < least.value || (most.value == least.value && (most.isExclusive || least.isExclusive))
    }

    private static func isShorter(_ a: SchemaConstraints, _ b: SchemaConstraints) -> Bool {
        a.maximumLength.map { $0 < b.minimumLength } ?? false
    }

    /// Whether a member that one requires cannot be as the other wants it.
    private mutating func haveDisjointMembers(
        _ a: SchemaConstraints, _ b: SchemaConstraints, _ depth: Int
    ) throws(GrammarError) -> Bool {
        for name in a.required + b.required {
            guard let first = try constraints(try memberSchemas(name, a)),
                let second = try constraints(try memberSchemas(name, b))
            else { return true }
            if try areDisjoint(first, second, depth: depth + 1) { return true }
        }
        return false
    }

    // MARK: Single values

    /// Whether a value satisfies constraints.
    mutating func satisfies(_ value: JSONValue, _ constraints: SchemaConstraints) throws(GrammarError) -> Bool {
        try enter()
        defer { depth -= 1 }
        if constraints.excluded.contains(where: { Self.areEqual($0, value) }) { return false }
        guard constraints.kinds.contains(JSONKinds(of: value)) else { return false }
        if let values = constraints.values, !values.contains(where: { Self.areEqual($0, value) }) { return false }
        for choice in constraints.choices {
            var satisfied = 0
            for schema in choice.schemas {
                if let part = try self.constraints([schema]), try satisfies(value, part) { satisfied += 1 }
            }
            guard choice.keyword == "oneOf" ? satisfied == 1 : satisfied > 0 else { return false }
        }
        switch value {
        case .string(let text): return try satisfies(text, constraints)
        case .array(let elements): return try satisfies(elements, constraints)
        case .object(let object): return try satisfies(object, constraints)
        default: return value.double == nil || satisfiesBounds(value, constraints)
        }
    }

    private func satisfiesBounds(_ value: JSONValue, _ constraints: SchemaConstraints) -> Bool {
        guard let number = Decimal10(value) else {
            return constraints.minimum == nil && constraints.maximum == nil && constraints.divisors.isEmpty
        }
        if let bound = constraints.minimum, number < bound.value || (bound.isExclusive && number == bound.value) { return false }
        if let bound = constraints.maximum, number > bound.value || (bound.isExclusive && number == bound.value) { return false }
        return constraints.divisors.allSatisfy { divisor in
            // In units of the finer of the two.
            let places = max(number.fraction.count, divisor.fraction.count)
            func units(_ value: Decimal10) -> Int64? {
                Int64(
                    String(decoding: value.whole + value.fraction, as: UTF8.self)
                        + String(repeating: "0", count: places - value.fraction.count))
            }
            guard let a = units(number), let b = units(divisor), b != 0 else { return false }
            return a % b == 0
        }
    }

    private mutating func satisfies(_ text: String, _ constraints: SchemaConstraints) throws(GrammarError) -> Bool {
        let quoted = try string(constraints)
        var rest = quoted
        for byte in JSONValue.string(text).encoded().utf8 { rest = pool.derivative(rest, byte) }
        return pool.nullable[Int(rest)]
    }

    private mutating func satisfies(_ elements: [JSONValue], _ constraints: SchemaConstraints) throws(GrammarError) -> Bool {
        guard elements.count >= constraints.minimumElements, constraints.maximumElements.map({ elements.count <= $0 }) ?? true
        else {
            return false
        }
        for (schema, least, most) in constraints.contained {
            guard let part = try self.constraints([schema]) else {
                if least > 0 { return false }
                continue
            }
            var count = 0
            for element in elements where try satisfies(element, part) { count += 1 }
            guard count >= least, most.map({ count <= $0 }) ?? true else { return false }
        }
        for (index, element) in elements.enumerated() {
            let schemas = constraints.elements.compactMap { index < $0.first.count ? $0.first[index] : $0.others }
            guard let part = try self.constraints(schemas), try satisfies(element, part) else { return false }
        }
        return true
    }

    private mutating func satisfies(_ object: JSONObject, _ constraints: SchemaConstraints) throws(GrammarError) -> Bool {
        guard object.count >= constraints.minimumMembers, constraints.maximumMembers.map({ object.count <= $0 }) ?? true,
            constraints.required.allSatisfy({ object[$0] != nil })
        else { return false }
        for (key, value) in object {
            if !constraints.names.isEmpty {
                guard let names = try self.constraints(constraints.names), try satisfies(.string(key), names) else {
                    return false
                }
            }
            guard let part = try self.constraints(try memberSchemas(key, constraints)), try satisfies(value, part) else {
                return false
            }
        }
        return true
    }
}
