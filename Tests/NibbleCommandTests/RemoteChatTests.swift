import Foundation
import NibbleTestSupport
import Testing

/// `nibble chat --server`.
@Suite(.serialized, .computing) struct RemoteChatTests {
    private let bloom = Fixtures.models.appending(path: "bloom-stories").path

    private func withServer(_ more: [String] = [], _ body: (ServeProcess) throws -> Void) throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let template = folder.appending(path: "template.jinja")
        try Data("{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:".utf8)
            .write(to: template)
        let server = try ServeProcess([bloom, "--max-batch", "2", "--chat-template", template.path] + more)
        try body(server)
        #expect(server.terminate() == 0)
    }

    private let greedy = ["--temperature", "0", "--max-new-tokens", "8"]

    @Test("each line is answered with what was said before; /reset begins again")
    func conversation() throws {
        try withServer { server in
            func chat(_ input: String) throws -> CommandLineTool.Outcome {
                try CommandLineTool.run(["chat", "--server", server.address, "--quiet"] + greedy, input: input)
            }
            let single = try chat("A dog.\n")
            try #require(single.status == 0, "\(single.errors)")
            #expect(single.output.contains { !$0.isWhitespace })
            let outcome = try chat("A dog.\nA cat.\n/reset\nA dog.\n/exit\nA cat.\n")
            #expect(outcome.output.hasPrefix(single.output))
            #expect(outcome.output.hasSuffix(single.output))
            let options = try chat("/set max-new-tokens 2\nA dog.\n")
            #expect(options.output.count < single.output.count)
        }
    }

    @Test("Ctrl-C stops the answer and the server's work for it, and the chat goes on")
    func interrupt() throws {
        try withServer(["--context", "60000"]) { server in
            // More than prompts and echoes: the answer has begun.
            let result = try PseudoTerminal.run(
                CommandLineTool.url, ["chat", "--server", server.address, "--temperature", "0"],
                typing: [
                    (.text("> "), "/set ignore_eos true\n"), (.text("> "), "A dog.\n"), (.characters(600), "\u{3}"),
                    (.text("> "), "\u{4}"),
                ])
            #expect(result.status == 0)
            // Far from the 60,000 tokens that the context has room for.
            #expect(result.output.count < 60_000)
        }
    }

    @Test("wrong keys, unknown models and servers that are not there are one line")
    func errors() throws {
        try withServer(["--api-key", "secret"]) { server in
            func chat(_ more: [String]) throws -> CommandLineTool.Outcome {
                try CommandLineTool.run(["chat", "--quiet"] + more, input: "Hi\n")
            }
            let refused = try chat(["--server", server.address])
            #expect(refused.status == 1)
            #expect(refused.errors.contains("401"))
            let taken = try chat(["--server", server.address, "--api-key", "secret"] + greedy)
            #expect(taken.status == 0, "\(taken.errors)")
            let unknown = try chat(["none", "--server", server.address, "--api-key", "secret"])
            #expect(unknown.status == 1)
            #expect(unknown.errors.contains("404") && unknown.errors.contains("none"))
        }
        let absent = try CommandLineTool.run(["chat", "--quiet", "--server", "127.0.0.1:9"], input: "Hi\n")
        #expect(absent.status == 1)
        #expect(absent.errors.contains("cannot be reached"))
        #expect(try CommandLineTool.run(["chat"]).status == 64)
    }
}
