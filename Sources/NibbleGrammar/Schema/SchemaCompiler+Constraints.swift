import NibbleCore

extension SchemaDocument {
    /// Keywords that say nothing about which values are valid.
    static let annotations: Set<String> = [
        "$id", "$schema", "$anchor", "$comment", "$defs", "$vocabulary", "$dynamicAnchor", "$recursiveAnchor", "definitions",
        "title",
        "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "contentEncoding",
        "contentMediaType", "contentSchema", "id", "nullable", "strict",
    ]

    /// Whether every value satisfies the schema.
    func isTrivial(_ place: Place) -> Bool {
        switch self[place].value {
        case .bool(let isTrue): isTrue
        case .object(let object): object.allSatisfy { Self.annotations.contains($0.key) && $0.key != "nullable" }
        default: false
        }
    }
}

extension SchemaCompiler {
    /// Steps that reading a keyword is worth.
    private static let readingCost = 60
    fileprivate static let maximumComparisons = 4_000_000

    /// What `schemas` ask together; `nil` if nothing can satisfy them.
    mutating func constraints(_ schemas: some Sequence<Place>) throws(GrammarError) -> SchemaConstraints? {
        var result = SchemaConstraints()
        // Schemas that a schema refers to come before it, so that their members stand first.
        var stack = schemas.reversed().map { (place: $0, isExpanded: false) }
        while let (place, isExpanded) = stack.popLast() {
            let schema = document[place]
            switch schema.value {
            case .bool(true): continue
            case .bool(false): return nil
            case .object(let object):
                var reader = KeywordReader(object, schema.path, place, options.isLenient)
                let combined = try reader.combined(&document)
                if !isExpanded {
                    guard result.places.insert(place).inserted else { continue }
                    stack.append((place, true))
                    stack += combined.reversed().map { ($0, false) }
                    continue
                }
                pool.fuel.spend(Self.readingCost * (4 + object.count))
                try pool.check()
                try reader.values(&result)
                pool.fuel.spend(50 * (result.values?.count ?? 0))
                try reader.numbers(&result)
                try reader.strings(&result)
                try reader.arrays(&result, &document)
                try reader.objects(&result, &document)
                try reader.choices(&result, &document)
                try reader.refuseRest()
            default:
                throw .invalidKeyword("schema", path: schema.path, expected: "an object or a boolean")
            }
        }
        return result.kinds.isEmpty ? nil : result
    }
}

/// Reads the keywords of one schema into constraints; remembers which it has read.
private struct KeywordReader {
    typealias Place = SchemaDocument.Place

    private let object: JSONObject
    private let path: String
    private let place: Place
    private let isLenient: Bool
    private var read: Set<String> = []

    init(_ object: JSONObject, _ path: String, _ place: Place, _ isLenient: Bool) {
        self.object = object
        self.path = path
        self.place = place
        self.isLenient = isLenient
    }

    private mutating func take(_ keyword: String) -> JSONValue? {
        guard let value = object[keyword] else { return nil }
        read.insert(keyword)
        return value
    }

    private func invalid(_ keyword: String, _ expected: String) -> GrammarError {
        .invalidKeyword(keyword, path: path, expected: expected)
    }

    private func refuse(_ keyword: String, _ reason: String) throws(GrammarError) {
        if !isLenient { throw .unsupportedKeyword(keyword, path: path, reason: reason) }
    }

    private mutating func count(_ keyword: String) throws(GrammarError) -> Int? {
        guard let value = take(keyword) else { return nil }
        guard let number = value.double, number >= 0, number.rounded() == number else {
            throw invalid(keyword, "a whole number, at least 0")
        }
        return Int(min(number, 2_000_000_000))
    }

    private mutating func list(_ keyword: String) throws(GrammarError) -> [JSONValue]? {
        guard let value = take(keyword) else { return nil }
        guard let list = value.array else { throw invalid(keyword, "an array") }
        return list
    }

    /// The schemas of `allOf` and of a reference.
    mutating func combined(_ document: inout SchemaDocument) throws(GrammarError) -> [Place] {
        var result: [Place] = []
        for (index, schema) in (try list("allOf") ?? []).enumerated() {
            result.append(try document.child(schema, ["allOf", "\(index)"], of: place))
        }
        if let reference = take("$ref") {
            guard let text = reference.string else { throw invalid("$ref", "a string") }
            result.append(try document.target(of: text, at: place))
        }
        return result
    }

