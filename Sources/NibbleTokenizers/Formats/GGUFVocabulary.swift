/// The tokenizer of a GGUF file as plain values (keys `tokenizer.ggml.*`).
package struct GGUFVocabulary: Sendable {
    /// `gpt2` (byte-level BPE), `llama` (SentencePiece BPE) or `t5` (SentencePiece unigram).
    package var model: String
    /// Names the word pattern of `gpt2` models.
    package var pre: String?
    /// By id.
    package var tokens: [String]
    /// `a b`, best first.
    package var merges: [String] = []
    package var scores: [Float] = []
    /// 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    package var tokenTypes: [Int32] = []
    package var bosID: Int32?
    package var eosID: Int32?
    package var unknownID: Int32?
    package var paddingID: Int32?
    package var addsBos: Bool?
    package var addsEos: Bool?
    package var addsSpacePrefix: Bool?
    package var removesExtraWhitespaces: Bool?
    package var precompiledCharsMap: [UInt8] = []
    package var chatTemplate: String?
    /// The file's name for error messages.
    package var file: String

    package init(model: String, tokens: [String], file: String) {
        self.model = model
        self.tokens = tokens
        self.file = file
    }
}

extension Tokenizer {
    /// The tokenizer that a GGUF file describes.
    ///
    /// - Throws: `TokenizerError` for a model or a `pre` that is not known, or for lists that do not fit together.
    package convenience init(_ vocabulary: GGUFVocabulary) throws(TokenizerError) {
        var configuration = vocabulary.configuration
        switch vocabulary.model {
        case "gpt2": self.init(try vocabulary.bytePairComponents(), configuration: configuration)
        case "llama", "t5":
            let model = try vocabulary.sentencePieceModel()
            if vocabulary.model == "t5" { configuration.extraIDs = 0 }
            var components = try model.components(.converted, configuration: configuration)
            components.addsBegin = vocabulary.addsBos ?? (vocabulary.model == "llama")
            components.addsEnd = vocabulary.addsEos ?? (vocabulary.model == "t5")
            self.init(components, configuration: configuration)
        default:
            throw .unsupported(file: vocabulary.file, field: "tokenizer.ggml.model", found: vocabulary.model)
        }
    }
}

extension GGUFVocabulary {
    fileprivate var configuration: TokenizerConfiguration {
        var configuration = TokenizerConfiguration()
        for (name, id) in [("bos_token", bosID), ("eos_token", eosID), ("unk_token", unknownID), ("pad_token", paddingID)] {
            guard let id, id >= 0, Int(id) < tokens.count else { continue }
            configuration.namedTokens[name] = AddedToken(content: tokens[Int(id)], id: id, isSpecial: true)
        }
        if let chatTemplate { configuration.chatTemplates["default"] = chatTemplate }
        return configuration
    }

    private func kind(_ id: Int) -> SentencePieceModel.Kind {
        id < tokenTypes.count ? SentencePieceModel.Kind(rawValue: Int(tokenTypes[id])) ?? .normal : .normal
    }

    private func requireFit(_ name: String, _ count: Int) throws(TokenizerError) {
        guard count == 0 || count == tokens.count else {
            throw .invalidField(
                file: file, field: "tokenizer.ggml.\(name)", expected: "\(tokens.count) elements", found: "\(count)")
        }
    }

    private func validate() throws(TokenizerError) {
        guard !tokens.isEmpty, tokens.count <= TokenTable.maximumID else {
            throw .invalidField(
                file: file, field: "tokenizer.ggml.tokens", expected: "1 to \(TokenTable.maximumID) tokens",
                found: "\(tokens.count)")
        }
        try requireFit("scores", scores.count)
        try requireFit("token_type", tokenTypes.count)
    }

