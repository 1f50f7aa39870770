import Foundation
import NibbleCore
import NibbleGrammar
import NibbleTestSupport
import Testing

/// Schemas, patterns and grammars that are made to hurt: deep, long, repetitive, ambiguous, circular, contradictory.
///
/// Each must be compiled or refused, and followed or given up, within ``GrammarLimits``. A hundred of each kind by default. The
/// environment variable NIBBLE_FUZZ gives another number; each source is then held to two seconds and 200 MB, too, which an
/// optimized build needs: `NIBBLE_FUZZ=10000 swift test -c release --filter HostileTests`.
@Suite(.serialized, .computing) struct HostileTests {
    private static let requested = ProcessInfo.processInfo.environment["NIBBLE_FUZZ"].flatMap(Int.init)
    private static let count = requested ?? 100
    private static let texts = [
        "[1, {\"a\": \"b\"}]", "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!\"", "{\"a\": 1, \"b\": [2]}", "ab1", "-12.50",
    ]

    /// Follows one source of each seed, and prints what the worst of them took.
    private func follow(_ kind: String, _ make: (inout HostileSource) throws -> Grammar) throws {
        var worst = (seconds: 0.0, bytes: 0, made: 0)
        for seed in 0..<Self.count {
            var source = HostileSource(seed: UInt64(seed))
            let before = ResidentMemory.bytes
            let start = ContinuousClock.now
            if try follow({ try make(&source) }) { worst.made += 1 }
            let seconds = (ContinuousClock.now - start) / .seconds(1)
            let growth = ResidentMemory.bytes - before
            worst.seconds = max(worst.seconds, seconds)
            worst.bytes = max(worst.bytes, growth)
            guard Self.requested != nil else { continue }
            #expect(seconds < 2 && growth < 200 << 20, "\(kind) of seed \(seed): \(seconds) s, \(growth >> 20) MB")
        }
        print("  \(Self.count) \(kind): \(worst.made) made, at most \(worst.seconds) s and \(worst.bytes >> 20) MB")
    }

    /// - Returns: whether the source was a grammar that was followed to its end.
    @discardableResult
    private func follow(_ make: () throws -> Grammar) throws -> Bool {
        do {
            let grammar = try make()
            let matcher = grammar.matcher()
            for _ in 0..<12 {
                let mask = try matcher.mask(MaskTests.vocabulary)
                guard
                    let token = MaskTests.tokens.indices.first(where: {
                        !MaskTests.tokens[$0].isEmpty && mask[$0 / 32] >> UInt32($0 % 32) & 1 != 0
                    })
                else { break }
                guard try matcher.advance(MaskTests.tokens[token]) else {
                    Issue.record("token \(token) was allowed")
                    return false
                }
            }
            for text in Self.texts { _ = try grammar.accepts(text.utf8) }
            return true
        } catch is GrammarError {
            // A refusal is as good.
            return false
        }
    }

    @Test("hostile schemas end in a grammar or in an error")
    func schemas() throws {
        try follow("schemas") { source in
            var options = SchemaOptions()
            options.hasAnyOrder = source.flips()
            options.isLenient = source.flips()
            return try Grammar(schema: source.schema(depth: 0), options: options)
        }
    }

    @Test("hostile patterns end in a grammar or in an error")
    func patterns() throws { try follow("patterns") { try Grammar(regex: $0.pattern(depth: 0)) } }

    @Test("hostile grammars end in a grammar or in an error")
    func grammars() throws { try follow("grammars") { try Grammar(gbnf: $0.grammar()) } }

