import Foundation
import NibbleCheckpoint
import NibbleCore
import NibbleTestSupport
import Testing

/// Mistakes of a new user, and the whole answers.
@Suite(.computing) struct MessageTests {
    static let bloom = Fixtures.models.appending(path: "bloom-stories").path
    static let t5 = Fixtures.models.appending(path: "t5-spelling").path

    /// What is typed, and the error without `Error: `. Wrong usage: two lines, the second tells where to look.
    static let usage: [([String], String)] = [
        (["generate", bloom, "--frobnicate"], "Unknown option '--frobnicate'"),
        (["generate", bloom, "Hi", "--max-tokens", "5"], "Unknown option '--max-tokens'. Did you mean '--max-new-tokens'?"),
        (["generate", bloom, "Hi", "--temp=1"], "Unknown option '--temp'. Did you mean '--temperature'?"),
        (
            ["quantize", bloom, "--load-in-4bits", "--output", "q"],
            "Unknown option '--load-in-4bits'. Did you mean '--load-in-4bit'?"
        ),
        (["models", "--jsn"], "Unknown option '--jsn'. Did you mean '--json'?"),
        (["generate", bloom, "Hi", "--top-k", "many"], "--top-k should be a number, found \"many\""),
        (["generate", bloom, "Hi", "--top-k", "1.5"], "--top-k should be a whole number, found \"1.5\""),
        (["generate", bloom, "Hi", "--top-k", ""], "--top-k should be a number, found \"\""),
        (
            ["generate", bloom, "Hi", "--max-new-tokens", "99999999999999999999"],
            "--max-new-tokens should be a smaller number, found \"99999999999999999999\""
        ),
        (["generate", bloom, "Hi", "--seed", "x"], "--seed must be a whole number from 0, found x"),
        (["generate", bloom, "Hi", "--do-sample=maybe"], "--do-sample should be true or false, found \"maybe\""),
        (["generate", bloom, "Hi", "--planner", "x"], "--planner should be nibble or reference, found \"x\""),
        (["generate", bloom, "Hi", "--top-p", "2"], "--top-p must be from 0 to 1, found 2.0"),
        (["generate", bloom, "Hi", "--threads", "99999"], "--threads should be from 1 to 1024, found 99999"),
        (["generate", bloom, "Hi", "--int8-threshold", "NaN"], "--int8-threshold should be 0 or more, found nan"),
        (
            ["generate", bloom, "Hi", "--suppress-tokens", "-1"],
            "--suppress-tokens must be ids separated by commas, found \"-1\""
        ),
        (["generate", bloom, "Hi", "--forced-eos-token-id", ""], "--forced-eos-token-id should be an id, found nothing"),
        (
            ["generate", bloom, "Hi", "--load-in-4bit", "--block-size", "3"],
            "--block-size should be one of 32, 64, 128, 256, 512, 1024, 2048, 4096, found 3"
        ),
        (
            ["plan", bloom, "--max-memory", "1"],
            "--max-memory: \"1\" is no memory limit: use DEVICE=SIZE, such as 0=600MB,cpu=2GB"
        ),
        (["doctor", "--only", "linear"], "--only chooses cases of --selftest, which is missing"),
        (["doctor", "--threads", "0"], "--threads must be from 1 to 1024, found 0"),
        (
            ["chat", "--server", "ftp://host"],
            "--server should be an address such as http://127.0.0.1:8080, found \"ftp://host\""
        ),
        (
            ["pull", "https://huggingface.co/owner/name"],
            "expected the name of a model on the Hub (owner/name), found \"https://huggingface.co/owner/name\": did you mean owner/name?"
        ),
    ]

    @Test("wrong usage is two lines: the option and what it takes, and where to look", arguments: usage)
    func wrongUsage(_ arguments: [String], _ message: String) throws {
        let outcome = try CommandLineTool.run(arguments)
        #expect(outcome.status == 64 && outcome.output.isEmpty)
        #expect(outcome.errors.hasPrefix("Error: \(message)\nSee 'nibble \(arguments[0])"), "\(outcome.errors)")
        #expect(outcome.errors.split(separator: "\n").count == 2)
    }

