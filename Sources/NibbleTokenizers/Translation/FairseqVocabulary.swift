import NibbleCore

/// The families that Fairseq trained: special tokens first, whatever ids SentencePiece gave them.
enum FairseqFamily: Sendable {
    case nllb, mBart, mBart50, xglm

    init?(tokenizerClass: String) {
        switch tokenizerClass.replacing(/Fast$/, with: "") {
        case "NllbTokenizer": self = .nllb
        case "MBartTokenizer": self = .mBart
        case "MBart50Tokenizer": self = .mBart50
        case "XGLMTokenizer": self = .xglm
        default: return nil
        }
    }

    /// Tokens behind the pieces.
    fileprivate var lastTokens: [String] {
        switch self {
        case .nllb: LanguageCodes.nllb + ["<mask>"]
        case .mBart: LanguageCodes.mBart + ["<mask>"]
        case .mBart50: LanguageCodes.mBart50 + ["<mask>"]
        case .xglm: (0..<7).map { "<madeupword\($0)>" }
        }
    }

    fileprivate var namedTokens: [(name: String, text: String)] {
        let common = [
            ("eos_token", "</s>"), ("unk_token", "<unk>"), ("sep_token", "</s>"), ("pad_token", "<pad>"), ("cls_token", "<s>"),
        ]
        switch self {
        case .nllb, .mBart: return common + [("bos_token", "<s>"), ("mask_token", "<mask>")]
        case .mBart50: return common + [("mask_token", "<mask>")]
        case .xglm: return common + [("bos_token", "<s>")]
        }
    }
}

extension SentencePieceModel {
    /// The tokenizer that transformers makes of `sentencepiece.bpe.model`.
    func fairseqComponents(_ family: FairseqFamily) throws(TokenizerError) -> Tokenizer.Components {
        var model = self
        // Whatever the file calls its first pieces: <unk>, <s> and </s>.
        let own = pieces.dropFirst(3)
        let first = ["<s>", "<pad>", "</s>", "<unk>"]
        model.pieces = first.map { Piece(text: $0, kind: .control) } + own
        model.pieces += family.lastTokens.map { Piece(text: $0, kind: .control) }
        model.unknownID = 3
        var table = TokenTable(capacity: model.pieces.count)
        for (id, piece) in model.pieces.enumerated() { table.insert(piece.text.utf8, id: Int32(id)) }

        var components = Tokenizer.Components(
            model: family == .nllb ? .bytePair(model.bytePair(table, .byID)) : .unigram(model.unigram(table, matchesAll: true)))
        components.addedTokens = zip(first, 0...).map { AddedToken(content: $0, id: $1, isSpecial: true) }
        for (index, text) in family.lastTokens.enumerated() {
            var token = AddedToken(content: text, id: Int32(first.count + own.count + index), isSpecial: true)
            token.stripsLeft = text == "<mask>"
            token.isNormalized = token.stripsLeft
            components.addedTokens.append(token)
        }
        let metaspace = PreTokenizer.metaspace(replacement: 0x2581, .always, splits: true)
        components.decoder = .metaspace(replacement: Self.mark, keepsFirst: false)
        components.preTokenizer = family == .mBart ? .sequence([.whitespaceSplit, metaspace]) : metaspace
        if family != .mBart, family != .nllb || !charsMap.isEmpty {
            components.normalizer = .sequence(try map(.clusters) + [.replace(Self.spaceRuns, content: [0x20])])
        }
        if family == .xglm { components.postProcessor = .template(.xglm) }
        return components
    }

    /// The configuration with the special tokens of the family where it names none.
    func completed(_ configuration: TokenizerConfiguration, _ family: FairseqFamily) -> TokenizerConfiguration {
        var configuration = configuration
        for (name, text) in family.namedTokens where configuration.namedTokens[name] == nil {
            configuration.namedTokens[name] = AddedToken(content: text, id: -1, isSpecial: true)
        }
        return configuration
    }
}

extension PostProcessor.Template {
    /// `</s> A` and `</s> A </s> </s> B`.
    fileprivate static var xglm: Self {
        let end = SpecialTokens.Token(text: "</s>", id: 2)
        var template = Self(before: [end], after: [])
        let special = Element.special(name: end.text, typeID: 0)
        template.pair = template.single + [special, special, .sequence(isSecond: true, typeID: 0)]
        return template
    }
}

extension Tokenizer {
    /// A tokenizer from the bytes of `sentencepiece.bpe.model`.
    ///
    /// - Parameters:
    ///   - file: its name for error messages.
    ///   - configuration: its class says how the pieces are numbered and what comes behind them.
    convenience init(
        fairseq bytes: [UInt8], file: String, configuration: TokenizerConfiguration
    ) throws(TokenizerError) {
        let name = configuration.tokenizerClass
        guard let family = name.flatMap(FairseqFamily.init) else {
            throw .unsupported(file: "tokenizer_config.json", field: "tokenizer_class", found: name ?? "null")
        }
        let model = try SentencePieceModel(bytes, file: file)
        self.init(try model.fairseqComponents(family), configuration: model.completed(configuration, family))
    }
}
