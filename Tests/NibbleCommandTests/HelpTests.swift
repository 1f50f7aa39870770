import Foundation
import NibbleTestSupport
import Testing

/// The help of every command, as it was last looked at.
///
/// After a change: `NIBBLE_UPDATE_HELP=1 swift test --filter HelpTests` writes the files anew; read their difference.
@Suite(.computing) struct HelpTests {
    /// `nibble` itself, and the commands that its help lists.
    static let commands: [String] = {
        let text = (try? CommandLineTool.run(["--help"]).output) ?? ""
        let names = text.split(separator: "\n").drop { $0 != "SUBCOMMANDS:" }.dropFirst()
            .filter { $0.hasPrefix("  ") && !$0.hasPrefix("   ") && !$0.hasPrefix("  See ") }
        return ["nibble"] + names.compactMap { $0.split(separator: " ").first.map(String.init) }
    }()

    private let folder = Fixtures.repository.appending(path: "Tests/Fixtures/help")

    private func help(_ command: String) throws -> String {
        let outcome = try CommandLineTool.run((command == "nibble" ? [] : [command]) + ["--help"])
        #expect(outcome.status == 0 && outcome.errors.isEmpty)
        return outcome.output
    }

    @Test("help is what is recorded", arguments: commands)
    func recorded(_ command: String) throws {
        let text = try help(command)
        let file = folder.appending(path: "\(command).txt")
        guard !Self.isUpdating else {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            return try Data(text.utf8).write(to: file)
        }
        let recorded = try String(contentsOf: file, encoding: .utf8)
        // Line by line, so that a failure shows what differs.
        let (got, wanted) = (text.split(separator: "\n"), recorded.split(separator: "\n"))
        for (line, other) in zip(got, wanted) where line != other { #expect(line == other) }
        #expect(text == recorded, "NIBBLE_UPDATE_HELP=1 swift test --filter HelpTests records the change")
    }

    private static let isUpdating = ProcessInfo.processInfo.environment["NIBBLE_UPDATE_HELP"] != nil

    @Test(
        "commands are found, and no help is recorded of one that is gone",
        .disabled(if: isUpdating, "help is being recorded"))
    func complete() throws {
        #expect(Self.commands.count > 9 && Self.commands.contains("generate"))
        let recorded = try FileManager.default.contentsOfDirectory(atPath: folder.path)
        #expect(Set(recorded) == Set(Self.commands.map { "\($0).txt" }))
    }

    @Test("--version prints the version and the commit it was built from")
    func version() throws {
        let outcome = try CommandLineTool.run(["--version"])
        #expect(outcome.status == 0)
        #expect(outcome.output.wholeMatch(of: #/[0-9]+\.[0-9]+\.[0-9]+( \([0-9a-f]{12}\+?\))?\n/#) != nil, "\(outcome.output)")
    }

    @Test("a word that is no command is an error that names the nearest one")
    func unknownCommand() throws {
        let near = try CommandLineTool.run(["genrate", "model", "Hello"])
        #expect(near.status == 64 && near.errors == "Error: there is no command \"genrate\": did you mean generate?\n")
        let far = try CommandLineTool.run(["frobnicate"])
        #expect(far.status == 64 && far.errors.contains("nibble --help"))
    }

    @Test("messages name options that exist")
    func optionNames() throws {
        let text = try help("generate")
        // The values that are refused name their options.
        for (option, value) in [
            ("--top-p", "1.5"), ("--repetition-penalty", "-1"), ("--temperature", "-0.5"), ("--num-beams", "0"),
            ("--max-new-tokens", "0"), ("--seed", "-1"), ("--max-time", "-2"), ("--epsilon-cutoff", "7"),
        ] {
            let outcome = try CommandLineTool.run(["generate", "nowhere", "Hello", option, value])
            #expect(outcome.status == 64)
            #expect(outcome.errors.contains(option) && outcome.errors.contains(value), "\(outcome.errors)")
            #expect(text.contains("\(option) <"))
        }
    }
}
