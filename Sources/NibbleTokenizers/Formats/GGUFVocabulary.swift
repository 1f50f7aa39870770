import NibbleCore

/// The tokenizer of a GGUF file: the values of the keys `tokenizer.ggml.*`. What a file leaves out has llama.cpp's default
/// for the kind of vocabulary.
package struct GGUFVocabulary: Sendable {
    /// `gpt2` (byte-level BPE), `llama` (SentencePiece BPE) or `t5` (SentencePiece unigram).
    package var model: String
    /// The name of the pre-tokenizer of `gpt2` models.
    package var pre: String?
    /// By id.
    package var tokens: [String]
    /// Merge rules `a b`, best first.
    package var merges: [String] = []
    package var scores: [Float] = []
    /// 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. Empty where the file has none.
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
        let ids = special
        for (name, id) in [
            ("bos_token", ids.bos), ("eos_token", ids.eos), ("unk_token", ids.unknown), ("pad_token", ids.padding),
        ] {
            guard let id else { continue }
            configuration.namedTokens[name] = AddedToken(content: tokens[Int(id)], id: id, isSpecial: true)
        }
        if let chatTemplate { configuration.chatTemplates["default"] = chatTemplate }
        return configuration
    }

    fileprivate typealias SpecialIDs = (bos: Int32?, eos: Int32?, unknown: Int32?, padding: Int32?)

    /// The ids that the file names, or the kind's defaults. An id outside the vocabulary does not count.
    fileprivate var special: SpecialIDs {
        let defaults: SpecialIDs =
            switch model {
            case "llama": (1, 2, 0, nil)
            case "t5": (nil, 1, 2, 0)
            case "gpt2" where pre == "glm4" || pre == "chatglm-bpe": (nil, 11, nil, nil)
            case "gpt2": (11, 11, nil, nil)
            default: (nil, nil, nil, nil)
            }
        func valid(_ id: Int32?) -> Int32? { id.flatMap { tokens.indices.contains(Int($0)) ? $0 : nil } }
        let unknown = valid(unknownID) ?? tokenTypes.firstIndex(of: 2).map { Int32($0) }
        return (
            valid(bosID) ?? valid(defaults.bos), valid(eosID) ?? valid(defaults.eos), unknown ?? valid(defaults.unknown),
            valid(paddingID) ?? valid(defaults.padding)
        )
    }

    /// Texts of tokens that end a turn or a text, whatever type the converter gave them.
    private static let endTexts: Set<ByteText> = [
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>", "<|eom_id|>",
        "<｜end▁of▁sentence｜>", "<end_of_utterance>",
    ]

    /// The kinds of all tokens. Without types, byte tokens and special tokens are known by their texts and ids.
    fileprivate var kinds: [SentencePieceModel.Kind] {
        let ids = special
        return tokens.enumerated().map { id, text in
            let stored =
                id < tokenTypes.count
                ? SentencePieceModel.Kind(rawValue: Int(tokenTypes[id])) ?? .normal : kind(of: text, Int32(id), ids)
            return stored == .normal && Self.endTexts.contains(text) ? .control : stored
        }
    }

    private func kind(of text: String, _ id: Int32, _ ids: SpecialIDs) -> SentencePieceModel.Kind {
        if id == ids.unknown { return .unknown }
        if id == ids.bos || id == ids.eos || id == ids.padding {
            return model == "gpt2" && !text.hasPrefix("<") ? .normal : .control
        }
        let isByte =
            model == "llama" && text.utf8.count == 6 && text.hasPrefix("<0x")
            && UInt8(text.dropFirst(3).dropLast(), radix: 16) != nil
        return isByte ? .byte : .normal
    }

    private func requireFit(_ name: String, _ count: Int) throws(TokenizerError) {
        guard count == 0 || count >= tokens.count else {
            throw .invalidField(
                file: file, field: "tokenizer.ggml.\(name)", expected: "at least \(tokens.count) elements", found: "\(count)")
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
        let (ids, kinds) = (special, kinds)
        sentencePiece.pieces = tokens.enumerated().map { id, text in
            .init(text: text, score: id < scores.count ? scores[id] : 0, kind: kinds[id])
        }
        sentencePiece.fallsBackToBytes = sentencePiece.pieces.contains { $0.kind == .byte }
        sentencePiece.unknownID = unknownID ?? ids.unknown
        sentencePiece.beginID = model == "t5" ? nil : ids.bos
        sentencePiece.endID = ids.eos
        sentencePiece.padID = ids.padding
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
        guard let rules = GGUFPreTokenizer(named: pre ?? "default") else {
            throw .unsupported(file: file, field: "tokenizer.ggml.pre", found: pre ?? "")
        }
        var options = BytePairModel.Options()
        options.ignoresMerges = rules.ignoresMerges
        var components = Tokenizer.Components(
            model: .bytePair(BytePairModel(table: table, merges: reader.merges, options: options)))
        components.normalizer = rules.normalizesToNFC ? .unicode(.nfc) : nil
        components.preTokenizer = try rules.preTokenizer(file: file)
        components.decoder = .byteLevel
        components.addsBegin = addsBos ?? (rules.addsBos && special.bos != nil)
        components.addsEnd = addsEos ?? false
        let kinds = kinds
        components.addedTokens = tokens.indices.compactMap { id in
            switch kinds[id] {
            case .control, .unknown: AddedToken(content: tokens[id], id: Int32(id), isSpecial: true)
            case .userDefined: AddedToken(content: tokens[id], id: Int32(id))
            case .normal, .unused, .byte: nil
            }
        }
        return components
    }
}