    @Test(
        "long and deep sources are errors, or quick",
        arguments: [
            String(repeating: "(", count: 100_000), String(repeating: "a?", count: 4_000) + String(repeating: "a", count: 1_900),
            "(" + String(repeating: "a|", count: 4_900) + "b)*c{9999}", "((((a{1,99}){1,99}){1,99}){1,99}){1,99}",
            String(repeating: "[a-z]*", count: 1_500), "(?=a*b)" + String(repeating: "(?=.*a)", count: 1_000),
            "(.*a.{200})&", "(.*a.{30}){3}", "(?!(.*a){40})(?!(.*b){41}).*",
        ])
    func longPatterns(pattern: String) throws {
        try follow { try Grammar(regex: pattern) }
        try follow { try Grammar(schema: ["type": "string", "pattern": .string(pattern)]) }
        let quoted = pattern.replacing("\\", with: "").replacing("\"", with: "")
        try follow { try Grammar(gbnf: "root ::= \"\(quoted)\"") }
    }

    @Test(
        "long and deep grammars are errors, or quick",
        arguments: [
            "root ::= " + String(repeating: "(", count: 100_000),
            "root ::= " + String(repeating: "\"a\" | ", count: 100_000) + "\"b\"",
            (0..<20_000).map { "r\($0) ::= r\($0 + 1) \"a\"?" }.joined(separator: "\n") + "\nroot ::= r0\nr20000 ::= \"x\"",
            (0..<40).map { "r\($0) ::= r\($0 + 1) r\($0 + 1)" }.joined(separator: "\n") + "\nroot ::= r0\nr40 ::= \"x\"?",
            "root ::= " + (0..<20_000).map { "r\($0)" }.joined(separator: " | ") + "\n"
                + (0..<20_000).map { "r\($0) ::= \"\($0)\"" }.joined(separator: "\n"),
            "root ::= (\"a\" x{1000}){1000}\nx ::= \"b\" | \"c\"", "root ::= \"a\"" + String(repeating: "*", count: 50_000),
        ])
    func longGrammars(text: String) throws {
        try follow { try Grammar(gbnf: text) }
    }
}

/// Makes sources out of a random stream.
private struct HostileSource {
    private var random: SeededGenerator

    init(seed: UInt64) { random = SeededGenerator(seed: seed &* 0x9E37_79B9_7F4A_7C15) }

    private mutating func number(_ limit: Int) -> Int { Int(random.next() >> 33) % limit }
    private mutating func pick<Element>(_ list: [Element]) -> Element { list[number(list.count)] }
    private mutating func size() -> Int { pick([0, 1, 2, 3, 17, 300, 5000, 1_000_000_000]) }

    mutating func flips() -> Bool { number(2) == 0 }

    mutating func pattern(depth: Int) -> String {
        guard depth < 5 else {
            // Anchors within a pattern mostly make it empty, and word boundaries are refused.
            return number(40) == 0 ? pick(["$", "^", "\\b"]) : pick(["a", ".", "[a-z]", "\\d", "\\w*", "한", "b?", "[^ab]"])
        }
        let inner = (0...number(3)).map { _ in pattern(depth: depth + 1) }
        switch number(9) {
        case 0: return inner.joined(separator: "|")
        case 1: return "(" + inner.joined() + ")*"
        case 2: return "(" + inner.joined() + "){\(number(40)),\(pick(["", "60", "9999"]))}"
        case 3: return "(?" + pick(["=", "!", ":"]) + inner.joined() + ")" + inner[0]
        case 4: return "(" + inner.joined(separator: "|") + ")+" + pick(["?", "", "$"])
        case 5: return ".*" + inner.joined(separator: ".*")
        case 6: return "^" + inner.joined() + "$"
        case 7: return "[" + pick(["^", ""]) + pick(["a-z", "\\p{L}", "\\u{0}-\\u{10FFFF}", "z-a"]) + "]{\(number(2000))}"
        default: return inner.joined()
        }
    }

    mutating func schema(depth: Int) -> JSONValue {
        guard depth < 5 else {
            return pick([true, false, ["$ref": "#"], ["type": "string"], ["const": 1], ["not": ["$ref": "#"]], [:]])
        }
        var members: [(String, JSONValue)] = []
        for _ in 0...number(4) { members.append(keyword(depth)) }
        if depth == 0 { members.append(("$defs", .object(["a": schema(depth: 2), "b": schema(depth: 3)]))) }
        var seen: Set<String> = []
        return .object(JSONObject(members.filter { seen.insert($0.0).inserted }))
    }

