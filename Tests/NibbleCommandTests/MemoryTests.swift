import Foundation
import NibbleTestSupport
import Testing

/// Memory of a process of its own, so that no other test counts.
@Suite(.computing) struct MemoryTests {
    @Test("200 generations in a row take no more memory than 20")
    func generations() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        func resident(_ prompts: Int) throws -> Double {
            let file = folder.appending(path: "\(prompts).txt")
            try Data(String(repeating: "Once upon a time\n", count: prompts).utf8).write(to: file)
            let outcome = try CommandLineTool.run([
                "generate", Fixtures.models.appending(path: "bloom-stories").path, "--prompt-file", file.path, "--batch-size",
                "1",
                "--max-new-tokens", "16", "--temperature", "0.8", "--seed", "1",
            ])
            try #require(outcome.status == 0, "\(outcome.errors)")
            #expect(outcome.output.split(separator: "\n").count >= prompts)
            // "…, 47.11 MB resident]"
            let words = try #require(outcome.errors.split(separator: "\n").last).split(separator: " ")
            try #require(words.count > 3 && words.last == "resident]" && words[words.count - 2] == "MB")
            return try #require(Double(words[words.count - 3]))
        }
        let (few, many) = (try resident(20), try resident(200))
        print("  resident after 20 generations: \(few) MB, after 200: \(many) MB")
        #expect(many < few + 4)
    }
}
