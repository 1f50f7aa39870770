import Foundation
import NibbleCore

/// A vocabulary of byte strings in merge order: tiktoken lists and tekken files.
struct RankedTokens {
    /// Byte strings with their ids. The adjacent pair whose join has the smallest id merges first.
    private(set) var tokens: [(bytes: [UInt8], id: Int32)] = []
    let file: String

    /// Tokens longer than this do not occur; splitting one costs the square of its length.
    private static let maximumTokenLength = 1024

    init(file: String) { self.file = file }

    mutating func append(base64: String, id: Int, field: String) throws(TokenizerError) {
        guard let data = Data(base64Encoded: base64), !data.isEmpty, data.count <= Self.maximumTokenLength else {
            throw TokenizerError.invalidField(
                file: file, field: field, expected: "a token of 1 to \(Self.maximumTokenLength) bytes in base64",
                found: "'\(base64.prefix(60))'")
        }
        guard id >= 0, id <= TokenTable.maximumID else {
            throw TokenizerError.invalidField(
                file: file, field: field, expected: "an id from 0 to \(TokenTable.maximumID)", found: "\(id)")
        }
        tokens.append((Array(data), Int32(id)))
    }

    /// The model: a word that is a token is that token; otherwise merges as the ids order them.
    func model() -> BytePairModel {
        var table = TokenTable(capacity: tokens.count)
        var raw = TokenTable(capacity: tokens.count)
        for token in tokens {
            table.insert(ByteLevelAlphabet.encode(token.bytes), id: token.id)
            raw.insert(token.bytes, id: token.id)
        }
        var merges = MergeTable(capacity: tokens.count * 2)
        for token in tokens {
            token.bytes.withUnsafeBufferPointer { bytes in
                for middle in 1..<max(bytes.count, 1) {
                    guard let left = raw.id(of: UnsafeBufferPointer(rebasing: bytes[..<middle])),
                        let right = raw.id(of: UnsafeBufferPointer(rebasing: bytes[middle...]))
                    else { continue }
                    merges.insert(left, right, .init(rank: token.id, result: token.id))
                }
            }
        }
        var options = BytePairModel.Options()
        options.ignoresMerges = true
        return BytePairModel(table: table, merges: merges, options: options)
    }
}

// MARK: - tiktoken

extension Tokenizer {
    /// A tokenizer from a tiktoken list: lines of a token in base64 and its rank.
    ///
    /// - Parameters:
    ///   - pattern: cuts the text into words; Llama 3's, or Qwen's if the configuration names that class, if not given.
    ///   - configuration: must name the special tokens, which the list does not hold.
    package convenience init(
        tiktoken bytes: [UInt8], file: String = "tokenizer.model", pattern: String? = nil,
        configuration: TokenizerConfiguration = .init()
    ) throws(TokenizerError) {
        try FileText.requireUTF8(bytes, file: file)
        var ranked = RankedTokens(file: file)
        for (index, line) in String(decoding: bytes, as: UTF8.self).textLines.enumerated() {
            let parts = line.split(whereSeparator: \.isWhitespace)
            if parts.isEmpty { continue }
            guard parts.count == 2, let rank = Int(parts[1]) else {
                throw TokenizerError.malformedFile(file: file, reason: "line \(index + 1) is not a token in base64 and its rank")
            }
            try ranked.append(base64: String(parts[0]), id: rank, field: "line \(index + 1)")
        }
        guard !ranked.tokens.isEmpty else { throw TokenizerError.malformedFile(file: file, reason: "no tokens") }
        let isQwen =
            configuration.tokenizerClass?.contains("QWen") ?? false || configuration.tokenizerClass?.contains("Qwen") ?? false
        var components = Components(model: .bytePair(ranked.model()))
        components.normalizer = isQwen ? .unicode(.nfc) : nil
        components.preTokenizer = try KnownPatterns.preTokenizer(
            pattern ?? (isQwen ? KnownPatterns.qwen2 : KnownPatterns.llama3), file: file, field: "pattern")
        components.decoder = .byteLevel
        components.addsBegin = !isQwen
        self.init(components, configuration: configuration)
    }
}

// MARK: - tekken

extension Tokenizer {
    /// A tokenizer from Mistral's `tekken.json`.
    package convenience init(
        tekken bytes: [UInt8], file: String = "tekken.json", configuration: TokenizerConfiguration = .init()
    ) throws(TokenizerError) {
        try FileText.requireUTF8(bytes, file: file)
        let components = try TokenizerError.reading(file) { try Self.tekkenComponents(bytes, file: file) }
        self.init(components, configuration: Self.tekkenNames(configuration))
    }

    private static func tekkenComponents(_ bytes: [UInt8], file: String) throws -> Components {
        let root = JSONField(try JSONValue.parse(bytes, options: .validUTF8), file: file)
        let settings = try root.required("config")
        let limit = 0...TokenTable.maximumID
        let specialCount = try settings.required("default_num_special_tokens").integer(in: limit)
        let size = try settings.required("default_vocab_size").integer(in: limit)
        guard size >= specialCount else {
            throw try settings.required("default_vocab_size").unexpected("at least the special tokens")
        }
        var ranked = RankedTokens(file: file)
        for entry in try root.required("vocab").elements().prefix(size - specialCount) {
            let rank = try entry.required("rank").integer(in: limit)
            try ranked.append(base64: try entry.text("token_bytes"), id: rank + specialCount, field: entry.path)
        }
        var components = Components(model: .bytePair(ranked.model()))
        let pattern = try settings.required("pattern")
        components.preTokenizer = try KnownPatterns.preTokenizer(pattern.string(), file: file, field: pattern.path)
        components.decoder = .byteLevel
        components.addsBegin = true
        components.addedTokens = try tekkenSpecials(root, count: specialCount)
        return components
    }

    /// The special tokens of files that do not list them.
    private static let tekkenDefaults = [
        "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
        "[/TOOL_RESULTS]",
        "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]",
        "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
    ]

    private static func tekkenSpecials(_ root: JSONField, count: Int) throws -> [AddedToken] {
        var names = (0..<count).map { $0 < tekkenDefaults.count ? tekkenDefaults[$0] : "<SPECIAL_\($0)>" }
        for entry in try root.child("special_tokens")?.elements() ?? [] where count > 0 {
            names[try entry.required("rank").integer(in: 0...(count - 1))] = try entry.text("token_str")
        }
        return names.enumerated().map { AddedToken(content: $1, id: Int32($0), isSpecial: true) }
    }

    private static func tekkenNames(_ configuration: TokenizerConfiguration) -> TokenizerConfiguration {
        var configuration = configuration
        for (name, text) in [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")]
        where configuration.namedTokens[name] == nil {
            configuration.namedTokens[name] = AddedToken(content: text, id: -1, isSpecial: true)
        }
        return configuration
    }
}
