import Foundation
import NibbleTestSupport
import Testing

/// The commands of the pages that a newcomer reads do what the pages say.
@Suite(.computing) struct DocumentationCommandTests {
    /// Beginnings of commands that do not run here, and why.
    static let notRun = [
        "swift build": "builds this package",
        "swift test": "runs these tests",
        "install ": "changes the system",
        "sudo ": "changes the system",
        "pip install": "changes the system",
    ]
    /// Beginnings of commands whose model is not there, and why it has no stand-in. They are held to be well-formed.
    static let withoutModel = [
        "nibble generate facebook/nllb": "none of the shipped models translates"
    ]

    @Test("every command runs, and prints what the page shows", arguments: ["README.md", "docs/guide.md"])
    func commands(_ path: String) throws {
        let page = try DocumentationPage(path)
        #expect(page.commands.count > 10)
        let folder = try DocumentationFolder()
        defer { try? folder.remove() }
        var server: ServeProcess?
        for block in page.blocks {
            var printed = ""
            for command in block.commands.map({ $0.replacing(#/^swift run .*? nibble /#, with: "nibble ") })
            where !Self.notRun.keys.contains(where: command.hasPrefix) {
                if command.hasPrefix("nibble serve") {
                    server = try folder.serve(command)
                } else if Self.withoutModel.keys.contains(where: command.hasPrefix) {
                    let outcome = try folder.run(command)
                    #expect(outcome.status == 1 && outcome.errors.contains("HF_HUB_OFFLINE"), "\(command): \(outcome.errors)")
                } else {
                    let address = command.replacing("http://127.0.0.1:8080", with: server?.address ?? "nowhere")
                    let outcome = try folder.run(address, hasKnownOutput: block.isShownWhole)
                    #expect(outcome.status == 0, "\(command): \(outcome.errors)")
                    printed += outcome.output
                }
            }
            if let shown = block.output {
                #expect(DocumentationPage.matches(printed, shown: shown), "\(block.commands) printed:\n\(printed)")
            }
        }
        if let server { #expect(server.terminate() == 0) }
    }

    @Test("a served model answers as the guide says")
    func served() throws {
        let page = try DocumentationPage("docs/guide.md")
        let folder = try DocumentationFolder()
        defer { try? folder.remove() }
        let server = try folder.serve(try #require(page.commands.first { $0.hasPrefix("nibble serve") }))
        let request = try #require(page.commands.first { $0.hasPrefix("curl") })
        let answer = try folder.run(request.replacing("http://127.0.0.1:8080", with: server.address))
        #expect(answer.output.contains(#""content":"my friend has a little dog.""#), "\(answer)")
        #expect(server.terminate() == 0)
    }

    @Test("the Korean guide has the commands and outputs of the English one")
    func koreanGuide() throws {
        #expect(try DocumentationPage("docs/ko/guide.md").blocks == DocumentationPage("docs/guide.md").blocks)
    }

    @Test("the Korean README has commands and outputs of the English one only")
    func koreanReadme() throws {
        let (korean, english) = (try DocumentationPage("README.ko.md"), try DocumentationPage("README.md"))
        #expect(korean.commands.count > 5)
        #expect(Set(korean.commands).isSubset(of: english.commands))
        #expect(Set(korean.blocks.map(\.output)).isSubset(of: english.blocks.map(\.output)))
    }

    @Test(
        "links lead to files",
        arguments: ["README.md", "README.ko.md", "docs/guide.md", "docs/ko/guide.md", "docs/performance.md"])
    func links(_ path: String) throws {
        let folder = Fixtures.repository.appending(path: path).deletingLastPathComponent()
        for link in try DocumentationPage(path).links {
            #expect(FileManager.default.fileExists(atPath: folder.appending(path: link).path), "\(link)")
        }
    }

    @Test(
        "an ellipsis of a page stands for any text, and nothing else does",
        arguments: [
            ("a b c\n", "a b c", true), ("a b c", "a … c", true), ("a b", "a…", true), ("a  \nb", "a\nb", true),
            ("a b c", "b c", false), ("a b c", "a b", false), ("a b", "… c", false),
        ])
    func ellipsis(output: String, shown: String, isRight: Bool) {
        #expect(DocumentationPage.matches(output, shown: shown) == isRight)
    }
}
