import ArgumentParser
import Foundation
import Nibble
import NibbleCore
import NibbleTokenizers

struct PerplexityCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "perplexity",
        abstract: "Score a text.",
        discussion: """
            --file: the text's ids, without special tokens, are cut into full windows of W; each window scores the next id of \
            every position. --stories: a file of JSON strings, one a line, each scored alone between bos and eos.
            """)

    @Argument(help: "A model folder, a GGUF file, or owner/name on the Hub.")
    var model: String

    @Option(help: "A text file.")
    var file: String?

    @Option(help: "A file with one JSON string a line.")
    var stories: String?

    @Option(help: "Tokens of a window.")
    var window = 1024

    @Flag(help: "Print {\"tokens\", \"nll\", \"perplexity\"}.")
    var json = false

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    func validate() throws {
        guard (file == nil) != (stories == nil) else { throw ValidationError("give one of --file and --stories") }
        guard window >= 1 else { throw ValidationError("--window should be at least 1, found \(window)") }
    }

    func run() async throws {
        let configuration = try load.configuration()
        let tokenizer = try await AutoTokenizer.from(pretrained: model, configuration: configuration)
        let texts = try sequences(tokenizer)
        let pretrained = try await AutoModel.from(pretrained: model, configuration: configuration)
        Report.show(pretrained.report, quiet: load.quiet)
        let score = try pretrained.perplexity(of: texts)
        if json {
            Console.output(
                JSONValue.object(
                    JSONObject([
                        ("tokens", .int(score.tokens)), ("nll", .double(score.meanNegativeLogLikelihood)),
                        ("perplexity", .double(score.perplexity)),
                    ])
                ).encoded(.compact))
        } else {
            Console.output(
                String(
                    format: "%d tokens, %.5f nats a token, perplexity %.4f", score.tokens, score.meanNegativeLogLikelihood,
                    score.perplexity))
        }
    }

    private func sequences(_ tokenizer: Tokenizer) throws -> [[Int32]] {
        if let file {
            return TextWindows.cut(
                tokenizer.encode(try TextFile.read(file), addSpecialTokens: false), window)
        }
        let lines = try TextFile.read(stories ?? "").split(separator: "\n")
        return try lines.map { line in
            guard let text = try JSONValue.parse(String(line)).string else {
                throw ValidationError("\(stories ?? ""): expected a JSON string a line, found \(line.prefix(60))")
            }
            var ids = tokenizer.encode(text, addSpecialTokens: false)
            if let bos = tokenizer.specialTokens.bos { ids.insert(bos.id, at: 0) }
            if let eos = tokenizer.specialTokens.eos { ids.append(eos.id) }
            return ids
        }
    }
}
