import Foundation
import NibbleCore
import NibbleTestSupport
import Testing

/// Mistakes with text that is data, looked for in the sources so that they are not made again.
@Suite(.computing) struct SourceRuleTests {
    private static func sources() throws -> [(file: String, lines: [Substring])] {
        let folder = Fixtures.repository.appending(path: "Sources")
        let files = try #require(FileManager.default.enumerator(atPath: folder.path)).compactMap { $0 as? String }
        return try files.filter { $0.hasSuffix(".swift") }.sorted().map { file in
            (file, try String(contentsOf: folder.appending(path: file), encoding: .utf8).textLines)
        }
    }

    /// Where code, comments aside, holds one of `patterns`.
    private static func uses(of patterns: [String]) throws -> [String] {
        try sources().flatMap { file, lines in
            lines.enumerated().compactMap { index, line in
                let code = line.drop { $0 == " " }
                guard !code.hasPrefix("//"), patterns.contains(where: { code.containsBytes($0) }) else { return nil }
                return "\(file):\(index + 1): \(code)"
            }
        }
    }

    @Test("lines are split with textLines: CRLF is one Character, so that splitting at \"\\n\" reads a CRLF file as one line")
    func lines() throws {
        let found = try Self.uses(of: [
            #"split(separator: "\n""#, #"split("\n""#, #"split(separator: "\r"#, #"components(separatedBy: "\n""#,
            "components(separatedBy: .newlines", #".contains("\n")"#, "split(whereSeparator: \\.isNewline", "enumerateLines",
        ])
        #expect(found.isEmpty, "\(found.joined(separator: "\n"))")
    }

    @Test("vocabularies, templates and JSON objects key their texts by bytes")
    func keys() throws {
        // Names of fields, options and categories are ours; these hold none of a file's texts.
        let allowed = [
            "static let", "private static let", "namedTokens", "var named:", "var named =", "variables:",
            "specialTokens:", "extra:", "[String: JinjaValue]", "[String: Filter]", "[String: Test]", "[String: Method<",
            "large: [String: Range<Int>]", "let names: [String:", "let radixes: [String:", "let categories: [String:",
            "specials: Set<String>", "names: Set<String>", "var readNames", "-> ([JinjaStatement], Set<String>)",
        ]
        let rooms = ["NibbleCore/JSON", "NibbleTokenizers", "NibbleTemplates"]
        let found = try Self.uses(of: ["[String: ", "Set<String>"]).filter { use in
            rooms.contains { use.hasPrefix($0) } && !allowed.contains { use.containsBytes($0) }
        }
        #expect(found.isEmpty, "\(found.joined(separator: "\n"))")
    }

    @Test("the sources are found")
    func found() throws { #expect(try Self.sources().count > 400) }
}
