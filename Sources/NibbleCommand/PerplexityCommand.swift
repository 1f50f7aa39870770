import ArgumentParser
import Foundation
import Nibble
import NibbleCore
import NibbleTokenizers

struct PerplexityCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "perplexity",
        abstract: "Measure how well a model predicts a text.",
        discussion: """
            With --file, the text's ids, without special tokens, are cut into full windows of W ids; a shorter text is one \
            window. Each window scores the next id of every position. With --stories, each line of the file is a JSON string \
            that is scored alone, between bos and eos.

            Example: nibble perplexity MODEL --file article.txt --window 512
            """)

    @Argument(help: "A model folder, a GGUF file, or owner/name on the Hub.", completion: .file())
    var model: String

    @Option(help: "A text file.", completion: .file())
    var file: String?

    @Option(help: "A file with one JSON string a line.", completion: .file())
    var stories: String?

    @Option(help: "Tokens of a window.")
    var window = 1024

    @Flag(help: "Print {\"tokens\", \"nll\", \"perplexity\"}.")
    var json = false

    @OptionGroup(title: "Adapters")
    var adapters: AdapterOptionsGroup

    @OptionGroup(title: "Load options")
    var load: LoadOptionsGroup

    func validate() throws {
        guard (file == nil) != (stories == nil) else { throw ValidationError("give one of --file and --stories") }
        guard window >= 1 else { throw ValidationError("--window must be at least 1, found \(window)") }
    }

    func run() async throws {
        let source = try ScoredText(file: file, stories: stories)
        let configuration = try load.configuration(adapters)
        let tokenizer = try await AutoTokenizer.from(pretrained: model, configuration: configuration)
        let texts = try source.sequences(tokenizer, window: window)
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
}

/// The text that is scored, read before anything is loaded.
private enum ScoredText {
    case text(file: String, String)
    case stories(file: String, [String])

    /// A text from which no token can be scored.
    struct TooShortError: Error, CustomStringConvertible {
        let file: String
        let tokens: Int
        var description: String { "\(file): expected a text of at least 2 tokens, found \(tokens)" }
    }

    /// - Throws: `TextFile.ReadError`; `LineError` for a story that is no JSON string.
    init(file: String?, stories: String?) throws {
        guard let stories else {
            let file = file ?? ""
            self = .text(file: file, try TextFile.read(file))
            return
        }
        let texts = try TextFile.lines(stories).map { number, line in
            guard let text = (try? JSONValue.parse(line))?.string else {
                throw LineError(file: stories, line: number, expected: "a JSON string", found: LineError.excerpt(line))
            }
            return text
        }
        self = .stories(file: stories, texts)
    }

    /// - Throws: ``TooShortError``
    func sequences(_ tokenizer: Tokenizer, window: Int) throws -> [[Int32]] {
        switch self {
        case .text(let file, let text):
            let ids = tokenizer.encode(text, addSpecialTokens: false)
            guard ids.count > 1 else { throw TooShortError(file: file, tokens: ids.count) }
            return TextWindows.cut(ids, window)
        case .stories(let file, let texts):
            let (bos, eos) = (tokenizer.specialTokens.bos?.id, tokenizer.specialTokens.eos?.id)
            let sequences = texts.map { text in
                [bos].compactMap(\.self) + tokenizer.encode(text, addSpecialTokens: false) + [eos].compactMap(\.self)
            }
            let longest = sequences.map(\.count).max() ?? 0
            guard longest > 1 else { throw TooShortError(file: file, tokens: longest) }
            return sequences
        }
    }
}
