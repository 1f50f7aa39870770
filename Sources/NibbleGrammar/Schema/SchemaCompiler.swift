import NibbleCore

/// Turns a JSON schema into rules whose texts are the values that satisfy it.
///
/// A rule belongs to a set of schemas that a value must satisfy together, so that `allOf`, `$ref` with siblings and properties
/// that several schemas name are all the same thing. Rules are made one after the other from a list, never by recursion. Members of
/// objects stand in the order of the schema, unless an option says otherwise. What cannot be enforced exactly is refused.
struct SchemaCompiler {
    typealias Place = SchemaDocument.Place
    /// Sorted places of schemas.
    typealias Conjunction = [Place]

    let options: SchemaOptions
    var document: SchemaDocument
    var pool = ExpressionPool()
    var json = JSONText()
    var rules = GrammarRules()
    private var ruleNumbers: [Conjunction: Int32] = [:]
    private var pending: [(schemas: Conjunction, rule: Int32)] = []
    private var patterns: [ByteText: Expression] = [:]
    var liveness = ExpressionLiveness()
    /// How deep a check of alternatives or values is.
    var depth = 0
    private static let maximumDepth = 64

    /// Goes one level deeper; whoever calls it takes the level back.
    mutating func enter() throws(GrammarError) {
        depth += 1
        pool.fuel.spend(100)
        guard depth <= Self.maximumDepth else { throw .tooComplex(what: "levels of alternatives", limit: Self.maximumDepth) }
        try pool.check()
    }

    static func compile(_ schema: JSONValue, _ options: SchemaOptions) throws(GrammarError) -> GrammarAutomaton {
        var parts = GrammarParts()
        let start = try add(schema, options, to: &parts)
        return try GrammarAutomaton(parts.pool, parts.rules, start: start)
    }

    /// Adds the rules of a schema to `parts`.
    /// - Returns: the rule of the schema's values.
    static func add(
        _ schema: JSONValue, _ options: SchemaOptions, to parts: inout GrammarParts
    ) throws(GrammarError) -> Int32 {
        var options = options
        if schema["x-any-order"] == .bool(true) { options.hasAnyOrder = true }
        var compiler = SchemaCompiler(options: options, document: try SchemaDocument(schema))
        compiler.exchange(&parts)
        defer { compiler.exchange(&parts) }
        let start = try compiler.rule(for: [SchemaDocument.root])
        while let (schemas, rule) = compiler.pending.popLast() {
            compiler.pool.fuel.spend(schemas.count)
            try compiler.pool.check()
            try compiler.make(rule, schemas)
        }
        return start
    }

    private mutating func exchange(_ parts: inout GrammarParts) {
        swap(&pool, &parts.pool)
        swap(&json, &parts.json)
        swap(&rules, &parts.rules)
    }

    private init(options: SchemaOptions, document: SchemaDocument) {
        self.options = options
        self.document = document
    }

    /// The rule of the values that satisfy all of `schemas`.
    mutating func rule(for schemas: some Sequence<Place>) throws(GrammarError) -> Int32 {
        let conjunction = Set(schemas.filter { !document.isTrivial($0) }).sorted {
            (document[$0].rank, $0) < (document[$1].rank, $1)
        }
        if let rule = ruleNumbers[conjunction] { return rule }
        let rule = rules.addRule()
        ruleNumbers[conjunction] = rule
        pending.append((conjunction, rule))
        return rule
    }

    private mutating func make(_ rule: Int32, _ schemas: Conjunction) throws(GrammarError) {
        guard let constraints = try constraints(schemas) else { return try rules.set(rule, to: []) }
        if let choice = constraints.choices.first {
            return try rules.set(rule, to: try alternatives(of: choice, in: constraints))
        }
        if let values = constraints.values {
            return try rules.set(rule, to: [[.lexeme(try texts(values, constraints))]])
        }
        try rules.set(rule, to: try alternatives(constraints))
    }

    private mutating func alternatives(_ constraints: SchemaConstraints) throws(GrammarError) -> [[GrammarRules.Symbol]] {
        var scalars: [Expression] = []
        if constraints.kinds.contains(.null) { scalars.append(pool.text("null")) }
        if constraints.kinds.contains(.boolean) { scalars += [pool.text("true"), pool.text("false")] }
        if !constraints.kinds.isDisjoint(with: .number) { scalars.append(try number(constraints)) }
        if constraints.kinds.contains(.string) { scalars.append(try string(constraints)) }
        var result: [[GrammarRules.Symbol]] = []
        let scalar = pool.either(scalars)
        if scalar != ExpressionPool.nothing { result.append([.lexeme(scalar)]) }
        if constraints.kinds.contains(.array) { result.append(try array(constraints)) }
        if constraints.kinds.contains(.object) { result.append(try object(constraints)) }
        return result
    }

    /// Those of `values` that satisfy the constraints, as JSON text.
    mutating func texts(_ values: [JSONValue], _ constraints: SchemaConstraints) throws(GrammarError) -> Expression {
        var texts: [Expression] = []
        for value in values where try satisfies(value, constraints) { texts.append(text(value)) }
        return pool.either(texts)
    }

    // MARK: Pieces

    /// White space between the elements of a value.
    mutating func space() -> Expression {
        guard !options.isCompact else { return ExpressionPool.empty }
        let blank = pool.byte(0x20)
        return pool.either([ExpressionPool.empty, blank, pool.sequence(pool.byte(0x0A), pool.repetition(blank, 0, 24))])
    }

