import ArgumentParser
import Foundation
import Nibble
import NibbleCore
import NibbleTokenizers

struct TokenizeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tokenize",
        abstract: "Encode the lines of standard input.",
        discussion: """
            Each line is a text, and the answer is its ids. With --json each line is an object {"text": …}, and the answer is \
            an object {"ids", "ids_with_special", "decoded", "decoded_skip_special"}.

            Example: echo "Hello, my llama is cute" | nibble tokenize Models/bloom-stories
            """)

    @Argument(help: "A folder with tokenizer files, a GGUF file, or owner/name on the Hub.")
    var model: String

    @Flag(help: "Read and write JSON lines.")
    var json = false

    @Option(help: "Branch, tag or commit of a model on the Hub (default: main).")
    var revision: String?

    func run() async throws {
        var configuration = LoadConfiguration()
        configuration.revision = revision
        let tokenizer = try await AutoTokenizer.from(pretrained: model, configuration: configuration)
        var number = 0
        while let line = readLine() {
            number += 1
            if json {
                if line.isEmpty { continue }
                Console.output(try answer(line, number: number, tokenizer))
            } else {
                Console.output(try tokenizer.encodeCompletely(line).map(String.init).joined(separator: " "))
            }
            try Console.checkOutput()
        }
    }

    private func answer(_ line: String, number: Int, _ tokenizer: Tokenizer) throws -> String {
        guard let text = (try? JSONValue.parse(line))?["text"]?.string else {
            throw LineError(
                file: "standard input", line: number, expected: "an object with \"text\"", found: LineError.excerpt(line))
        }
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