    @Test("a message of several lines becomes one")
    func severalLines() throws {
        let outcome = try CommandLineTool.run(["--generate-completion-script", "tcsh"])
        #expect(outcome.status == 64)
        #expect(
            outcome.errors == """
                Error: Can't generate completion scripts for 'tcsh'. Please use --generate-completion-script=<shell> with one of: zsh bash fish
                See 'nibble --help' for more information.

                """)
    }

    @Test("what is missing is shown in the form of the command")
    func missing() throws {
        let outcome = try CommandLineTool.run(["forward", "x", "--output", "y"])
        #expect(outcome.status == 64)
        #expect(
            outcome.errors == """
                Error: Missing expected argument '--input <input>'
                Usage: nibble forward [<options>] <model> --input <input> --output <output>

                """)
    }

    @Test(
        "words that are no command",
        arguments: [
            (["run", bloom, "Hi"], "there is no command \"run\": did you mean generate or chat?"),
            (["ls"], "there is no command \"ls\": did you mean models?"),
            (["Pull"], "there is no command \"Pull\": did you mean pull?"),
            (["help", "genrate"], "there is no command \"genrate\": did you mean generate?"),
            (["./model", "Hi"], "there is no command \"./model\": to use a model, write nibble generate ./model \"PROMPT\""),
        ])
    func commands(_ arguments: [String], _ message: String) throws {
        let outcome = try CommandLineTool.run(arguments)
        #expect(outcome.status == 64 && outcome.output.isEmpty && outcome.errors == "Error: \(message)\n", "\(outcome.errors)")
    }

    /// `DIR` stands for a folder of the files that ``failures()`` makes.
    static let failed: [([String], String)] = [
        (
            ["generate", "", "Hi"],
            "no model was named: give a folder, a GGUF file, or the name of a model on the Hub (owner/name)"
        ),
        (
            ["plan", "https://huggingface.co/owner/name"],
            "https://huggingface.co/owner/name is an address: give the name of the model on the Hub (owner/name)"
        ),
        (
            ["perplexity", t5, "--file", "DIR/text.txt"],
            "\(t5) is an encoder-decoder; this command needs a model that continues text (a decoder)"
        ),
        (
            ["generate", bloom, "Hi", "--gguf-file", "x"],
            "\(bloom) has no GGUF file, but 'x' was asked for: leave out --gguf-file"
        ),
        (
            ["generate", bloom, "Hi", "--json-schema", "DIR/schema.json"],
            "DIR/schema.json: the schema's \"type\" at # must be the names of JSON's types, not \"strin\""
        ),
        (
            ["generate", bloom, "Hi", "--json-schema", "DIR/text.txt"],
            "DIR/text.txt: line 1, column 1: expected a value, found 'h'"
        ),
        (["generate", bloom, "Hi", "--regex", "a("], "--regex: the pattern \"a(\" cannot be enforced: unmatched '('"),
        (["grammar", "--gbnf", "DIR/rules.gbnf"], "DIR/rules.gbnf: the grammar's line 2: there is no rule \"x\""),
        (
            ["forward", bloom, "--input", "DIR/text.txt", "--output", "DIR/out"],
            "DIR/text.txt, tensor input_ids: expected a safetensors file (NAME.safetensors), found another kind of file"
        ),
        (
            ["forward", bloom, "--input", "DIR/ids.safetensors", "--output", "DIR"],
            "DIR: cannot be written: it is a folder"
        ),
        (
            ["serve", bloom, "--quiet", "--port", "0", "--kv-budget", "1KB"],
            "--kv-budget of 1.00 KB is too small: keys and values need at least 262.14 KB on cpu"
        ),
        (
            ["serve", bloom, "--quiet", "--host", "no.such.host.invalid", "--port", "0"],
            "cannot listen on no.such.host.invalid:0: there is no such host. Choose another address with --host and --port"
        ),
        (
            ["chat", "--server", "http://127.0.0.1:1"],
            "http://127.0.0.1:1/v1 cannot be reached: connection refused; check --server, and that the server runs"
        ),
    ]

    @Test("failures are one line that names the file or option, with no name of a type", arguments: failed)
    func failures(_ arguments: [String], _ message: String) throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        for (name, text) in [
            ("text.txt", "hello there, dear reader"), ("schema.json", #"{"type": "strin"}"#), ("rules.gbnf", "root ::= x\n"),
        ] {
            try Data(text.utf8).write(to: folder.appending(path: name))
        }
        try makeIDs(folder.appending(path: "ids.safetensors"))
        let outcome = try CommandLineTool.run(arguments.map { $0.replacing("DIR", with: folder.path) })
        #expect(outcome.status == 1 && outcome.output.isEmpty)
        #expect(outcome.errors == "Error: \(message.replacing("DIR", with: folder.path))\n")
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).count == 4)
    }

    @Test("a port in use is said to be in use")
    func portInUse() throws {
        let (socket, port) = try listeningSocket()
        defer { close(socket) }
        let outcome = try CommandLineTool.run(["serve", Self.bloom, "--quiet", "--port", "\(port)"])
        #expect(outcome.status == 1)
        #expect(
            outcome.errors
                == "Error: cannot listen on 127.0.0.1:\(port): address already in use. Choose another address with --host and --port\n"
        )
    }

    /// A file is written under another name and renamed, which would put it in the place of the device.
    @Test("a pipe is not replaced by a file", arguments: ["forward", "quantize"])
    func pipe(_ command: String) throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let pipe = folder.appending(path: "pipe").path
        try #require(mkfifo(pipe, 0o600) == 0)
        let ids = folder.appending(path: "ids.safetensors")
        try makeIDs(ids)
        let outcome = try CommandLineTool.run(
            command == "forward"
                ? ["forward", Self.bloom, "--input", ids.path, "--output", pipe]
                : ["quantize", Self.bloom + "/model.safetensors", "--load-in-4bit", "--output", pipe])
        #expect(outcome.status == 1)
        #expect(outcome.errors == "Error: \(pipe): cannot be written: it is a device or a pipe, not a file\n")
        var found = stat()
        #expect(stat(pipe, &found) == 0 && found.st_mode & S_IFMT == S_IFIFO)
    }

    @Test("a closed standard output is an error, and no file of the model takes its place")
    func closedOutput() throws {
        let process = Process()
        process.executableURL = URL(filePath: "/bin/sh")
        process.arguments = ["-c", "echo x | \"$0\" tokenize \"$1\" >&-", CommandLineTool.url.path, Self.bloom]
        let errors = Pipe()
        process.standardError = errors
        try process.run()
        let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 1)
        #expect(text == "Error: standard output cannot be written: bad file descriptor\n")
    }

    @Test("a failure leaves no folder that was not there")
    func noFolder() throws {
        let folder = try Fixtures.temporaryFolder()
        defer { try? FileManager.default.removeItem(at: folder) }
        let output = folder.appending(path: "quantized").path
        // A limit on the size of files stands for a full disk.
        let process = Process()
        process.executableURL = URL(filePath: "/bin/sh")
        process.arguments = [
            "-c", "trap '' XFSZ; ulimit -f 100; \"$0\" quantize \"$1\" --load-in-4bit --output \"$2\"", CommandLineTool.url.path,
            Self.bloom, output,
        ]
        let errors = Pipe()
        process.standardError = errors
        try process.run()
        let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 1)
        #expect(text == "Error: \(output)/model.safetensors cannot be written: File too large\n")
        #expect(!FileManager.default.fileExists(atPath: output))
    }

    private func makeIDs(_ file: URL) throws {
        try SafetensorsWriter().write([("input_ids", .host([Int64(1), 2], .int64, [1, 2]))], to: file)
    }

    private func listeningSocket() throws -> (socket: Int32, port: Int) {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && listen(descriptor, 1) == 0 && getsockname(descriptor, $0, &length) == 0
            }
        }
        try #require(isBound)
        return (descriptor, Int(UInt16(bigEndian: address.sin_port)))
    }
}
