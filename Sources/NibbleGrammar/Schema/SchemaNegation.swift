import NibbleCore

/// The schemas of the values that do not satisfy a schema: a value satisfies one of them exactly if it does not satisfy the schema.
///
/// They are schemas of JSON again, with a few keywords of our own where JSON Schema has no word. References stay references.
struct SchemaNegation {
    /// Keywords that only negations have. A null character begins them, so that no schema's author hits on one by chance.
    enum Keyword {
        /// The kinds that are allowed, as ``JSONKinds/rawValue``.
        static let kinds = "\0kinds"
        /// Strings and numbers that are excluded.
        static let excluded = "\0excluded"
        /// A pattern that matches nowhere.
        static let pattern = "\0pattern"
        /// A format that the string does not have.
        static let format = "\0format"
    }

    /// A keyword whose contrary has no schema.
    struct Unsupported: Error {
        let keyword: String
    }

    private var result: [JSONValue] = []

    static func alternatives(to schema: JSONValue) throws(Unsupported) -> [JSONValue] {
        switch schema {
        case .bool(true): return []
        case .object(let object):
            var negation = SchemaNegation()
            for (keyword, value) in object { try negation.add(keyword, value, object) }
            return negation.result
        default: return [.bool(true)]
        }
    }

    private static func not(_ schema: JSONValue) -> JSONValue { .object(["not": schema]) }

    private mutating func add(_ type: String, _ keyword: String, _ value: JSONValue) {
        result.append(.object(["type": .string(type), keyword: value]))
    }

    private mutating func add(_ keyword: String, _ value: JSONValue, _ object: JSONObject) throws(Unsupported) {
        switch keyword {
        case "type": addKinds(value)
        case "enum": try addOthers(than: value.array ?? [])
        case "const": try addOthers(than: [value])
        case "minimum": add("number", "exclusiveMaximum", value)
        case "maximum": add("number", "exclusiveMinimum", value)
        case "exclusiveMinimum": add("number", "maximum", value)
        case "exclusiveMaximum": add("number", "minimum", value)
        case "pattern": add("string", Keyword.pattern, value)
        case "format": try addFormat(value)
        case "minLength": addFewer("string", "maxLength", value)
        case "maxLength": addMore("string", "minLength", value)
        case "minItems": addFewer("array", "maxItems", value)
        case "maxItems": addMore("array", "minItems", value)
        case "minProperties": addFewer("object", "maxProperties", value)
        case "maxProperties": addMore("object", "minProperties", value)
        case "required":
            for name in value.array ?? [] { add("object", "properties", .object([name.string ?? "": .bool(false)])) }
        case "properties": addMembers(value.object ?? [:])
        case "items", "prefixItems", "contains": try addElements(keyword, value, object)
        case "allOf": result += (value.array ?? []).map(Self.not)
        case "anyOf": result.append(.object(["allOf": .array((value.array ?? []).map(Self.not))]))
        case "oneOf": try addOneOf(value.array ?? [])
        case "not": result.append(value)
        case "$ref": result.append(Self.not(.object(["$ref": value])))
        case "additionalProperties", "propertyNames", "unevaluatedProperties", "unevaluatedItems":
            if value != .bool(true), value.object?.isEmpty != true { throw Unsupported(keyword: keyword) }
        case "uniqueItems": if value.bool != false { throw Unsupported(keyword: keyword) }
        case "patternProperties", "multipleOf", "if", "dependencies", "dependentRequired", "dependentSchemas", "$dynamicRef",
            "$recursiveRef", "minContains", "maxContains", Keyword.kinds, Keyword.excluded, Keyword.pattern, Keyword.format:
            throw Unsupported(keyword: keyword)
        default: break
        }
    }

    private mutating func addKinds(_ value: JSONValue) {
        var kinds: JSONKinds = []
        for name in value.string.map({ [$0] }) ?? value.array?.compactMap(\.string) ?? [] {
            kinds.formUnion(JSONKinds(name: name) ?? [])
        }
        addKinds(JSONKinds.all.subtracting(kinds))
    }

    private mutating func addKinds(_ kinds: JSONKinds) {
        if !kinds.isEmpty { result.append(.object([Keyword.kinds: .int(Int(kinds.rawValue))])) }
    }

    private mutating func addOthers(than values: [JSONValue]) throws(Unsupported) {
        var others = JSONKinds.all
        for value in values { others.subtract(value.double != nil ? .number : JSONKinds(of: value)) }
        addKinds(others)
        let strings = values.filter { $0.string != nil }
        if !strings.isEmpty { add("string", Keyword.excluded, .array(strings)) }
        let numbers = values.filter { $0.double != nil }
        if !numbers.isEmpty { add("number", Keyword.excluded, .array(numbers)) }
        let booleans = Set(values.compactMap(\.bool))
        if booleans.count == 1 { result.append(.object(["const": .bool(!booleans.contains(true))])) }
        for (type, keyword) in [("array", "minItems"), ("object", "minProperties")] {
            let containers = values.filter { type == "array" ? $0.array != nil : $0.object != nil }
            if containers.isEmpty { continue }
            guard containers.allSatisfy({ ($0.array?.isEmpty ?? $0.object?.isEmpty) == true }) else {
                throw Unsupported(keyword: "enum")
            }
            add(type, keyword, .int(1))
        }
    }

    private mutating func addFormat(_ value: JSONValue) throws(Unsupported) {
        let name = value.string ?? ""
        if StringFormats.isUnsupported(name) { throw Unsupported(keyword: "format") }
        if StringFormats.patterns[name]?.isEmpty == false { add("string", Keyword.format, value) }
    }

    private mutating func addFewer(_ type: String, _ keyword: String, _ value: JSONValue) {
        if let count = value.double, count > 0 { add(type, keyword, .double(count - 1)) }
    }

    private mutating func addMore(_ type: String, _ keyword: String, _ value: JSONValue) {
        if let count = value.double { add(type, keyword, .double(count + 1)) }
    }

    private mutating func addMembers(_ members: JSONObject) {
        for (name, schema) in members where schema != .bool(true) && schema.object?.isEmpty != true {
            result.append(
                .object([
                    "type": "object", "required": .array([.string(name)]), "properties": .object([name: Self.not(schema)]),
                ]))
        }
    }

    private mutating func addElements(_ keyword: String, _ value: JSONValue, _ object: JSONObject) throws(Unsupported) {
        if keyword == "contains" {
            guard object["minContains"] == nil, object["maxContains"] == nil else { throw Unsupported(keyword: keyword) }
            return add("array", "items", Self.not(value))
        }
        if let first = value.array {
            if keyword == "items", object["additionalItems"] != nil { throw Unsupported(keyword: "additionalItems") }
            for (index, schema) in first.enumerated() {
                let elements = Array(repeating: JSONValue.bool(true), count: index) + [Self.not(schema)]
                result.append(.object(["type": "array", "minItems": .int(index + 1), "prefixItems": .array(elements)]))
            }
            return
        }
        if value == .bool(true) || value.object?.isEmpty == true { return }
        guard object["prefixItems"] == nil else { throw Unsupported(keyword: keyword) }
        add("array", "contains", Self.not(value))
    }

    private mutating func addOneOf(_ schemas: [JSONValue]) throws(Unsupported) {
        guard schemas.count <= 8 else { throw Unsupported(keyword: "oneOf") }
        result.append(.object(["allOf": .array(schemas.map(Self.not))]))
        for first in schemas.indices {
            for second in schemas.indices where second > first {
                result.append(.object(["allOf": .array([schemas[first], schemas[second]])]))
            }
        }
    }
}
