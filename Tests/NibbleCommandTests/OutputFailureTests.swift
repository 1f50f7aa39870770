import Foundation
import NibbleTestSupport
import Testing

/// Standard output that cannot be written: exit code 1 and one line on standard error.
@Suite struct OutputFailureTests {
    private static let bloom = Fixtures.models.appending(path: "bloom-stories").path

    struct Command: CustomStringConvertible, Sendable {
        var arguments: [String]
        var input = ""
        var description: String { arguments.prefix(3).joined(separator: " ") }
    }

    static let commands: [Command] = [
        Command(arguments: ["generate", bloom, "--quiet", "--max-new-tokens", "100000", "--eos-token-id", "", "Once"]),
        Command(arguments: ["generate", bloom, "--quiet", "--max-new-tokens", "4", "--json", "Once"]),
        Command(arguments: ["tokenize", bloom], input: "Once\n"),
        Command(arguments: ["tokenize", bloom, "--json"], input: "{\"text\": \"Once\"}\n"),
        Command(arguments: ["plan", bloom]),
        Command(arguments: ["doctor"]),
        Command(arguments: ["--help"]),
        Command(arguments: ["help", "generate"]),
        Command(arguments: ["--generate-completion-script", "bash"]),
        Command(arguments: ["bench", bloom, "-p", "4", "-n", "0", "--repetitions", "1"]),
    ]

    private func run(_ command: Command, output: FileHandle) throws -> (status: Int32, errors: String) {
        let process = Process()
        process.executableURL = CommandLineTool.url
        process.arguments = command.arguments
        let (errors, input) = (Pipe(), Pipe())
        process.standardOutput = output
        process.standardError = errors
        process.standardInput = input
        try process.run()
        try input.fileHandleForWriting.write(contentsOf: Data(command.input.utf8))
        try input.fileHandleForWriting.close()
        let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationReason == .exit)
        return (process.terminationStatus, text)
    }

    private func expectOneLine(_ result: (status: Int32, errors: String), _ reason: String) {
        #expect(result.status == 1)
        #expect(result.errors == "Error: standard output cannot be written: \(reason)\n")
    }

    @Test("a full disk", arguments: commands)
    func fullDisk(_ command: Command) throws {
        let full = try #require(FileHandle(forWritingAtPath: "/dev/full"), "this system has no /dev/full")
        expectOneLine(try run(command, output: full), "no space left on device")
    }

    @Test("a reader that has gone away", arguments: commands)
    func brokenPipe(_ command: Command) throws {
        let pipe = Pipe()
        try pipe.fileHandleForReading.close()
        expectOneLine(try run(command, output: pipe.fileHandleForWriting), "broken pipe")
    }

    @Test("answers of a chat")
    func chat() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let template = folder.appending(path: "template.jinja")
        try Data("{{ messages[-1].content }}".utf8).write(to: template)
        let full = try #require(FileHandle(forWritingAtPath: "/dev/full"), "this system has no /dev/full")
        let chat = Command(
            arguments: ["chat", Self.bloom, "--quiet", "--chat-template", template.path, "--max-new-tokens", "100000"],
            input: "Once\nTwice\n")
        expectOneLine(try run(chat, output: full), "no space left on device")
    }
}
