import Foundation
import NibbleTemplates
import Testing

@Suite struct JinjaLimitTests {
    static func render(_ source: String, _ variables: [String: JinjaValue] = [:], limits: JinjaLimits = JinjaLimits()) throws
        -> String
    {
        try JinjaTemplate(source: source, limits: limits).render(variables: variables)
    }

    static func failure(_ source: String, limits: JinjaLimits = JinjaLimits()) -> JinjaError? {
        do {
            _ = try render(source, limits: limits)
            return nil
        } catch {
            return error as? JinjaError
        }
    }

    static func isLimit(_ error: JinjaError?) -> Bool {
        if case .limit = error?.reason { true } else { false }
    }

    @Test(
        "hostile templates end in a typed limit",
        arguments: [
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{{ range(100001) }}",
            "{{ range(-9223372036854775807, 9223372036854775807) }}", "{{ '%999999999999d' % 1 }}", "{{ '{:999999}'.format(1) }}",
            "{{ 'a\t'.expandtabs(9999999) }}", "{% for x in [[]] recursive %}{{ loop([[]]) }}{% endfor %}",
            "{{ '{:.99999f}'.format(1.5) }}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{% for x in [1] %}{{ a() }}{% endfor %}{% endmacro %}{{ a() }}",
            "{% set ns = namespace(x='a') %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}",
            "{% set ns = namespace(x={}) %}{% for i in range(1000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}",
            "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = ([ns.x]|select) %}{% endfor %}",
            "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = ns.x.count %}{% set ns.x = [ns.x] %}{% endfor %}",
            "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% for y in [ns.x] %}{% set ns.x = [loop] %}{% endfor %}{% endfor %}",
            "{{ 'a' * 9223372036854775807 }}", "{{ [1, 2] * 4611686018427387904 }}", "{{ ('a' * 60000)|replace('a', 'bb') }}",
            "{{ ('a' * 60000)|indent(9223372036854775807) }}", "{{ 'a'.ljust(9223372036854775807) }}",
            "{{ 'a'.zfill(9223372036854775807) }}",
            "{{ 'a'|center(9223372036854775807) }}", "{{ ('a\n' * 2000)|indent(99) }}",
            "{% for i in range(100) %}{{ 'a' * 1000 }}{% endfor %}",
            "{% for i in range(9999) %}{% set x = 'a' * 60000 %}{% endfor %}", "{{ ('a' * 30000).replace('', 'bcd') }}",
            "{{ ',' .join(['a' * 30000] * 3) }}", "{{ ['a' * 30000] * 3 }}", "{{ (['a' * 30000] * 3)|tojson }}",
            "{% set ns = namespace(x=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x == ns.x }}",
            "{% set ns = namespace(x=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ [ns.x, 1] < [ns.x, 2] }}",
            "{% set ns = namespace(x=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
            "{% set ns = namespace(x=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson }}",
            "{% set ns = namespace(x=()) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}",
            "{% set ns = namespace(x=()) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {}[ns.x] }}",
            "{% set ns = namespace(x={}) %}{% for i in range(60) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x in [ns.x] }}",
            "{% set x = 'a' * 60000 %}{% for i in range(9999) %}{% set y = x.strip('a') %}{% endfor %}",
            "{% set x = 'a' * 60000 %}{% for i in range(9999) %}{% set y = 'b'.strip(x) %}{% endfor %}",
            "{% set x = 'a' * 60000 %}{% for i in range(9999) %}{% set y = x is upper %}{% endfor %}",
            "{% set l = range(9999)|list %}{% for i in l %}{% set y = l|sum %}{% endfor %}",
        ])
    func limited(_ source: String) {
        var limits = JinjaLimits()
        (limits.outputBytes, limits.iterations, limits.work) = (1 << 16, 10_000, 1 << 22)
        let error = Self.failure(source, limits: limits)
        #expect(Self.isLimit(error), "\(error.map(String.init(describing:)) ?? "rendered")")
        #expect(error?.line != nil)
    }

    @Test(
        "deeply nested template text ends in a typed limit, not in a stack overflow",
        arguments: [
            ("(", ")"),
            ("[", "]"),
            ("not ", ""), ("-", ""),
            ("{1:", "}"),
            ("", ".a"), ("", "[0]"), ("", "()"),
            ("", "|upper"), ("not ", " is string"),
            ("", " if 1 else 1"), ("", " if 1"),
        ])
    func nestedExpressions(_ before: String, _ after: String) {
        let source = "{{ \(String(repeating: before, count: 5_000))1\(String(repeating: after, count: 5_000)) }}"
        #expect(Self.isLimit(Self.failure(source)))
    }

    @Test(
        "deeply nested statements end in a typed limit",
        arguments: ["{% if 1 %}", "{% for x in [1] %}", "{% set x %}", "{% macro m() %}", "{% with %}"])
    func nestedStatements(_ tag: String) {
        #expect(Self.isLimit(Self.failure(String(repeating: tag, count: 2_000))))
    }

