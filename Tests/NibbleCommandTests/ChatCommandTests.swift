import Foundation
import NibbleCore
import NibbleTestSupport
import Testing

/// `nibble chat` and `nibble generate --chat`, with lines from a pipe.
@Suite(.computing) struct ChatCommandTests {
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

    /// Options under which an answer is always the same.
    private let greedy = ["--do-sample", "false", "--max-new-tokens", "8", "--suppress-tokens", "0,2"]

    @Test("each line is answered; /reset begins again, /system counts, /exit ends")
    func conversation() throws {
        let input = "A dog.\nA cat.\n/reset\nA dog.\n/system Tell stories.\nA dog.\n/exit\nA cat.\n"
        let outcome = try run("chat", greedy, input: input)
        try #require(outcome.status == 0, "\(outcome.errors)")
        let single = try run("chat", greedy, input: "A dog.\n")
        let system = try run("chat", greedy + ["--system", "Tell stories."], input: "A dog.\n")
        #expect(outcome.output.hasPrefix(single.output))
        #expect(outcome.output.hasSuffix(single.output + system.output))
        #expect(outcome.output.count > single.output.count * 2 + system.output.count)
    }

    @Test("/help lists the commands; a word that looks like one is a message, with a note")
    func help() throws {
        let outcome = try run("chat", greedy, input: "/help\n/hlep\n")
        #expect(outcome.status == 0)
        for word in ["/reset", "/system", "/set", "/exit", "Ctrl-C"] { #expect(outcome.output.contains(word)) }
        #expect(outcome.errors.contains("/hlep is no command"))
        #expect(try outcome.output.hasSuffix(answer("/hlep")))
    }

    /// The greedy answer to one message, from `generate`.
    private func answer(_ message: String) throws -> String {
        let wrapped = "user: \(message)\nassistant:"
        let plain = try CommandLineTool.run(["generate", bloom, "--quiet"] + greedy + [wrapped])
        try #require(plain.status == 0 && plain.output.hasPrefix(wrapped), "\(plain.errors)")
        return String(plain.output.dropFirst(wrapped.count))
    }

    @Test(
        "only known commands are commands; two slashes escape one",
        arguments: [
            ("/tmp/x what is this?", "/tmp/x what is this?"), ("//reset", "/reset"), ("///", "//"), ("/resetting", "/resetting"),
            ("/ reset", "/ reset"), (" /reset", " /reset"), ("/r\u{301}eset", "/r\u{301}eset"),
        ])
    func messages(line: String, message: String) throws {
        let outcome = try run("chat", greedy, input: "\(line)\n")
        #expect(outcome.status == 0)
        #expect(try outcome.output == answer(message))
    }

    @Test("a command that takes nothing is not performed where something follows")
    func argument() throws {
        let outcome = try run("chat", greedy, input: "/exit now\nA dog.\n")
        #expect(outcome.errors.contains("/exit stands alone"))
        #expect(try outcome.output == run("chat", greedy, input: "A dog.\n").output)
    }

    @Test("answers are sampled at 0.7 and 0.9 unless options or the model say otherwise")
    func sampledByDefault() throws {
        func answers(_ arguments: String...) throws -> String {
            let outcome = try run("chat", ["--max-new-tokens", "24", "--seed", "5"] + arguments, input: "A dog.\nA cat.\n")
            try #require(outcome.status == 0, "\(outcome.errors)")
            return outcome.output
        }
        let sampled = try answers()
        #expect(try answers("--do-sample", "--temperature", "0.7", "--top-p", "0.9") == sampled)
        let greedy = try answers("--do-sample", "false")
        #expect(greedy != sampled)
        #expect(try answers("--temperature", "0") == greedy)
        #expect(try answers("--seed", "6") != sampled)
    }

    @Test("the model's own choice goes before the default")
    func modelsChoice() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let model = folder.appending(path: "model")
        try FileManager.default.copyItem(at: URL(filePath: bloom), to: model)
        try Data("{\"do_sample\": false, \"eos_token_id\": 2}".utf8).write(to: model.appending(path: "generation_config.json"))
        try Data("{{ messages[-1].content }}".utf8).write(to: model.appending(path: "chat_template.jinja"))
        let arguments = ["chat", model.path, "--quiet", "--max-new-tokens", "24"]
        let outcome = try CommandLineTool.run(arguments, input: "A dog.\n")
        try #require(outcome.status == 0, "\(outcome.errors)")
        #expect(try CommandLineTool.run(arguments + ["--temperature", "0"], input: "A dog.\n").output == outcome.output)
        #expect(try CommandLineTool.run(arguments + ["--do-sample", "--seed", "5"], input: "A dog.\n").output != outcome.output)
    }

