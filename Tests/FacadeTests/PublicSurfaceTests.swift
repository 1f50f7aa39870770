import Foundation
import Testing

/// Holds what `Sources` makes public to the façade's vocabulary.
struct PublicSurfaceTests {
    static let repository = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    static let maximumLines = 607
    /// For benchmarks only; users do not see it.
    private static let conformance = "NibbleConformance"
    /// Types that only errors hold: a program reaches them through the error.
    private static let partsOfErrors: Set = [
        "MemoryShortage", "UnknownField", "Mismatch", "Reason", "KernelTarget", "LibrarySearch",
    ]

    /// A file that holds the word `public`.
    private struct SourceFile {
        let name: String
        let lines: [Substring]
        var module: String { String(name.prefix { $0 != "/" }) }

        /// Numbers of the lines that declare something public, imports left out, with their words.
        var declarations: [(line: Int, words: [Substring])] {
            lines.indices.compactMap { line in
                let words = lines[line].split(separator: " ").drop { $0.hasPrefix("@") }
                return words.first == "public" && words.dropFirst().first != "import" ? (line, Array(words)) : nil
            }
        }

        /// Numbers of the lines that declare cases of public enums.
        var cases: [Int] {
            declarations.filter { $0.words.contains("enum") }.flatMap { declaration in
                let indent = lines[declaration.line].prefix(while: \.isWhitespace)
                let body = lines[(declaration.line + 1)...].prefix { !$0.hasPrefix(indent + "}") }
                return body.indices.filter { lines[$0].hasPrefix(indent + "    case ") }
            }
        }
    }

    private static func sources() throws -> [SourceFile] {
        let folder = repository.appending(path: "Sources")
        let names = FileManager.default.enumerator(atPath: folder.path)?.compactMap { $0 as? String } ?? []
        let files = try names.filter { $0.hasSuffix(".swift") }.sorted().compactMap { name -> SourceFile? in
            let data = try Data(contentsOf: folder.appending(path: name))
            guard data.range(of: Data("public".utf8)) != nil else { return nil }
            let text = String(decoding: data, as: UTF8.self)
            return SourceFile(name: name, lines: text.split(separator: "\n", omittingEmptySubsequences: false))
        }
        try #require(files.count > 40, "the sources are not where the tests look for them")
        return files
    }

    @Test("at most 606 lines of Sources hold the word public")
    func count() throws {
        let lines = try Self.sources().flatMap(\.lines).count { line in
            line.split { !$0.isLetter && $0 != "_" }.contains("public")
        }
        #expect(lines > 100)
        #expect(lines <= Self.maximumLines)
    }

    @Test("every public declaration has a doc comment, cases included")
    func documented() throws {
        let bare = try Self.sources().flatMap { file in
            (file.declarations.map(\.line) + file.cases).filter { line in
                let before = file.lines[..<line].last { !$0.drop(while: \.isWhitespace).hasPrefix("@") }
                return before?.drop(while: \.isWhitespace).hasPrefix("///") != true
            }.map { "\(file.name):\($0 + 1)" }
        }
        #expect(bare.isEmpty)
    }

    @Test("every module with public declarations is exported by the façade")
    func exported() throws {
        let modules = Set(try Self.sources().filter { !$0.declarations.isEmpty }.map(\.module))
        let exports = try String(contentsOf: Self.repository.appending(path: "Sources/Nibble/Exports.swift"), encoding: .utf8)
            .split(separator: "\n").filter { $0.hasPrefix("@_exported") }.compactMap {
                $0.split(separator: " ").last.map(String.init)
            }
        #expect(modules.subtracting([Self.conformance]) == Set(exports).union(["Nibble"]))
    }

    @Test("the vocabulary names every public type")
    func named() throws {
        let vocabulary = try String(
            contentsOf: Self.repository.appending(path: "Tests/FacadeTests/Vocabulary.swift"), encoding: .utf8)
        let words = Set(vocabulary.split { !$0.isLetter && !$0.isNumber }.map(String.init)).union(Self.partsOfErrors)
        let kinds: Set<Substring> = ["struct", "enum", "class", "protocol", "typealias", "actor"]
        let missing = try Self.sources().filter { $0.module != Self.conformance }.flatMap { file in
            file.declarations.compactMap { declaration -> String? in
                guard let kind = declaration.words.prefix(3).firstIndex(where: kinds.contains) else { return nil }
                let name = String(declaration.words[kind + 1].prefix { $0.isLetter || $0.isNumber })
                return words.contains(name) ? nil : "\(file.module).\(name)"
            }
        }
        #expect(missing.isEmpty)
    }
}