    mutating func values(_ result: inout SchemaConstraints) throws(GrammarError) {
        if let type = take("type") {
            guard let names = type.string.map({ [$0] }) ?? type.array?.compactMap(\.string) else {
                throw invalid("type", "a name or a list of names")
            }
            var kinds: JSONKinds = []
            for name in names {
                guard let kind = JSONKinds(name: name) else {
                    throw invalid("type", "the names of JSON's types, not \(name.debugDescription)")
                }
                kinds.formUnion(kind)
            }
            if take("nullable")?.bool == true { kinds.insert(.null) }
            result.kinds.formIntersection(kinds)
        }
        read.insert("nullable")
        if let kinds = take(SchemaNegation.Keyword.kinds)?.int {
            result.kinds.formIntersection(JSONKinds(rawValue: UInt8(truncatingIfNeeded: kinds)))
        }
        if let excluded = take(SchemaNegation.Keyword.excluded)?.array { result.excluded += excluded }
        var lists: [[JSONValue]] = []
        if let list = try list("enum") { lists.append(list) }
        if let value = take("const") { lists.append([value]) }
        for list in lists {
            guard list.count * (result.values?.count ?? 0) <= SchemaCompiler.maximumComparisons else {
                throw .tooComplex(what: "comparisons of values", limit: SchemaCompiler.maximumComparisons)
            }
            result.values = result.values.map { old in old.filter { value in list.contains { Self.isEqual($0, value) } } } ?? list
        }
    }

    /// Equality of values: 1 and 1.0 are equal, members of objects have no order, texts are compared by their scalars.
    static func isEqual(_ a: JSONValue, _ b: JSONValue) -> Bool {
        switch (a, b) {
        case (.string(let a), .string(let b)): return a.hasSameBytes(as: b)
        case (.array(let a), .array(let b)): return a.count == b.count && zip(a, b).allSatisfy { isEqual($0, $1) }
        case (.object(let a), .object(let b)):
            return a.count == b.count && a.allSatisfy { key, value in b[key].map { isEqual(value, $0) } ?? false }
        case (.bool, _), (_, .bool), (.null, _), (_, .null): return a == b
        default:
            if let a = a.int, let b = b.int { return a == b }
            return a.double != nil && a.double == b.double
        }
    }

    mutating func numbers(_ result: inout SchemaConstraints) throws(GrammarError) {
        for (keyword, isMinimum, isExclusive) in [
            ("minimum", true, false), ("exclusiveMinimum", true, true), ("maximum", false, false),
            ("exclusiveMaximum", false, true),
        ] {
            guard let value = take(keyword) else { continue }
            guard value.double != nil else { throw invalid(keyword, "a number") }
            guard let bound = Decimal10(value) else {
                try refuse(keyword, "the bound has more than 18 digits before or 15 behind the point")
                continue
            }
            if isMinimum {
                result.raiseMinimum(bound, isExclusive: isExclusive)
            } else {
                result.lowerMaximum(bound, isExclusive: isExclusive)
            }
        }
        if let value = take("multipleOf") {
            guard let number = value.double, number > 0 else { throw invalid("multipleOf", "a number above 0") }
            guard let divisor = Decimal10(value), divisor.allDigits.map({ $0 < 1_000_000_000 }) ?? false else {
                return try refuse("multipleOf", "the divisor has more than 9 digits")
            }
            result.divisors.append(divisor)
        }
    }

    mutating func strings(_ result: inout SchemaConstraints) throws(GrammarError) {
        result.minimumLength = max(result.minimumLength, try count("minLength") ?? 0)
        if let maximum = try count("maxLength") { result.maximumLength = min(result.maximumLength ?? maximum, maximum) }
        if let length = result.maximumLength, length < result.minimumLength { result.kinds.remove(.string) }
        if let pattern = take("pattern") {
            guard let text = pattern.string else { throw invalid("pattern", "a string") }
            result.patterns.append(text)
        }
        if let format = take("format") {
            guard let name = format.string else { throw invalid("format", "a string") }
            if StringFormats.patterns[name] != nil {
                result.formats.append(name)
            } else if StringFormats.isUnsupported(name) {
                try refuse("format", "the format \(name.debugDescription) is not supported")
            }
        }
        if let pattern = take(SchemaNegation.Keyword.pattern)?.string { result.otherPatterns.append(pattern) }
        if let format = take(SchemaNegation.Keyword.format)?.string { result.otherFormats.append(format) }
    }

