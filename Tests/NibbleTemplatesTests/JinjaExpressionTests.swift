import Foundation
import NibbleCore
import NibbleTemplates
import NibbleTestSupport
import Testing

/// Filters, tests, methods, operators and formats with values of every type, as jinja2 printed or refused them.
@Suite struct JinjaExpressionTests {
    /// A template, or an expression alone, and what is printed. Without that it is refused.
    struct Entry {
        let expression: String
        var printed: String?
        var isForbidden = false
    }

    static let groups: [(name: String, entries: [Entry])] = {
        let file = Fixtures.repository.appending(path: "Tests/Fixtures/jinja/expressions.json")
        let groups = (try? JSONValue(contentsOf: file))?["groups"]?.object ?? [:]
        return groups.map { name, group in
            let printed = (group["printed"]?.object ?? [:]).flatMap { text, same in
                (same.array ?? [same]).compactMap(\.string).map { Entry(expression: $0, printed: text) }
            }
            let refused = (group["refused"]?.array ?? []).compactMap(\.string).map { Entry(expression: $0) }
            let forbidden = (group["forbidden"]?.array ?? []).compactMap(\.string)
            return (name, printed + refused + forbidden.map { Entry(expression: $0, isForbidden: true) })
        }
    }()

    @Test("the table is whole")
    func table() { #expect(Self.groups.reduce(0) { $0 + $1.entries.count } > 5_000) }

    @Test("every expression prints what jinja2 prints, or is refused where it is", arguments: groups.map(\.name))
    func recorded(_ name: String) throws {
        let entries = try #require(Self.groups.first { $0.name == name }).entries
        for entry in entries {
            let expression = entry.expression
            let isTemplate = ["{{", "{%", "{#"].contains { expression.contains($0) }
            let source = isTemplate ? expression : "{{ \(expression) }}"
            let expected = entry.printed
            do {
                let text = try JinjaTemplate(source: source).render(variables: [:])
                #expect(
                    expected.map { $0.hasSameBytes(as: text) } ?? false, "\(source): \(text), expected \(expected ?? "an error")")
            } catch let error as JinjaError {
                #expect(expected == nil, "\(source): \(error), expected \(expected ?? "")")
                if entry.isForbidden {
                    #expect({ if case .forbidden = error.reason { true } else { false } }(), "\(source): \(error)")
                }
            }
        }
    }
}
