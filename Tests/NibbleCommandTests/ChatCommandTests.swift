import Foundation
import NibbleCore
import NibbleTestSupport
import Testing

/// `nibble chat` and `nibble generate --chat`, with lines from a pipe.
@Suite struct ChatCommandTests {
    private let bloom = Fixtures.models.appending(path: "bloom-stories").path

    private func withTemplate<Result>(_ text: String, _ body: (_ path: String) throws -> Result) throws -> Result {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let template = folder.appending(path: "template.jinja")
        try Data(text.utf8).write(to: template)
        return try body(template.path)
    }

    /// Runs with a template of messages as lines.
    private func run(_ command: String, _ arguments: [String], input: String = "") throws -> CommandLineTool.Outcome {
        try withTemplate("{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:") {
            path in
            try CommandLineTool.run([command, bloom, "--quiet", "--chat-template", path] + arguments, input: input)
        }
    }

    private func terminal(
        template: String, _ arguments: [String], typing steps: [(after: PseudoTerminal.Cue, keys: String)]
    ) throws -> (status: Int32, output: String) {
        try withTemplate(template) { path in
            try PseudoTerminal.run(
                CommandLineTool.url, ["chat", bloom, "--quiet", "--chat-template", path] + arguments, typing: steps)
        }
    }

    @Test("each line is answered; /reset begins again, /system counts, /exit ends")
    func conversation() throws {
        let input = "A dog.\nA cat.\n/reset\nA dog.\n/system Tell stories.\nA dog.\n/exit\nA cat.\n"
        let outcome = try run("chat", ["--max-new-tokens", "8", "--suppress-tokens", "0,2"], input: input)
        try #require(outcome.status == 0, "\(outcome.errors)")
        let single = try run("chat", ["--max-new-tokens", "8", "--suppress-tokens", "0,2"], input: "A dog.\n")
        let system = try run(
            "chat", ["--max-new-tokens", "8", "--suppress-tokens", "0,2", "--system", "Tell stories."], input: "A dog.\n")
        #expect(outcome.output.hasPrefix(single.output))
        #expect(outcome.output.hasSuffix(single.output + system.output))
        #expect(outcome.output.count > single.output.count * 2 + system.output.count)
    }

    @Test("/help lists the commands, a wrong one is said to be wrong")
    func help() throws {
        let outcome = try run("chat", [], input: "/help\n/hlep\n")
        #expect(outcome.status == 0)
        for word in ["/reset", "/system", "/exit", "Ctrl-C"] { #expect(outcome.output.contains(word)) }
        #expect(outcome.errors.contains("/hlep"))
    }

    @Test("sampling repeats with its seed")
    func seed() throws {
        let arguments = ["--max-new-tokens", "12", "--temperature", "0.9", "--seed", "5"]
        let first = try run("chat", arguments, input: "A dog.\n")
        #expect(first.status == 0)
        #expect(try run("chat", arguments, input: "A dog.\n").output == first.output)
    }

    @Test("forbidden words do not appear")
    func badWords() throws {
        let base = ["generate", bloom, "--quiet", "--max-new-tokens", "1"]
        #expect(try CommandLineTool.run(base + ["Once upon a"]).output.contains("time"))
        #expect(try !CommandLineTool.run(base + ["--bad-words", "time", "Once upon a"]).output.contains("time"))
    }

    @Test(
        "words that mean nothing are wrong usage",
        arguments: [
            ["--early-stopping", "maybe"], ["--eos-token-id", "0,x"], ["--num-assistant-tokens-schedule", "never"],
        ])
    func wrongUsage(options: [String]) throws {
        let outcome = try CommandLineTool.run(["generate", bloom] + options + ["Once"])
        #expect(outcome.status == 64)
        #expect(outcome.errors.contains(options[0]))
    }

    @Test("an assistant and prompt look-up change nothing but the way")
    func assisted() throws {
        let base = ["generate", bloom, "--quiet", "--json", "--dtype", "float32", "--max-new-tokens", "24", "Once upon a time"]
        let plain = try CommandLineTool.run(base).output
        let drafted = try CommandLineTool.run(base + ["--assistant", bloom, "--num-assistant-tokens", "5"])
        #expect(drafted.output == plain, "\(drafted.errors)")
        #expect(try CommandLineTool.run(base + ["--prompt-lookup-num-tokens", "4"]).output == plain)
    }

    @Test("generate --chat wraps the prompt and prints the answer alone")
    func generate() throws {
        let wrapped = "system: Be kind.\nuser: A dog.\nassistant:"
        let plain = try CommandLineTool.run(["generate", bloom, "--quiet", "--json", "--max-new-tokens", "8", wrapped])
        let chat = try run("generate", ["--chat", "--system", "Be kind.", "--json", "--max-new-tokens", "8", "A dog."])
        try #require(chat.status == 0, "\(chat.errors)")
        let ids = try JSONValue.parse(plain.output)["output_ids"]
        #expect(try JSONValue.parse(chat.output)["output_ids"] == ids)
        let answer = try run("generate", ["--chat", "--max-new-tokens", "8", "A dog."])
        #expect(!answer.output.contains("user:"))
    }

    @Test("without a template the error says so; encoder-decoders do not chat")
    func refusals() throws {
        let none = try CommandLineTool.run(["chat", bloom, "--quiet"], input: "Hello\n")
        #expect(none.status == 1)
        #expect(none.errors.contains("chat template"))
        let unreadable = try CommandLineTool.run(
            ["chat", bloom, "--quiet", "--chat-template", "/nowhere.jinja"], input: "Hello\n")
        #expect(unreadable.status == 1 && unreadable.errors.contains("/nowhere.jinja"))
        let spelling = Fixtures.models.appending(path: "t5-spelling").path
        #expect(try CommandLineTool.run(["chat", spelling, "--quiet"], input: "Hello\n").status == 1)
        #expect(try CommandLineTool.run(["generate", bloom, "--system", "x", "y"]).status == 64)
    }

    @Test("a line is edited on a terminal: cursor, deletion, history")
    func editing() throws {
        // "/hXelp" with the X taken out, then the same line once more from the history, then the end.
        let keys = "/hXelp\u{1B}[D\u{1B}[D\u{1B}[D\u{7F}\r\u{1B}[A\r\u{04}"
        let (status, output) = try terminal(template: "", [], typing: [(.text("> "), keys)])
        #expect(status == 0)
        #expect(output.components(separatedBy: "/system TEXT").count == 3)
        #expect(!output.contains("no command"))
    }

    @Test("Ctrl-C stops the answer and nothing else")
    func interrupt() throws {
        // Without a token that ends it, the answer would be much longer than what is waited for.
        let endless = ["--max-new-tokens", "20000", "--suppress-tokens", "0,1,2,3"]
        let (status, output) = try terminal(
            template: "{{ messages[-1].content }}", endless,
            typing: [(.text("> "), "Once upon a time\r"), (.characters(1000), "\u{03}"), (.text("> "), "/help\r\u{04}")])
        #expect(output.count < 30_000)
        #expect(status == 0)
        #expect(output.contains("/system TEXT"))
    }
}