    @Test("long chains of one operator are no nesting")
    func chains() throws {
        let sum = (0..<5_000).map(String.init).joined(separator: " + ")
        #expect(try Self.render("{{ \(sum) }}") == "12497500")
        #expect(try Self.render("{{ \(Array(repeating: "'a'", count: 5_000).joined(separator: " ~ ")) }}").utf8.count == 5_000)
        #expect(try Self.render("{{ \(Array(repeating: "1", count: 5_000).joined(separator: " and ")) }}") == "1")
        let branches = (0..<2_000).map { "{% elif x == \($0) %}\($0)" }.joined()
        #expect(try Self.render("{% if false %}\(branches){% endif %}", ["x": 1_999]) == "1999")
    }

    @Test("an ordinary depth is within the limits")
    func ordinaryDepth() throws {
        #expect(try Self.render("{{ \(String(repeating: "(", count: 40))1\(String(repeating: ")", count: 40)) }}") == "1")
        #expect(
            try Self.render("{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{% else %}end{% endif %}{% endmacro %}{{ f(60) }}")
                == "end")
    }

    @Test("a full depth fits a small stack")
    func smallStack() async {
        let error: JinjaError? = await withCheckedContinuation { continuation in
            let thread = Thread {
                let macro = "{% macro m() %}{{ 1 + (2 * (3 - (m()|length if true else 0))) }}{% endmacro %}{{ m() }}"
                continuation.resume(returning: Self.failure(macro))
            }
            thread.stackSize = 4 << 20
            thread.start()
        }
        #expect(Self.isLimit(error))
    }

    @Test("limits can be lowered")
    func lowered() {
        var limits = JinjaLimits()
        limits.outputBytes = 10
        #expect(Self.isLimit(Self.failure("{{ 'abcdefghijk' }}", limits: limits)))
        #expect(Self.isLimit(Self.failure("abcdefghijk", limits: limits)))
        #expect(Self.failure("abcdefghij", limits: limits) == nil)
        limits = JinjaLimits()
        limits.sourceBytes = 3
        #expect(Self.isLimit(Self.failure("abcd", limits: limits)))
        limits = JinjaLimits()
        limits.iterations = 5
        #expect(Self.isLimit(Self.failure("{% for x in range(6) %}{% endfor %}", limits: limits)))
        #expect(Self.failure("{% for x in range(5) %}{% endfor %}", limits: limits) == nil)
        limits = JinjaLimits()
        limits.work = 1_000
        #expect(Self.isLimit(Self.failure("{% for x in range(50) %}{{ x }}{% endfor %}", limits: limits)))
    }

    @Test("namespaces, macros and loops that hold each other are given back")
    func cycles() throws {
        let source = """
            {% set ns = namespace() %}{% set ns.me = ns %}{% for i in range(5000) %}{% set ns.last = namespace(before=ns.last) %}{% endfor %}
            {% macro wrap(old) %}{% macro inner() %}{{ old }}{% endmacro %}{% set ns.m = inner %}{% endmacro %}
            {% for i in range(5000) %}{% set _ = wrap(ns.m) %}{% endfor %}{{ ns.me.me is sameas ns }}
            """
        #expect(try Self.render(source).hasSuffix("True"))
    }

    @Test(
        "tags that read files are refused by name",
        arguments: ["include 'x'", "import 'x' as y", "from 'x' import y", "extends 'x'"])
    func noFiles(_ tag: String) {
        let error = Self.failure("a\n{% \(tag) %}")
        #expect(error?.reason == .unsupportedTag(String(tag.split(separator: " ")[0])))
        #expect(error?.line == 2)
    }

    @Test(
        "integers are bounded, and written up to the digits that Python writes",
        arguments: ["2 ** 100000", "10 ** 9223372036854775807", "(2 ** 65000) * (2 ** 65000)", "(2 ** 65536 - 1) * 2"])
    func integers(_ expression: String) {
        #expect(Self.isLimit(Self.failure("{{ (\(expression)) % 7 }}")), "\(expression)")
        #expect(Self.failure("{{ 10 ** 4300 }}").map { if case .arithmetic = $0.reason { true } else { false } } == true)
        #expect(Self.failure("{{ 10 ** 4299 }}") == nil)
    }

    @Test("long divisions of large integers are counted as work")
    func divisions() {
        var limits = JinjaLimits()
        limits.work = 1 << 20
        #expect(Self.isLimit(Self.failure("{{ (3 ** 40000) // (7 ** 10000) % 10 }}", limits: limits)))
    }

    @Test("any text is parsed or refused, never a trap")
    func mutations() {
        let source =
            "{%- for m in messages[::-1] if m.role != 'x' -%}{{ m['content']|trim(' ')|tojson(indent=2) ~ \"\\u00e9\" }}{%+ endfor %}{# c #}{% raw %}{{{% endraw %}"
        let scalars = Array(source.unicodeScalars)
        var state: UInt64 = 1
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        var refused = 0
        for round in 0..<1_500 {
            var changed = scalars
            for _ in 0...random(3) {
                let place = random(changed.count)
                switch random(3) {
                case 0: changed.remove(at: place)
                case 1: changed[place] = scalars[random(scalars.count)]
                default: changed.insert(scalars[random(scalars.count)], at: place)
                }
            }
            if round % 7 == 0 { changed.removeLast(random(changed.count)) }
            var text = ""
            text.unicodeScalars.append(contentsOf: changed)
            do {
                _ = try Self.render(text, ["messages": [["role": "user", "content": " a "]]])
            } catch {
                #expect((error as? JinjaError)?.line != nil)
                refused += 1
            }
        }
        #expect(refused > 0)
    }
}