    mutating func punctuation(_ mark: Character) -> Expression { pool.text(String(mark)) }

    /// Contents of strings, without quotes, in which `pattern` matches somewhere.
    mutating func content(matching pattern: String) throws(GrammarError) -> Expression {
        if let known = patterns[pattern] { return known }
        let expression = try RegexCompiler.search(pattern, .json, &pool, &json)
        patterns[pattern] = expression
        return expression
    }

    /// Contents of strings of a format.
    private mutating func content(format: String) throws(GrammarError) -> Expression {
        var parts: [Expression] = []
        for pattern in StringFormats.patterns[format] ?? [] {
            parts.append(try RegexCompiler.whole(pattern, .json, &pool, &json))
        }
        return parts.isEmpty ? pool.star(json.any(&pool)) : pool.both(parts)
    }

    /// The strings, quotes included, that satisfy all of `schemas`.
    mutating func strings(_ schemas: some Sequence<Place>) throws(GrammarError) -> Expression {
        try enter()
        defer { depth -= 1 }
        guard let constraints = try constraints(schemas), constraints.kinds.contains(.string) else {
            return ExpressionPool.nothing
        }
        if let choice = constraints.choices.first {
            var parts: [Expression] = []
            for schemas in try conjunctions(of: choice, in: constraints) { parts.append(try strings(schemas)) }
            return pool.either(parts)
        }
        guard let values = constraints.values else { return try string(constraints) }
        return try texts(values.filter { $0.string != nil }, constraints)
    }

    /// A value as JSON text.
    mutating func text(_ value: JSONValue) -> Expression {
        if let string = value.string { return json.literal(string, &pool) }
        let space = space()
        if let elements = value.array {
            let parts = elements.enumerated().flatMap { index, element in
                (index > 0 ? [punctuation(","), space] : []) + [text(element)]
            }
            return pool.sequence([punctuation("["), space] + parts + (parts.isEmpty ? [] : [space]) + [punctuation("]")])
        }
        if let object = value.object {
            let parts = object.enumerated().flatMap { index, member in
                (index > 0 ? [punctuation(","), space] : [])
                    + [json.literal(member.key, &pool), punctuation(":"), space, text(member.value)]
            }
            return pool.sequence([punctuation("{"), space] + parts + (parts.isEmpty ? [] : [space]) + [punctuation("}")])
        }
        if let number = value.double, number.rounded() == number, abs(number) < 1e15, value.int == nil {
            return pool.text("\(Int64(number))")
        }
        return pool.text(value.encoded())
    }

    // MARK: Numbers and strings

    private mutating func number(_ constraints: SchemaConstraints) throws(GrammarError) -> Expression {
        let isInteger = !constraints.kinds.contains(.fraction)
        let excluded = constraints.excluded.filter { $0.double != nil }
        var parts: [Expression] = []
        if constraints.minimum != nil || constraints.maximum != nil || (!excluded.isEmpty && !isInteger) {
            parts.append(isInteger ? integers(constraints) : pool.decimals(constraints.minimum, constraints.maximum))
        }
        for divisor in constraints.divisors {
            guard let multiples = pool.multiples(of: divisor) else {
                throw .unsupportedKeyword("multipleOf", path: "a number", reason: "the divisor has more than 9 digits")
            }
            parts.append(multiples)
        }
        for value in excluded {
            guard let number = Decimal10(value) else {
                throw .unsupportedKeyword("not", path: "a number", reason: "a number has too many digits")
            }
            parts.append(pool.complement(pool.decimals((number, false), (number, false))))
        }
        if !isInteger, !constraints.kinds.contains(.integer) { parts.append(pool.fractions()) }
        if isInteger || parts.isEmpty { parts.append(isInteger ? pool.jsonInteger() : pool.jsonNumber()) }
        return pool.both(parts)
    }

    private mutating func integers(_ constraints: SchemaConstraints) -> Expression {
        let low = constraints.minimum.map { bound in
            bound.isExclusive && bound.value.fraction.isEmpty ? bound.value.ceiling + 1 : bound.value.ceiling
        }
        let high = constraints.maximum.map { bound in
            bound.isExclusive && bound.value.fraction.isEmpty ? bound.value.floor - 1 : bound.value.floor
        }
        return pool.integers(low, high)
    }

    /// A string, quotes included.
    mutating func string(_ constraints: SchemaConstraints) throws(GrammarError) -> Expression {
        let quote = pool.byte(0x22)
        return pool.sequence([quote, try content(constraints), quote])
    }

    private mutating func content(_ constraints: SchemaConstraints) throws(GrammarError) -> Expression {
        var parts: [Expression] = []
        for pattern in constraints.patterns { parts.append(try content(matching: pattern)) }
        for format in constraints.formats { parts.append(try content(format: format)) }
        for pattern in constraints.otherPatterns { parts.append(pool.complement(try content(matching: pattern))) }
        for format in constraints.otherFormats { parts.append(pool.complement(try content(format: format))) }
        for text in constraints.excluded.compactMap(\.string) { parts.append(pool.complement(json.content(text, &pool))) }
        let hasOnlyContraries =
            parts.count == constraints.otherPatterns.count + constraints.otherFormats.count
            + constraints.excluded.count { $0.string != nil }
        if hasOnlyContraries || constraints.minimumLength > 0 || constraints.maximumLength != nil {
            parts.append(pool.repetition(json.any(&pool), constraints.minimumLength, constraints.maximumLength))
        }
        return pool.both(parts)
    }
}
