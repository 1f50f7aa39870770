import Foundation
import NibbleTestSupport

/// The shell commands of a Markdown page, and the outputs that it shows.
struct DocumentationPage {
    /// A block of commands, and the block of text behind it, if there is one.
    struct Block: Equatable {
        var commands: [String]
        var output: String?

        var isShownWhole: Bool { output?.hasSuffix("…") == false }
    }

    let path: String
    let blocks: [Block]
    /// Targets of the links to files, relative to the repository.
    let links: [String]

    var commands: [String] { blocks.flatMap(\.commands) }

    init(_ path: String) throws {
        let url = Fixtures.repository.appending(path: path)
        let text = try String(contentsOf: url, encoding: .utf8)
        self.path = path
        var blocks: [Block] = []
        var (language, lines): (String?, [String]) = (nil, [])
        for line in text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init) {
            guard line.hasPrefix("```") else {
                if language != nil { lines.append(line) }
                continue
            }
            if language == "sh" { blocks.append(Block(commands: Self.commands(lines))) }
            if language == "text", !blocks.isEmpty { blocks[blocks.count - 1].output = lines.joined(separator: "\n") }
            language = language == nil ? String(line.dropFirst(3)) : nil
            lines = []
        }
        self.blocks = blocks
        links = text.matches(of: /\]\(([^)#\s]+)[^)]*\)/).map { String($0.1) }.filter { !$0.contains("://") }
    }

    /// Lines that end in a backslash are joined, comments and trailing comments dropped.
    private static func commands(_ lines: [String]) -> [String] {
        lines.joined(separator: "\n").replacing("\\\n", with: "").split(separator: "\n")
            .map { String($0.replacing(/\ +#\ .*$/, with: "")) }
            .filter { !$0.isEmpty && !$0.hasPrefix("#") }
    }

    /// Whether `output` is what a page shows, where "…" stands for any text.
    static func matches(_ output: String, shown: String) -> Bool {
        let parts = trimmed(shown).components(separatedBy: "…")
        var rest = trimmed(output)[...]
        for (index, part) in parts.enumerated() where !part.isEmpty {
            guard let range = rest.range(of: part), index > 0 || range.lowerBound == rest.startIndex else { return false }
            rest = rest[range.upperBound...]
        }
        return rest.isEmpty || parts.last == ""
    }

    /// Without blanks at the ends of lines and of the text.
    private static func trimmed(_ text: String) -> String {
        text.split(separator: "\n", omittingEmptySubsequences: false)
            .map { String($0.replacing(/\ +$/, with: "")) }
            .joined(separator: "\n")
            .trimmingCharacters(in: .whitespacesAndNewlines)
    }
}