    private mutating func schemas(_ depth: Int) -> [JSONValue] {
        let count = pick([1, 2, 3, 5, 12])
        return (0..<count).map { _ in schema(depth: depth + 2) }
    }

    private mutating func keyword(_ depth: Int) -> (String, JSONValue) {
        let names = ["a", "b", "c", "\u{0}", "é", "$ref"]
        switch number(20) {
        case 0: return ("type", .string(pick(["object", "array", "string", "number", "integer", "null"])))
        case 1: return (pick(["anyOf", "oneOf", "allOf"]), .array(schemas(depth)))
        case 2: return ("not", schema(depth: depth + 1))
        case 3: return (pick(["$ref"]), .string(pick(["#", "#/$defs/a", "#/$defs/b", "#/$defs/none"])))
        case 4: return (pick(["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"]), .int(size()))
        case 5: return ("pattern", .string(pattern(depth: 2)))
        case 6, 7:
            return ("properties", .object(JSONObject(names.map { ($0, schema(depth: depth + 2)) })))
        case 8:
            let patterns = (0...number(9)).map { _ in (pattern(depth: 3), schema(depth: depth + 2)) }
            var seen: Set<String> = []
            return ("patternProperties", .object(JSONObject(patterns.filter { seen.insert($0.0).inserted })))
        case 9:
            return (
                pick(["additionalProperties", "items", "contains", "propertyNames", "if", "then", "else"]),
                schema(depth: depth + 1)
            )
        case 10: return ("required", .array(names.prefix(1 + number(6)).map { .string($0) }))
        case 11: return ("enum", .array((0..<pick([1, 3, 400])).map { .string("\($0)\(names[$0 % 6])") }))
        case 12: return (pick(["minimum", "exclusiveMaximum"]), .double(pick([0, -1e300, 1e17, 0.1, 12345.678])))
        case 13: return ("multipleOf", .double(pick([1, 0.01, 7, 999_999_937, 1e-9])))
        case 14:
            return (
                pick(["dependentRequired", "dependencies"]),
                .object(JSONObject(names.map { ($0, .array([.string(pick(names))])) }))
            )
        case 15: return ("dependentSchemas", .object(JSONObject(names.map { ($0, schema(depth: depth + 2)) })))
        case 16: return ("prefixItems", .array(schemas(depth)))
        case 17: return (pick(["minContains", "maxContains"]), .int(size()))
        case 18: return ("format", .string(pick(["uri", "ipv6", "date-time", "duration", "unknown"])))
        default: return (pick(["uniqueItems", "$dynamicRef", "nullable", "title"]), pick([true, "#", 1]))
        }
    }

    /// Rules mostly name later ones, because left recursion is refused.
    mutating func grammar() -> String {
        let names = ["root"] + (0...number(12)).map { "r\($0)" }
        return names.indices.map { index in
            let later = names[(index + 1)...].isEmpty ? ["\"z\""] : Array(names[(index + 1)...])
            return names[index] + " ::= " + (0...number(5)).map { _ in branch(names, later) }.joined(separator: " | ")
        }.joined(separator: "\n")
    }

    private mutating func branch(_ names: [String], _ later: [String]) -> String {
        (0...number(4)).map { place in
            let name = number(place == 0 ? 200 : 4) == 0 ? pick(names) : pick(later)
            let atom = pick(["\"a\"", "\"\"", "[a-z]", ".", name, name, "(" + name + " \"b\" | \"a\"?)"])
            return atom + pick(["", "", "", "*", "+", "?", "{2}", "{0,90}", "{3,}", "{700}"])
        }.joined(separator: " ")
    }
}

/// What this process holds in memory; 0 where the system does not tell.
private enum ResidentMemory {
    static var bytes: Int {
        let pages = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8))?.split(separator: " ")
        return pages.flatMap { $0.count > 1 ? Int($0[1]) : nil }.map { $0 * 4096 } ?? 0
    }
}
