import ArgumentParser
import Foundation
import Nibble
import NibbleCore
import NibbleGrammar

struct GrammarCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "grammar",
        abstract: "Tell which texts are in the language of a schema, pattern or grammar.",
        discussion: """
            Reads lines {"text": …} on standard input and answers each with one line {"accepted": true} or {"accepted": false}: \
            whether the whole text is in the language. With --tokenizer the text's tokens are followed through the masks that \
            generation uses. A schema that cannot be enforced exactly is refused with the keyword's name.
            """)

    @Option(help: ArgumentHelp("A JSON schema (draft 2020-12 or 7).", valueName: "file"), completion: .file(extensions: ["json"]))
    var schema: String?

    @Option(help: ArgumentHelp("A regular expression (ECMA 262) that the whole text must match.", valueName: "text"))
    var regex: String?

    @Option(help: ArgumentHelp("A grammar in llama.cpp's notation.", valueName: "file"), completion: .file(extensions: ["gbnf"]))
    var gbnf: String?

    @Option(
        help: ArgumentHelp("A folder with tokenizer files, a GGUF file, or owner/name on the Hub.", valueName: "model"),
        completion: .file())
    var tokenizer: String?

    @Flag(help: "Ignore the schema's keywords that cannot be enforced.")
    var lenient = false

    @Flag(help: "Members of the schema's objects may come in any order.")
    var anyOrder = false

    @Option(help: ArgumentHelp("White space between the elements of values: flexible or compact.", valueName: "kind"))
    var jsonWhitespace = WhiteSpace.flexible

    @Flag(help: "Print JSON lines; the only form there is.")
    var json = false

    @Flag(help: "Print how long the masks of the texts' tokens take, in microseconds. Needs --tokenizer.")
    var bench = false

    enum WhiteSpace: String, ExpressibleByArgument, CaseIterable {
        case flexible, compact
    }

    func validate() throws {
        guard [schema, regex, gbnf].count(where: { $0 != nil }) == 1 else {
            throw ValidationError("give one of --schema, --regex and --gbnf")
        }
        guard !bench || tokenizer != nil else { throw ValidationError("--bench needs --tokenizer") }
        guard schema != nil || (!lenient && !anyOrder && jsonWhitespace == .flexible) else {
            throw ValidationError("--lenient, --any-order and --json-whitespace have no effect without --schema")
        }
    }

    func run() async throws {
        let grammar = try grammar()
        var follower: TokenFollower?
        if let tokenizer { follower = TokenFollower(try await AutoTokenizer.from(pretrained: tokenizer)) }
        var number = 0
        while let line = readLine() {
            number += 1
            if line.isEmpty { continue }
            guard let text = (try? JSONValue.parse(line))?["text"]?.string else {
                throw LineError(
                    file: "standard input", line: number, expected: "an object with \"text\"", found: LineError.excerpt(line))
            }
            let isAccepted = try follower?.accepts(text, grammar) ?? grammar.accepts(text.utf8)
            if !bench { Console.output(JSONValue.object(["accepted": .bool(isAccepted)]).encoded(.compact)) }
            try Console.checkOutput()
        }
        if bench, let follower { Console.output(follower.times.encoded(.compact)) }
    }

    private func grammar() throws -> Grammar {
        if let regex { return try CommandFailure.naming("--regex") { try Grammar(regex: regex) } }
        if let gbnf {
            let text = try TextFile.read(gbnf)
            return try CommandFailure.naming(gbnf) { try Grammar(gbnf: text) }
        }
        var options = SchemaOptions()
        options.isLenient = lenient
        options.isCompact = jsonWhitespace == .compact
        options.hasAnyOrder = anyOrder
        let file = schema ?? ""
        let value = try JSONField(contentsOf: URL(filePath: file)).value
        return try CommandFailure.naming(file) { try Grammar(schema: value, options: options) }
    }
}

/// Follows a text's tokens through the masks of a grammar, as generation does, and notes how long each mask took.
private struct TokenFollower {
    private let tokenizer: Tokenizer
    private let vocabulary: GrammarVocabulary
    private var microseconds: [Double] = []

    init(_ tokenizer: Tokenizer) {
        self.tokenizer = tokenizer
        let ends = [tokenizer.specialTokens.eos?.id].compactMap(\.self)
        vocabulary = GrammarVocabulary(
            tokenBytes: (0..<Int32(tokenizer.vocabularySize)).map { tokenizer.isSpecial($0) ? [] : tokenizer.tokenBytes($0) },
            endTokens: ends)
    }

    mutating func accepts(_ text: String, _ grammar: Grammar) throws -> Bool {
        let matcher = grammar.matcher()
        for (index, token) in tokenizer.encode(text, addSpecialTokens: false).enumerated() {
            let start = ContinuousClock.now
            let mask = try matcher.mask(vocabulary)
            microseconds.append((ContinuousClock.now - start) / .microseconds(1))
            var bytes = tokenizer.tokenBytes(token)
            // The blank that some tokenizers put before a text is not the text's.
            let isAdded = index == 0 && bytes.first == 0x20 && text.utf8.first != 0x20
            if isAdded { bytes.removeFirst() }
            let isAllowed = isAdded || mask[Int(token) / 32] >> UInt32(token % 32) & 1 != 0
            guard isAllowed, try matcher.advance(bytes) else { return false }
        }
        return try matcher.isComplete
    }

    /// Of all masks so far.
    var times: JSONValue {
        let sorted = microseconds.sorted()
        func quantile(_ share: Double) -> Double {
            sorted.isEmpty ? 0 : sorted[min(Int(share * Double(sorted.count)), sorted.count - 1)]
        }
        let mean = sorted.reduce(0, +) / Double(max(sorted.count, 1))
        return .object([
            "masks": .int(sorted.count), "mean": .double(mean), "p50": .double(quantile(0.5)), "p99": .double(quantile(0.99)),
            "max": .double(sorted.last ?? 0), "first": .double(microseconds.first ?? 0),
        ])
    }
}
