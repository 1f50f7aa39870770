import NibbleCore
import NibbleGrammar
import Testing

/// A schema, texts that satisfy it and texts that do not.
struct SchemaCase: Sendable, CustomTestStringConvertible {
    let schema: String
    let valid: [String]
    let invalid: [String]

    init(_ schema: String, _ valid: [String], not invalid: [String]) {
        self.schema = schema
        self.valid = valid
        self.invalid = invalid
    }

    var testDescription: String { schema }
}

@Suite struct SchemaTests {
    static let scalars: [SchemaCase] = [
        .init(#"{"type": "null"}"#, ["null"], not: ["nul", "0", "", " null"]),
        .init(#"{"type": "boolean"}"#, ["true", "false"], not: ["1", "True"]),
        .init(#"{"type": ["integer", "null"]}"#, ["0", "-12", "null"], not: ["1.5", "01", "1e3", "-", "+1"]),
        .init(#"{"type": "number"}"#, ["0", "-1.25", "1e9", "2E-3"], not: [".5", "1.", "0x1", "NaN"]),
        .init(#"{"type": "integer", "minimum": 3, "maximum": 120}"#, ["3", "99", "120"], not: ["2", "121", "-3", "1000"]),
        .init(#"{"type": "integer", "exclusiveMinimum": -12, "exclusiveMaximum": 0}"#, ["-11", "-1"], not: ["-12", "0", "1"]),
        .init(#"{"type": "integer", "minimum": 2.5}"#, ["3", "1000"], not: ["2", "-3"]),
        .init(
            #"{"type": "number", "minimum": 1.5, "maximum": 20.25}"#, ["1.5", "2", "20.25", "20.2499"],
            not: ["1.49", "20.251", "21"]),
        .init(#"{"type": "number", "exclusiveMinimum": 0}"#, ["0.001", "5"], not: ["0", "0.0", "-1", "-0.5"]),
        .init(#"{"type": "number", "minimum": -0.5}"#, ["-0.5", "-0.25", "0", "9"], not: ["-0.51", "-1"]),
        .init(#"{"type": "integer", "multipleOf": 7}"#, ["0", "14", "-7", "700"], not: ["1", "15"]),
        .init(#"{"type": "number", "multipleOf": 0.25}"#, ["0.25", "1.5", "3", "0.50"], not: ["0.3", "1.1"]),
        .init(
            #"{"type": "string", "minLength": 2, "maxLength": 3}"#, [#""ab""#, #""\n\"x""#, #""안녕""#, #""\ud83d\ude00y""#],
            not: [#""a""#, #""abcd""#]),
        .init(#"{"type": "string", "pattern": "^[a-c]+$"}"#, [#""abc""#], not: [#""abd""#, #""""#, #""ABC""#]),
        .init(#"{"type": "string", "pattern": "b"}"#, [#""b""#, #""abc""#], not: [#""ac""#]),
        .init(
            #"{"type": "string", "pattern": "^(?!admin)[a-z]+$"}"#, [#""user""#, #""adm""#],
            not: [#""admin""#, #""administrator""#]),
        .init(
            #"{"enum": ["a", 1, null, [2, {"b": false}]]}"#, [#""a""#, "1", "null", #"[2, {"b": false}]"#, #"[2,{"b":false}]"#],
            not: ["2", #""b""#]),
        .init(#"{"const": "é/\n"}"#, [#""é/\n""#, #""\u00e9\/\n""#], not: [#""e\u0301/\n""#]),
        .init(#"{"enum": [1, "x", 2.5], "type": "number", "minimum": 2}"#, ["2.5"], not: ["1", #""x""#]),
        .init(#"{"not": {"type": "string"}}"#, ["1", "[]"], not: [#""a""#]),
        .init("true", ["1", #"{"a": [null]}"#], not: ["", "{"]),
    ]

    static let anyOrder: [SchemaCase] = [
        .init(
            #"{"properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}, "required": ["a", "c"], "#
                + #""additionalProperties": false, "type": "object"}"#,
            [
                #"{"a": null, "c": null}"#, #"{"c":null,"a":null}"#, #"{"b": null, "c": null, "a": null}"#,
                #"{"c": null, "a": null, "b": null}"#,
            ], not: [#"{"c": null}"#, #"{"c": null, "c": null, "a": null}"#, "{}", #"{"c": null, "a": null,}"#, #"{,"a": null}"#]),
        .init(
            #"{"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "minProperties": 2, "#
                + #""maxProperties": 3, "additionalProperties": {"type": "boolean"}, "required": ["b"]}"#,
            [#"{"x": true, "b": null}"#, #"{"b": null, "x": true, "a": null}"#, #"{"x": true, "y": false, "b": null}"#],
            not: [
                #"{"b": null}"#, #"{"x": true, "y": true, "z": true}"#, #"{"x": true, "y": true, "a": null, "b": null}"#,
                #"{"x": null, "b": null}"#, #"{"a": true, "b": null}"#,
            ]),
        .init(
            #"{"type": "object", "properties": {"a": {"type": "null"}, "b": false}, "minProperties": 1, "additionalProperties": false}"#,
            [#"{"a": null}"#], not: ["{}", #"{"b": null}"#, #"{"a": null, "a": null}"#]),
        .init(
            #"{"oneOf": [{"type": "object", "properties": {"k": {"const": 1}, "v": {"type": "string"}}, "required": ["k", "v"]}, "#
                + #"{"type": "object", "properties": {"k": {"const": 2}, "v": {"type": "null"}}, "required": ["k", "v"]}]}"#,
            [#"{"v": "x", "k": 1}"#, #"{"k": 2, "v": null}"#, #"{"v": null, "k": 2}"#],
            not: [#"{"v": "x", "k": 2}"#, #"{"v": null, "k": 1}"#]),
        .init(
            ##"{"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"l": {"$ref": "#/$defs/n"}, "##
                + ##""r": {"$ref": "#/$defs/n"}}, "additionalProperties": false}}}"##,
            ["{}", #"{"r": {"r": {}, "l": {}}, "l": {}}"#], not: [#"{"r": {}, "r": {}}"#, #"{"r": {"l": {}, "l": {}}}"#]),
    ]

    @Test("members in any order, each name once", arguments: anyOrder, [false, true])
    func unordered(test: SchemaCase, isSaidBySchema: Bool) throws {
        var options = SchemaOptions()
        options.hasAnyOrder = !isSaidBySchema
        var schema = try JSONValue.parse(test.schema)
        if isSaidBySchema {
            schema = .object(JSONObject((schema.object ?? [:]).map { ($0.key, $0.value) } + [("x-any-order", true)]))
        }
        let grammar = try Grammar(schema: schema, options: options)
        for text in test.valid { #expect(try grammar.accepts(text.utf8), "\(text)") }
        for text in test.invalid { #expect(try !grammar.accepts(text.utf8), "\(text)") }
    }

    @Test("a place from which no order leads to the end is never reached")
    func unorderedDeadEnds() throws {
        var options = SchemaOptions()
        options.hasAnyOrder = true
        let schema = #"{"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "required": ["a", "b"], "maxProperties": 2}"#
        let matcher = try Grammar(schema: JSONValue.parse(schema), options: options).matcher()
        #expect(try !matcher.advance(#"{"c"#.utf8))
        #expect(try matcher.advance(#"{"b":1,"a":2"#.utf8))
        #expect(try !matcher.advance(",".utf8))
        #expect(try matcher.advance("}".utf8))
        #expect(try matcher.isFinished)
    }

    static let formats: [SchemaCase] = [
        .init(
            #"{"type": "string", "format": "date"}"#, [#""2024-02-29""#, #""1999-12-31""#],
            not: [#""2023-02-29""#, #""1900-02-29""#, #""2024-13-01""#]),
        .init(
            #"{"type": "string", "format": "time"}"#, [#""23:59:59Z""#, #""01:02:03.5+09:00""#],
            not: [#""24:00:00Z""#, #""01:02Z""#]),
        .init(#"{"type": "string", "format": "date-time"}"#, [#""2024-01-01T00:00:00Z""#], not: [#""2024-01-01""#]),
        .init(#"{"type": "string", "format": "uuid"}"#, [#""123e4567-e89b-12d3-a456-426614174000""#], not: [#""123e4567""#]),
        .init(#"{"type": "string", "format": "email"}"#, [#""a.b@example.org""#], not: [#""a@""#, #""a..b@c""#]),
        .init(#"{"type": "string", "format": "ipv4"}"#, [#""127.0.0.1""#], not: [#""256.0.0.1""#, #""1.2.3""#, #""01.2.3.4""#]),
        .init(
            #"{"type": "string", "format": "ipv6"}"#, [#""::1""#, #""fe80::1:2""#, #""1:2:3:4:5:6:7:8""#, #""::ffff:1.2.3.4""#],
            not: [#""1::2::3""#, #""1:2:3""#, #""12345::""#]),
        .init(
            #"{"type": "string", "format": "uri"}"#, [#""https://a.org/b?c#d""#, #""urn:x:y""#],
            not: [#""//a.org""#, #""a b:c""#]),
        .init(
            #"{"type": "string", "format": "duration"}"#, [#""P3DT4H""#, #""PT5M""#, #""P2W""#],
            not: [#""P""#, #""PT1D""#, #""P1W2D""#]),
    ]

    static let containers: [SchemaCase] = [
        .init(
            #"{"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}"#,
            ["[1]", "[1, 2,3]", "[\n  1,\n  2\n]"], not: ["[]", "[1,2,3,4]", #"["a"]"#, "[1,]"]),
        .init(
            #"{"type": "array", "prefixItems": [{"type": "null"}, {"type": "boolean"}], "items": false}"#,
            ["[]", "[null]", "[null, true]"], not: ["[true]", "[null, true, 1]"]),
        .init(
            #"{"type": "array", "items": [{"type": "null"}], "additionalItems": {"type": "integer"}}"#, ["[null, 1, 2]"],
            not: ["[1]", "[null, null]"]),
        .init(
            #"{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"], "additionalProperties": false}"#,
            [#"{"a": 1}"#, #"{"a": 1, "b": "x"}"#, #"{"a":1,"b":""}"#],
            not: ["{}", #"{"b": "x"}"#, #"{"a": "1"}"#, #"{"a": 1, "c": 2}"#, #"{"a": 1, }"#]),
        .init(
            #"{"type": "object", "properties": {"a": {"type": "integer"}}}"#, ["{}", #"{"b": [1]}"#, #"{"a": 1, "aa": "x"}"#],
            not: [#"{"a": "x"}"#, #"{"b": 1, "a": "x"}"#]),
        .init(
            #"{"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1, "maxProperties": 2}"#,
            [#"{"x": 1}"#, #"{"x": 1, "y": 2}"#], not: ["{}", #"{"x": 1, "y": 2, "z": 3}"#]),
        .init(
            #"{"type": "object", "patternProperties": {"^n_": {"type": "number"}, "_s$": {"type": "string"}}, "additionalProperties": false}"#,
            [#"{"n_a": 1}"#, #"{"b_s": "x", "n_c": 2}"#], not: [#"{"n_s": 1}"#, #"{"x": 1}"#, #"{"n_a": "1"}"#]),
        .init(
            #"{"type": "object", "propertyNames": {"pattern": "^[a-z]{2}$"}, "additionalProperties": {"type": "null"}}"#,
            [#"{"ab": null}"#], not: [#"{"abc": null}"#]),
        .init(
            #"{"type": "object", "required": ["later"], "properties": {"first": {"const": 1}}, "additionalProperties": false}"#,
            [], not: [#"{"first": 1}"#]),
        .init(#"{"properties": {"a": {"type": "null"}}}"#, ["1", #""x""#, #"{"a": null}"#], not: [#"{"a": 1}"#]),
    ].filter { !$0.valid.isEmpty }

    static let combinations: [SchemaCase] = [
        .init(
            #"{"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]}"#, ["12", #""a""#], not: [#""ab""#, "1.5"]),
        .init(#"{"oneOf": [{"type": "integer"}, {"type": "null"}]}"#, ["1", "null"], not: ["true"]),
        .init(
            #"{"oneOf": [{"type": "object", "properties": {"k": {"const": "a"}, "v": {"type": "integer"}}, "required": ["k", "v"]}, {"type": "object", "properties": {"k": {"const": "b"}}, "required": ["k"]}]}"#,
            [#"{"k": "a", "v": 1}"#, #"{"k": "b"}"#], not: [#"{"k": "a"}"#, #"{"k": "c"}"#]),
        .init(#"{"allOf": [{"minimum": 2}, {"maximum": 5}], "type": "integer"}"#, ["2", "5"], not: ["1", "6"]),
        .init(
            ##"{"$defs": {"tree": {"type": "object", "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "required": ["value"], "additionalProperties": false}}, "$ref": "#/$defs/tree"}"##,
            [#"{"value": 1}"#, #"{"value": 1, "children": [{"value": 2, "children": []}]}"#],
            not: [#"{"value": 1, "children": [{}]}"#]),
        // Up to draft 7, a reference stands alone; since then, what is beside it counts.
        .init(
            ##"{"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"$ref": "#/definitions/n", "minimum": 5}}, "type": "object", "additionalProperties": false, "definitions": {"n": {"type": "integer"}}}"##,
            [#"{"a": 4}"#, #"{"a": 6}"#], not: [#"{"a": "x"}"#]),
        .init(
            ##"{"$schema": "https://json-schema.org/draft/2020-12/schema", "properties": {"a": {"$ref": "#/definitions/n", "minimum": 5}}, "type": "object", "additionalProperties": false, "definitions": {"n": {"type": "integer"}}}"##,
            [#"{"a": 6}"#], not: [#"{"a": 4}"#, #"{"a": "x"}"#]),
        .init(
            ##"{"$schema": "http://json-schema.org/draft-04/schema", "$ref": "#/definitions/n", "type": "string", "definitions": {"n": {"type": "integer"}}}"##,
            ["4"], not: [#""x""#]),
        .init(
            ##"{"$ref": "#/definitions/a", "definitions": {"a": {"anyOf": [{"type": "null"}, {"type": "boolean"}]}}}"##,
            ["null", "true"], not: ["1"]),
        .init(
            ##"{"properties": {"a": {"$ref": "#/definitions/t"}}, "type": "object", "additionalProperties": false, "definitions": {"t": {"oneOf": [{"type": "string"}, {"type": "array"}]}}}"##,
            [##"{"a": "x"}"##, ##"{"a": [1]}"##], not: [##"{"a": 1}"##]),
        .init(
            #"{"$id": "http://x.org/root", "$defs": {"p": {"$id": "part", "$anchor": "here", "type": "integer"}}, "items": {"$ref": "part#here"}, "type": "array"}"#,
            ["[1]"], not: [#"["a"]"#]),
    ]

    static let contraries: [SchemaCase] = [
        .init(#"{"not": {"type": "integer"}}"#, ["1.5", "null", #""1""#, "[]"], not: ["1", "-20"]),
        .init(#"{"not": {"minimum": 3, "type": "number"}}"#, ["2", "2.99", "-7", #""3""#], not: ["3", "3.5"]),
        .init(#"{"type": "number", "not": {"enum": [1, 2.5]}}"#, ["0", "1.01", "2"], not: ["1", "1.0", "2.50"]),
        .init(#"{"type": "string", "not": {"enum": ["a", "ab"]}}"#, [#""""#, #""abc""#, #""b""#], not: [#""a""#, #""ab""#]),
        .init(#"{"type": "string", "not": {"pattern": "^x|y$"}}"#, [#""ax""#, #""""#], not: [#""xa""#, #""ay""#]),
        .init(#"{"type": "string", "not": {"minLength": 2}}"#, [#""a""#], not: [#""ab""#]),
        .init(#"{"not": {"required": ["a"]}}"#, ["{}", #"{"b": 1}"#], not: ["3", #"{"a": 1}"#, #"{"b": 1, "a": 2}"#]),
        .init(
            #"{"not": {"properties": {"a": {"const": 1}}, "required": ["a"]}}"#, ["{}", #"{"a": 2}"#],
            not: ["null", #"{"a": 1}"#, #"{"a": 1, "b": 2}"#]),
        .init(#"{"not": {"items": {"type": "null"}}}"#, ["[1]", "[null, 1]"], not: ["[]", "[null]", "true"]),
        .init(#"{"not": {"not": {"type": "null"}}}"#, ["null"], not: ["1"]),
        .init(##"{"$defs": {"a": {"type": "null"}}, "not": {"$ref": "#/$defs/a"}}"##, ["1"], not: ["null"]),
        .init(#"{"oneOf": [{"type": "string"}, {"type": "string", "minLength": 2}]}"#, [#""a""#], not: [#""ab""#, "1"]),
        .init(
            #"{"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"}"#, [#"{"a": 1}"#, #"{"b": 1, "c": 2}"#],
            not: ["{}", #"{"a": 1, "b": 2}"#, #"{"b": 1, "a": 2}"#]),
        .init(
            #"{"type": "object", "properties": {"k": {"enum": [1, 2]}, "v": true}, "required": ["k", "v"], "if": {"properties": {"k": {"const": 1}}}, "then": {"properties": {"v": {"type": "null"}}}, "else": {"properties": {"v": {"type": "integer"}}}}"#,
            [#"{"k": 1, "v": null}"#, #"{"k": 2, "v": 5}"#], not: [#"{"k": 1, "v": 5}"#, #"{"k": 2, "v": null}"#]),
        .init(
            #"{"type": "object", "properties": {"a": true, "b": true, "c": {"type": "null"}}, "dependentRequired": {"a": ["b"], "c": ["b"]}}"#,
            ["{}", #"{"b": 1}"#, #"{"a": 1, "b": 2, "c": null}"#], not: [#"{"a": 1}"#, #"{"c": null}"#, #"{"a": 1, "c": null}"#]),
        .init(
            #"{"type": "object", "properties": {"a": true}, "dependencies": {"a": {"maxProperties": 1}}}"#,
            [#"{"a": 1}"#, #"{"x": 1, "y": 2}"#], not: [#"{"a": 1, "x": 2}"#]),
        .init(
            #"{"type": "array", "contains": {"type": "null"}, "minContains": 1, "maxContains": 2}"#,
            ["[null]", "[1, null, 2, null]"], not: ["[]", "[1]", "[null, null, null]"]),
        .init(
            #"{"type": "object", "propertyNames": {"anyOf": [{"const": "ab"}, {"pattern": "^x"}]}}"#,
            [#"{"ab": 1, "xy": 2}"#], not: [#"{"a": 1}"#]),
        .init(#"{"type": "string", "format": "colour"}"#, [#""anything""#], not: ["1"]),
        .init(
            #"{"type": "object", "patternProperties": {"^a": {"type": "null"}, "^b": {"const": 1}, "^c": {"const": 2}, "^d": {"const": 3}, "^e": {"const": 4}, "^f": {"const": 5}, "z$": {"type": "number"}}, "additionalProperties": false}"#,
            [#"{"aa": null, "bz": 1, "f": 5, "xz": 7.5}"#], not: [#"{"az": null}"#, #"{"b": 2}"#, #"{"x": 1}"#]),
    ]

    @Test(
        "texts that satisfy a schema are in its language, others are not",
        arguments: scalars + formats + containers + combinations + contraries)
    func texts(_ test: SchemaCase) throws {
        let grammar = try Grammar(schema: try JSONValue.parse(test.schema))
        for text in test.valid { #expect(try grammar.accepts(text.utf8), "\(text)") }
        for text in test.invalid { #expect(try !grammar.accepts(text.utf8), "\(text)") }
    }

    @Test(
        "what is not enforced is refused by its name, or ignored if that is asked for",
        arguments: [
            ("uniqueItems", #"{"uniqueItems": true}"#), ("not", #"{"not": {"multipleOf": 3}}"#),
            ("$dynamicRef", ##"{"$dynamicRef": "#a"}"##), ("format", #"{"format": "regex"}"#),
            ("not", #"{"if": {"propertyNames": {"minLength": 2}}, "then": false}"#),
            ("unevaluatedProperties", #"{"anyOf": [{"type": "null"}], "unevaluatedProperties": false}"#),
            ("uniqueItems", #"{"oneOf": [{"type": "array"}, {"uniqueItems": true}]}"#),
        ])
    func refusals(keyword: String, schema: String) throws {
        let schema = try JSONValue.parse(schema)
        let error = try #require(throws: GrammarError.self) { try Grammar(schema: schema) }
        guard case .unsupportedKeyword(keyword, _, _) = error else {
            Issue.record("\(error)")
            return
        }
        var options = SchemaOptions()
        options.isLenient = true
        _ = try Grammar(schema: schema, options: options)
    }

    @Test(
        "a schema that is none says what is wrong",
        arguments: [
            #"{"type": "colour"}"#, #"{"type": 1}"#, #"{"minLength": -1}"#, #"{"minLength": "2"}"#, #"{"enum": 1}"#, "3", #""x""#,
            ##"{"anyOf": []}"##, ##"{"multipleOf": 0}"##, ##"{"pattern": "("}"##, ##"{"pattern": "a{2,1}"}"##,
            ##"{"$ref": "#/nowhere"}"##,
            #"{"$ref": "http://example.org/other.json"}"#, #"{"properties": []}"#, #"{"required": [1]}"#, "false",
            #"{"type": "object", "properties": {"a": false}, "required": ["a"]}"#,
            #"{"type": "integer", "minimum": 2, "maximum": 1}"#,
            ##"{"type": "string", "minLength": 3, "maxLength": 2}"##,
            #"{"type": "string", "pattern": "^a$", "minLength": 2}"#,
        ])
    func invalidSchemas(schema: String) throws {
        #expect(throws: GrammarError.self) { try Grammar(schema: try JSONValue.parse(schema)) }
    }

    @Test("compact values have no white space")
    func compact() throws {
        var options = SchemaOptions()
        options.isCompact = true
        let grammar = try Grammar(schema: ["type": "array", "items": ["type": "integer"]], options: options)
        #expect(try grammar.accepts("[1,2]".utf8))
        #expect(try !grammar.accepts("[1, 2]".utf8))
    }
}