    mutating func arrays(_ result: inout SchemaConstraints, _ document: inout SchemaDocument) throws(GrammarError) {
        var elements = SchemaConstraints.Elements()
        var others = "items"
        if let first = try list("prefixItems") {
            for (index, schema) in first.enumerated() {
                elements.first.append(try document.child(schema, ["prefixItems", "\(index)"], of: place))
            }
        } else if let first = object["items"]?.array {
            // Draft 7: a list of schemas, and `additionalItems` for the rest.
            read.insert("items")
            others = "additionalItems"
            for (index, schema) in first.enumerated() {
                elements.first.append(try document.child(schema, ["items", "\(index)"], of: place))
            }
        }
        if others == "items" { read.insert("additionalItems") }
        if let schema = take(others) { elements.others = try document.child(schema, [others], of: place) }
        if !elements.first.isEmpty || elements.others != nil { result.elements.append(elements) }
        result.minimumElements = max(result.minimumElements, try count("minItems") ?? 0)
        if let maximum = try count("maxItems") { result.maximumElements = min(result.maximumElements ?? maximum, maximum) }
        if let isUnique = take("uniqueItems"), isUnique.bool != false, (result.maximumElements ?? 2) > 1 {
            try refuse("uniqueItems", "elements would have to be compared with each other")
        }
        if let contains = take("contains") {
            let least = try count("minContains") ?? 1
            let most = try count("maxContains")
            if least > 0 || most != nil {
                result.contained.append((try document.child(contains, ["contains"], of: place), least, most))
            }
        }
        read.formUnion(["minContains", "maxContains"])
        if let rest = take("unevaluatedItems"), rest.bool != true {
            try refuse("unevaluatedItems", "it depends on which other schemas apply")
        }
    }

    mutating func objects(_ result: inout SchemaConstraints, _ document: inout SchemaDocument) throws(GrammarError) {
        var members = SchemaConstraints.Members()
        for (keyword, isPattern) in [("properties", false), ("patternProperties", true)] {
            guard let value = take(keyword) else { continue }
            guard let object = value.object else { throw invalid(keyword, "an object") }
            for (key, schema) in object {
                let child = try document.child(schema, [keyword, key], of: place)
                if isPattern { members.patterns.append((key, child)) } else { members.add(key, child) }
            }
        }
        var others = take("additionalProperties")
        var keyword = "additionalProperties"
        if let rest = take("unevaluatedProperties"), rest.bool != true {
            // Beside nothing but properties it means the same as `additionalProperties`.
            let appliers = ["$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas"]
            if others != nil || appliers.contains(where: { object[$0] != nil }) {
                if others == nil { try refuse("unevaluatedProperties", "it depends on which other schemas apply") }
            } else {
                (others, keyword) = (rest, "unevaluatedProperties")
            }
        }
        if let others { members.others = try document.child(others, [keyword], of: place) }
        if !members.properties.isEmpty || !members.patterns.isEmpty || members.others != nil { result.members.append(members) }
        for name in try list("required") ?? [] {
            guard let text = name.string else { throw invalid("required", "a list of names") }
            result.require(text)
        }
        result.minimumMembers = max(result.minimumMembers, try count("minProperties") ?? 0)
        if let maximum = try count("maxProperties") { result.maximumMembers = min(result.maximumMembers ?? maximum, maximum) }
        if let names = take("propertyNames") { result.names.append(try document.child(names, ["propertyNames"], of: place)) }
    }

    mutating func choices(_ result: inout SchemaConstraints, _ document: inout SchemaDocument) throws(GrammarError) {
        for keyword in ["anyOf", "oneOf"] {
            guard let schemas = try list(keyword) else { continue }
            guard !schemas.isEmpty else { throw invalid(keyword, "a list of at least one schema") }
            var places: [Place] = []
            for (index, schema) in schemas.enumerated() {
                places.append(try document.child(schema, [keyword, "\(index)"], of: place))
            }
            result.choices.append(.init(place: place, keyword: keyword, schemas: places))
        }
        if let excluded = take("not") {
            guard excluded.object != nil || excluded.bool != nil else { throw invalid("not", "a schema") }
            let contrary = try contrary(of: excluded, &document)
            if contrary.isEmpty { result.kinds = [] }
            result.choices.append(.init(place: place, keyword: "not", schemas: contrary))
        }
        try conditions(&result, &document)
        for keyword in ["dependencies", "dependentRequired", "dependentSchemas"] {
            try dependencies(keyword, &result, &document)
        }
    }

