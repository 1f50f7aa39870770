import ArgumentParser
import Foundation
import Nibble
import NibbleCore
import NibbleTokenizers

struct TokenizeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tokenize",
        abstract: "Encode texts, or the lines of standard input.",
        discussion: """
            Each text is answered by its ids, on a line. Without texts each line of standard input is one. With --json such a \
            line is an object {"text": …}, and answers are objects {"ids", "ids_with_special", "decoded", "decoded_skip_special"}.

            Example: nibble tokenize Models/bloom-stories "Hello, my llama is cute"
            """)

    @Argument(help: "A folder with tokenizer files, a GGUF file, or owner/name on the Hub.", completion: .file())
    var model: String

    @Argument(help: "Texts to encode (default: the lines of standard input).")
    var texts: [String] = []

    @Flag(help: "Read and write JSON lines.")
    var json = false

    @Option(help: "Branch, tag or commit of a model on the Hub (default: main).")
    var revision: String?

    func run() async throws {
        var configuration = LoadConfiguration()
        configuration.revision = revision
        let tokenizer = try await AutoTokenizer.from(pretrained: model, configuration: configuration)
        for text in texts { try show(text, tokenizer) }
        var number = 0
        while texts.isEmpty, let line = readLine() {
            number += 1
            if json, line.isEmpty { continue }
            try show(json ? text(in: line, number: number) : line, tokenizer)
        }
    }

    private func text(in line: String, number: Int) throws -> String {
        guard let text = (try? JSONValue.parse(line))?["text"]?.string else {
            throw LineError(
                file: "standard input", line: number, expected: "an object with \"text\"", found: LineError.excerpt(line))
        }
        return text
    }

    private func show(_ text: String, _ tokenizer: Tokenizer) throws {
        Console.output(
            json
                ? try object(text, tokenizer)
                : try tokenizer.encodeCompletely(text).map(String.init).joined(separator: " "))
        try Console.checkOutput()
    }

    private func object(_ text: String, _ tokenizer: Tokenizer) throws -> String {
        let plain = try tokenizer.encodeCompletely(text, addSpecialTokens: false)
        let special = tokenizer.encode(text, addSpecialTokens: true)
        return JSONValue.object(
            JSONObject([
                ("ids", .ids(plain)), ("ids_with_special", .ids(special)), ("decoded", .string(tokenizer.decode(special))),
                ("decoded_skip_special", .string(tokenizer.decode(special, skipSpecialTokens: true))),
            ])
        ).encoded(.compact)
    }
}

extension JSONValue {
    static func ids(_ ids: some Sequence<Int32>) -> JSONValue { .array(ids.map { .int(Int($0)) }) }
}