    @Test("/set changes options, lists and takes back its changes")
    func settings() throws {
        let sampled = ["--max-new-tokens", "8", "--suppress-tokens", "0,2", "--seed", "5"]
        let single = try run("chat", greedy, input: "A dog.\n").output
        for change in ["/set temperature 0", "/set do-sample false", "/set do_sample false", "/set --do-sample false"] {
            let outcome = try run("chat", sampled, input: "\(change)\nA dog.\n")
            #expect(outcome.output == single && outcome.errors.isEmpty, "\(change): \(outcome.errors)")
        }
        let back = try run("chat", sampled, input: "/set temperature 0\n/set temperature default\nA dog.\n")
        #expect(try back.output == run("chat", sampled, input: "A dog.\n").output)
        let again = try run("chat", greedy + ["--seed", "5"], input: "/set temperature 0.9\nA dog.\n")
        #expect(try again.output == run("chat", sampled + ["--temperature", "0.9"], input: "A dog.\n").output)

        let words = single.split(separator: " ")
        let stop = String(try #require(words.dropFirst(2).first))
        let stopped = try run("chat", greedy, input: "/set stop \(stop)\nA dog.\n")
        #expect(stopped.output.count < single.count && single.hasPrefix(stopped.output.dropLast()))
        let suppressed = try run("chat", greedy, input: "/set bad-words \(stop)\nA dog.\n")
        #expect(suppressed.status == 0 && !suppressed.output.contains(stop))

        let list = try run("chat", greedy, input: "/set max-new-tokens 3\n/set top_k 7\n/set top_k default\n/set\n")
        #expect(list.output == "max-new-tokens 3\n" && list.errors.isEmpty)
    }

    @Test(
        "what /set cannot do is one clear line, and nothing changes",
        arguments: [
            ("/set temprature 1", "temperature"), ("/set temperature", "needs a value"), ("/set temperature hot", "hot"),
            ("/set temperature -1", "temperature must be above 0"), ("/set top-p 1.5", "top-p must be from 0 to 1"),
            ("/set num-beams 4", "one sequence"), ("/set max-new-tokens 0", "max-new-tokens"),
            ("/set max_new_tokens many", "max-new-tokens"), ("/set zebra default", "zebra"),
            ("/set eos-token-id 1,x", "eos-token-id"),
        ])
    func wrongSettings(line: String, mention: String) throws {
        let outcome = try run("chat", greedy, input: "\(line)\nA dog.\n")
        #expect(outcome.status == 0)
        #expect(outcome.errors.split(separator: "\n").count == 1 && outcome.errors.contains(mention), "\(outcome.errors)")
        #expect(try outcome.output == run("chat", greedy, input: "A dog.\n").output)
    }

    @Test("sampling repeats with its seed")
    func seed() throws {
        let arguments = ["--max-new-tokens", "12", "--temperature", "0.9", "--seed", "5"]
        let first = try run("chat", arguments, input: "A dog.\n")
        #expect(first.status == 0)
        #expect(try run("chat", arguments, input: "A dog.\n").output == first.output)
    }

    @Test("forbidden words do not appear, in chats neither")
    func badWords() throws {
        let base = ["generate", bloom, "--quiet", "--max-new-tokens", "1"]
        #expect(try CommandLineTool.run(base + ["Once upon a"]).output.contains("time"))
        #expect(try !CommandLineTool.run(base + ["--bad-words", "time", "Once upon a"]).output.contains("time"))
        let chat = try run("chat", greedy, input: "A dog.\n").output
        let word = String(try #require(chat.split(separator: " ").dropFirst().first))
        #expect(try !run("chat", greedy + ["--bad-words", word], input: "A dog.\n").output.contains(word))
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

    @Test("an answer is not cut at the default of generate(); a limit is that of the options, then of the model's files")
    func answerLength() throws {
        func ids(_ arguments: String...) throws -> Int {
            let endless = ["--chat", "--json", "--suppress-tokens", "0,1,2,3"]
            let outcome = try run("generate", endless + arguments + ["A dog."])
            try #require(outcome.status == 0, "\(outcome.errors)")
            return try JSONValue.parse(outcome.output)["output_ids"]?.array?.count ?? 0
        }
        #expect(try ids("--max-length", "40") == 40)
        // The model has positions without end; its tokenizer gives model_max_length.
        #expect(try ids() == 1024)
    }

    @Test("warnings and errors name options as they are written here")
    func optionNames() throws {
        let unlimited = try CommandLineTool.run(["generate", bloom, "Once"])
        #expect(unlimited.errors.contains("set --max-new-tokens") && !unlimited.errors.contains("max_new_tokens"))
        let idle = try CommandLineTool.run(["generate", bloom, "--do-sample", "false", "--top-p", "0.5", "Once"])
        #expect(idle.errors.contains("--top-p has no effect without --do-sample"))
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
