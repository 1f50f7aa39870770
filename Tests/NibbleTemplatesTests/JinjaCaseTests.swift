import Foundation
import NibbleTemplates
import NibbleTestSupport
import Testing

/// Templates whose output jinja2 recorded, in the environment that transformers renders chat templates in.
@Suite struct JinjaCaseTests {
    static let file = Fixtures.repository.appending(path: "Tests/Fixtures/jinja/cases.json")

    /// The recorded moment, in local time as `datetime.now()` is.
    static func now() throws -> Date {
        let parts = DateComponents(year: 2026, month: 11, day: 24, hour: 12, minute: 34, second: 56)
        return try #require(Calendar(identifier: .gregorian).date(from: parts))
    }

    static func cases() throws -> [JinjaObject] {
        guard case .object(let root) = try JinjaValue(json: String(contentsOf: file, encoding: .utf8)),
            case .array(let entries)? = root["cases"]
        else { return [] }
        return entries.compactMap { if case .object(let entry) = $0 { entry } else { nil } }
    }

    static func text(_ entry: JinjaObject, _ key: String) -> String? {
        if case .string(let text)? = entry[key] { text } else { nil }
    }

    static func render(_ entry: JinjaObject, _ template: String) throws -> String {
        var variables: [String: JinjaValue] = [:]
        if case .object(let object)? = entry["variables"] {
            for case (.string(let key), let value) in zip(object.keys, object.values) { variables[key] = value }
        }
        return try JinjaTemplate(source: template).render(variables: variables, now: now())
    }

    /// jinja2's kinds of refusal and ours: `other` stands for Python's own errors.
    static func agrees(_ error: JinjaError, with entry: JinjaObject) -> Bool {
        switch (text(entry, "kind"), error.reason) {
        case ("raised", .raised(let message)): message == text(entry, "message")
        case ("undefined", .undefined), ("forbidden", .forbidden): true
        case ("syntax", .syntax), ("syntax", .unsupportedTag), ("syntax", .unknownFilter), ("syntax", .unknownTest): true
        case ("other", .unknownFilter), ("other", .unknownTest), ("other", .type), ("other", .arguments), ("other", .arithmetic),
            ("other", .limit), ("other", .syntax):
            true
        default: false
        }
    }

    @Test("every recorded template renders as in jinja2, or is refused as there")
    func recorded() throws {
        let cases = try Self.cases()
        #expect(cases.count > 700)
        var templates: [String: String] = [:]
        for entry in cases {
            let name = Self.text(entry, "name") ?? "?"
            let expected = Self.text(entry, "expected")
            let wanted = expected?.debugDescription ?? Self.text(entry, "kind") ?? "?"
            templates[name] = Self.text(entry, "template") ?? Self.text(entry, "template_of").flatMap { templates[$0] }
            let template = try #require(templates[name])
            do {
                let rendered = try Self.render(entry, template)
                #expect(
                    expected.map { $0.utf8.elementsEqual(rendered.utf8) } ?? false,
                    "\(name): \(rendered.debugDescription), expected \(wanted)")
            } catch let error as JinjaError {
                #expect(expected == nil && Self.agrees(error, with: entry), "\(name): \(error), expected \(wanted)")
                #expect(error.line != nil, "\(name)")
            }
        }
    }
}
