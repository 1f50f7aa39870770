import Foundation
import NibbleCore
import NibbleGrammar
import NibbleTestSupport
import Testing

private let suiteFolder = "suites/JSON-Schema-Test-Suite/tests/draft2020-12"

/// The JSON Schema project's own suite, draft 2020-12, required part.
@Suite(.enabled(if: Fixtures.exists(suiteFolder), "NIBBLE_FIXTURES holds no JSON-Schema-Test-Suite"))
struct SchemaSuiteTests {
    private struct Counts {
        var passing = 0
        /// Instances of schemas that are refused.
        var unsupported = 0
        var validRefused = 0
    }

    @Test("no invalid instance is accepted; what is refused is refused by name")
    func suite() throws {
        var counts = Counts()
        let files = try FileManager.default.contentsOfDirectory(atPath: Fixtures.url(suiteFolder).path)
        for file in files.filter({ $0.hasSuffix(".json") }).sorted() {
            let groups = try JSONValue(contentsOf: Fixtures.url(suiteFolder + "/" + file)).array
            for group in try #require(groups) { try run(group, file, &counts) }
        }
        // Of 1,281 instances; 31 valid ones have another order of members, another spelling of a number, or a format that draft
        // 2020-12 does not enforce.
        #expect(counts.passing >= 905 && counts.validRefused <= 35, "\(counts)")
    }

    private func run(_ group: JSONValue, _ file: String, _ counts: inout Counts) throws {
        let (schema, tests) = (try #require(group["schema"]), try #require(group["tests"]?.array))
        let grammar: Grammar
        do {
            grammar = try Grammar(schema: schema)
        } catch {
            counts.unsupported += tests.count
            return
        }
        for test in tests {
            let (data, isValid) = (try #require(test["data"]), try #require(test["valid"]?.bool))
            guard let isAccepted = try? grammar.accepts(data.encoded(.spaced).utf8) else {
                counts.unsupported += 1
                continue
            }
            #expect(isValid || !isAccepted, "\(file): \(test["description"]?.string ?? ""): \(data.encoded())")
            if isAccepted == isValid { counts.passing += 1 } else if isValid { counts.validRefused += 1 }
        }
    }
}