    fileprivate func sentencePieceModel() throws(TokenizerError) -> SentencePieceModel {
        try validate()
        var sentencePiece = SentencePieceModel(file: file)
        sentencePiece.isBytePair = model == "llama"
        sentencePiece.pieces = tokens.enumerated().map { id, text in
            .init(text: text, score: id < scores.count ? scores[id] : 0, kind: kind(id))
        }
        sentencePiece.fallsBackToBytes = sentencePiece.pieces.contains { $0.kind == .byte }
        sentencePiece.unknownID = unknownID ?? tokens.indices.first { kind($0) == .unknown }.map { Int32($0) }
        sentencePiece.beginID = model == "t5" ? nil : bosID
        sentencePiece.endID = eosID
        sentencePiece.padID = paddingID
        sentencePiece.charsMap = precompiledCharsMap
        sentencePiece.addsDummyPrefix = addsSpacePrefix ?? true
        sentencePiece.removesExtraSpaces = removesExtraWhitespaces ?? (model == "t5")
        if let unknown = sentencePiece.unknownID, unknown < 0 || Int(unknown) >= tokens.count {
            throw .invalidField(
                file: file, field: "tokenizer.ggml.unknown_token_id", expected: "an id below \(tokens.count)", found: "\(unknown)"
            )
        }
        try sentencePiece.validate()
        return sentencePiece
    }

    fileprivate func bytePairComponents() throws(TokenizerError) -> Tokenizer.Components {
        try validate()
        var table = TokenTable(capacity: tokens.count)
        for (id, token) in tokens.enumerated() { table.insert(token.utf8, id: Int32(id)) }
        var reader = MergeReader(table: table, file: file, field: "tokenizer.ggml.merges")
        for merge in merges { try reader.add(line: Array(merge.utf8)) }
        let rules = try self.rules()
        var options = BytePairModel.Options()
        options.ignoresMerges = rules.ignoresMerges
        var components = Tokenizer.Components(
            model: .bytePair(BytePairModel(table: table, merges: reader.merges, options: options)))
        components.normalizer = rules.normalizer
        components.preTokenizer = rules.preTokenizer
        components.decoder = .byteLevel
        components.addsBegin = addsBos ?? false
        components.addsEnd = addsEos ?? false
        components.addedTokens = tokens.indices.compactMap { id in
            switch kind(id) {
            case .control, .unknown: AddedToken(content: tokens[id], id: Int32(id), isSpecial: true)
            case .userDefined: AddedToken(content: tokens[id], id: Int32(id))
            case .normal, .unused, .byte: nil
            }
        }
        return components
    }

    private struct Rules {
        var preTokenizer: PreTokenizer
        var normalizer: Normalizer?
        var ignoresMerges = false
    }

    /// The rules that a name in `tokenizer.ggml.pre` stands for.
    private func rules() throws(TokenizerError) -> Rules {
        let gpt2 = PreTokenizer.byteLevel(addsPrefixSpace: false, splits: true)
        func pattern(_ source: String) throws(TokenizerError) -> PreTokenizer {
            try KnownPatterns.preTokenizer(source, file: file, field: "tokenizer.ggml.pre")
        }
        switch pre ?? "default" {
        case "default", "gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "trillion", "modern-bert":
            return Rules(preTokenizer: gpt2)
        case "llama-bpe", "llama3", "llama-v3", "falcon3", "smaug-bpe", "dbrx", "lfm2":
            return Rules(preTokenizer: try pattern(KnownPatterns.llama3), ignoresMerges: true)
        case "qwen2", "deepseek-r1-qwen", "stablelm2", "megrez":
            return Rules(preTokenizer: try pattern(KnownPatterns.qwen2), normalizer: .unicode(.nfc))
        case "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone":
            return Rules(preTokenizer: .sequence([.digits(individual: true), gpt2]))
        case "bloom": return Rules(preTokenizer: try pattern(KnownPatterns.bloom))
        case "tekken": return Rules(preTokenizer: try pattern(KnownPatterns.tekken), ignoresMerges: true)
        case "gpt-4o", "llama4": return Rules(preTokenizer: try pattern(KnownPatterns.gpt4o), ignoresMerges: true)
        case let other: throw .unsupported(file: file, field: "tokenizer.ggml.pre", found: other)
        }
    }
}