    /// The schemas of which a value satisfies one exactly if it does not satisfy `schema`.
    private func contrary(of schema: JSONValue, _ document: inout SchemaDocument) throws(GrammarError) -> [Place] {
        if let reference = schema["$ref"]?.string, schema.object?.count == 1 {
            let targetPlace = try document.target(of: reference, at: place)
            let target = document[targetPlace]
            let negated = JSONValue.object(["not": target.value])
            return [try document.place(negated, "not " + target.path, base: target.base, rank: .max)]
        }
        let alternatives: [JSONValue]
        do {
            alternatives = try SchemaNegation.alternatives(to: schema)
        } catch {
            try refuse("not", "the contrary of \(error.keyword.debugDescription) has no schema")
            alternatives = [.bool(true)]
        }
        var result: [Place] = []
        for (index, alternative) in alternatives.enumerated() {
            result.append(
                try document.place(alternative, "\(path)/not (\(index))", base: document[place].base, rank: .max))
        }
        return result
    }

    private mutating func conditions(_ result: inout SchemaConstraints, _ document: inout SchemaDocument) throws(GrammarError) {
        let (condition, then, otherwise) = (take("if"), take("then"), take("else"))
        guard let condition, then != nil || otherwise != nil else { return }
        let branches: [[JSONValue]] = [
            [condition, then ?? .bool(true)], [.object(["not": condition]), otherwise ?? .bool(true)],
        ]
        var places: [Place] = []
        for (index, branch) in branches.enumerated() {
            let schema = JSONValue.object(["allOf": .array(branch)])
            places.append(try document.place(schema, "\(path)/if (\(index))", base: document[place].base, rank: .max))
        }
        result.choices.append(.init(place: place, keyword: "if", companions: ["then", "else"], schemas: places))
    }

    /// What is asked where a member is present: without the first member, or with all that it asks for; the others later.
    private mutating func dependencies(
        _ keyword: String, _ result: inout SchemaConstraints, _ document: inout SchemaDocument
    ) throws(GrammarError) {
        guard let value = take(keyword) else { return }
        guard let object = value.object else { throw invalid(keyword, "an object") }
        guard let (name, needed) = object.first(where: { _ in true }).map({ ($0.key, $0.value) }) else { return }
        let rest = JSONObject(object.dropFirst().map { ($0.key, $0.value) })
        var without: [(String, JSONValue)] = [("properties", .object([name: .bool(false)]))]
        var with: [(String, JSONValue)] = [("type", "object")]
        if let names = needed.array ?? needed.string.map({ [.string($0)] }) {
            with.append(("required", .array([.string(name)] + names)))
        } else {
            with += [("required", .array([.string(name)])), ("allOf", .array([needed]))]
        }
        if !rest.isEmpty {
            without.append((keyword, .object(rest)))
            with.append((keyword, .object(rest)))
        }
        var places: [Place] = []
        for (index, schema) in [without, with].enumerated() {
            places.append(
                try document.place(
                    .object(JSONObject(schema)), "\(path)/\(keyword) (\(index))", base: document[place].base, rank: .max))
        }
        result.choices.append(.init(place: place, keyword: keyword, schemas: places))
    }

    /// Refuses what has not been read and is no annotation.
    mutating func refuseRest() throws(GrammarError) {
        for (key, _) in object where !read.contains(key) && !SchemaDocument.annotations.contains(key) {
            if Self.enforceable.contains(key) { try refuse(key, "it is not supported") }
        }
    }

    /// Keywords of the drafts that say which values are valid and are refused; other unknown words are annotations.
    private static let enforceable: Set<String> = [
        "$dynamicRef", "$recursiveRef",
    ]
}

extension SchemaCompiler {
    static func areEqual(_ a: JSONValue, _ b: JSONValue) -> Bool { KeywordReader.isEqual(a, b) }
}
