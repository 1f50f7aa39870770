import NibbleCore
import NibbleGrammar
import Testing

@Suite struct MaskTests {
    /// Bytes, pieces of JSON, words, tokens that cut characters in two, one token twice, special tokens without bytes.
    static let tokens: [[UInt8]] =
        (0...255).map { [UInt8($0)] }
        + [
            "\": ", "\", \"", "{\"", "\"}", "}]", "], [", "true", "null", "name", "value", "hello world", " the", "123", "-1",
            "0.5", "\\u00",
            "\\\"", "한국", "é", "abcdefghijkl", "this is a longer run of plain text, with a comma", "\n  ", "\n", "  ", "{}", "[]",
            "\"a", "a\"",
        ].map { Array($0.utf8) } + [[0xED, 0x95], [0x9C, 0x22], Array("name".utf8), [], []]
    static let vocabulary = GrammarVocabulary(tokenBytes: tokens, endTokens: [Int32(tokens.count - 1)])

    static let schemas = [
        #"{"type": "object", "properties": {"name": {"type": "string"}, "value": {"type": "integer"}}, "required": ["name"]}"#,
        #"{"type": "array", "items": {"anyOf": [{"type": "string", "maxLength": 12}, {"type": "number"}]}}"#, "true",
        #"{"type": "string", "pattern": "^[a-h ]*\\d$"}"#, #"{"enum": ["name", "nam", "value", 123, null]}"#,
        #"{"type": "object", "additionalProperties": {"type": "boolean"}, "properties": {"na": {"const": 1}}}"#,
    ]

    @Test("a mask allows exactly the tokens after which a text of the language can still follow", arguments: schemas)
    func masks(schema: String) throws {
        let grammar = try Grammar(schema: try JSONValue.parse(schema))
        var random = SeededGenerator(seed: UInt64(schema.utf8.count))
        for _ in 0..<40 {
            let matcher = grammar.matcher()
            for _ in 0..<30 {
                let mask = try matcher.mask(Self.vocabulary)
                let allowed = Self.tokens.indices.filter { mask[$0 / 32] >> UInt32($0 % 32) & 1 != 0 }
                for token in Self.tokens.indices {
                    let isEnd = token == Self.tokens.count - 1
                    let expected =
                        try isEnd ? matcher.isComplete : !Self.tokens[token].isEmpty && matcher.copy().advance(Self.tokens[token])
                    #expect(allowed.contains(token) == expected, "token \(token) after \(matcher.count)")
                }
                guard let next = allowed.filter({ !Self.tokens[$0].isEmpty }).randomElement(using: &random) else { break }
                #expect(try matcher.advance(Self.tokens[next]))
            }
        }
    }

    @Test("whatever is chosen among the allowed tokens, some token is allowed until the text is complete", arguments: schemas)
    func noDeadEnds(schema: String) throws {
        let grammar = try Grammar(schema: try JSONValue.parse(schema))
        var random = SeededGenerator(seed: 7)
        for _ in 0..<50 {
            let matcher = grammar.matcher()
            for _ in 0..<60 {
                if try matcher.isFinished { break }
                let mask = try matcher.mask(Self.vocabulary)
                let allowed = Self.tokens.indices.filter { mask[$0 / 32] >> UInt32($0 % 32) & 1 != 0 }
                let token = try #require(allowed.randomElement(using: &random))
                guard !Self.tokens[token].isEmpty else { break }
                #expect(try matcher.advance(Self.tokens[token]))
            }
        }
    }

    @Test("what is rolled back has never been")
    func rollBack() throws {
        let grammar = try Grammar(schema: try JSONValue.parse(Self.schemas[0]))
        let matcher = grammar.matcher()
        let start = try matcher.mask(Self.vocabulary)
        #expect(try matcher.advance(Array("{\"name\": ".utf8)))
        let middle = try matcher.mask(Self.vocabulary)
        #expect(try matcher.advance(Array("\"x\"".utf8)) && matcher.advance(Array("}".utf8)))
        #expect(try matcher.isComplete && matcher.isFinished && matcher.count == 3)
        matcher.rollBack(2)
        #expect(try matcher.mask(Self.vocabulary) == middle)
        #expect(try !matcher.advance(Array("}".utf8)))
        #expect(matcher.count == 1)
        matcher.rollBack(5)
        #expect(try matcher.mask(Self.vocabulary) == start)
    }

    @Test(
        "no schema, pattern or grammar makes work without end",
        arguments: [
            #"{"type": "string", "pattern": "^(a*)*b$"}"#, #"{"type": "string", "pattern": "(x+x+)+y"}"#,
            #"{"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}"#, #"{"type": "array", "minItems": 4000}"#,
            #"{"type": "string", "minLength": 99999}"#, #"{"type": "object", "minProperties": 4000}"#,
            ##"{"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}"##, ##"{"allOf": [{"$ref": "#"}], "type": "null"}"##,
            #"{"type": "integer", "multipleOf": 999999937}"#,
            "{\"type\": \"array\", \"items\": " + String(repeating: "{\"type\": \"array\", \"items\": ", count: 120) + "true"
                + String(repeating: "}", count: 121),
        ])
    func hostile(schema: String) throws {
        do {
            let grammar = try Grammar(schema: try JSONValue.parse(schema))
            let matcher = grammar.matcher()
            _ = try matcher.mask(Self.vocabulary)
            _ = try grammar.accepts(("\"" + String(repeating: "a", count: 200) + "!\"").utf8)
            #expect(grammar.stateCount < 5000)
        } catch is GrammarError {
            // A refusal is as good.
        }
    }
}

struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state ^ state >> 29
    }
}
