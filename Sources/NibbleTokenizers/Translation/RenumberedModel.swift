import NibbleCore

/// A SentencePiece model whose pieces have other ids than its own: those of a `vocab.json`.
struct RenumberedModel: Sendable {
    /// Ids by text.
    let table: TokenTable
    private let pieces: Pieces
    /// By the piece's own id.
    private let ids: [Int32]
    private let ownUnknownID: Int32?
    private let unknownID: Int32

    private enum Pieces {
        case bytePair(BytePairModel)
        case unigram(UnigramModel)
    }

    /// - Parameters:
    ///   - table: a piece that it lacks is unknown.
    ///   - unknownID: in `table`.
    init(_ model: SentencePieceModel, _ table: TokenTable, unknownID: Int32) {
        var own = TokenTable(capacity: model.pieces.count)
        for (id, piece) in model.pieces.enumerated() { own.insert(piece.text.utf8, id: Int32(id)) }
        pieces =
            model.isBytePair ? .bytePair(model.bytePair(own, .native)) : .unigram(model.unigram(own, matchesAll: false))
        ids = model.pieces.map { table.id(of: $0.text) ?? unknownID }
        ownUnknownID = model.unknownID
        self.table = table
        self.unknownID = unknownID
    }

    func encode(_ word: UnsafeBufferPointer<UInt8>, into output: inout [ModelPiece]) -> Bool {
        var own: [ModelPiece] = []
        var isComplete = true
        switch pieces {
        case .bytePair(let model): model.encode(word, isByteLevel: false, into: &own)
        case .unigram(let model): isComplete = model.encode(word, into: &own)
        }
        var start = 0
        for piece in own {
            var id = ids.indices.contains(Int(piece.id)) ? ids[Int(piece.id)] : unknownID
            // Text that is no piece may have an id all the same.
            if piece.id == ownUnknownID {
                id = table.id(of: UnsafeBufferPointer(rebasing: word[start..<start + piece.length])) ?? unknownID
            }
            output.append(ModelPiece(id: id, length: piece.length))
            start += piece.length
        }
        return isComplete
    }
}

extension Tokenizer {
    /// The tokenizer of M2M100 (`sentencepiece.bpe.model` with `vocab.json`) or Marian (`source.spm` with `vocab.json`).
    ///
    /// - Parameters:
    ///   - model: the SentencePiece model that texts are cut with.
    ///   - vocabulary: the ids of its pieces.
    ///   - configuration: its class says which of the two it is.
    convenience init(
        sentencePiece model: [UInt8], file: String, vocabulary: [UInt8], vocabularyFile: String,
        configuration: TokenizerConfiguration
    ) throws(TokenizerError) {
        let style = configuration.tokenizerClass.flatMap(LanguageStyle.init)
        guard let style, style == .m2m100 || style == .marian else {
            let found = configuration.tokenizerClass ?? "null"
            throw .unsupported(file: "tokenizer_config.json", field: "tokenizer_class", found: found)
        }
        let model = try SentencePieceModel(model, file: file)
        let table = try VocabularyReader.table(vocabulary, file: vocabularyFile)
        var configuration = configuration
        let named = [("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")]
        let more = style == .m2m100 ? [("bos_token", "<s>"), ("sep_token", "</s>")] : []
        for (name, text) in named + more where configuration.namedTokens[name] == nil {
            configuration.namedTokens[name] = AddedToken(content: text, id: -1, isSpecial: true)
        }
        let unknown = configuration.namedTokens["unk_token"]?.content ?? "<unk>"
        guard let unknownID = table.id(of: unknown) else {
            throw .invalidField(file: vocabularyFile, field: unknown, expected: "an id of the unknown token", found: "nothing")
        }
        var components = Components(model: .renumbered(RenumberedModel(model, table, unknownID: unknownID)))
        components.normalizer = try model.nativeNormalizer()
        components.addsEnd = true
        if style == .m2m100 {
            let codes = configuration.languageCodes == "wmt21" ? LanguageCodes.wmt21 : LanguageCodes.m2m100
            components.addedTokens = codes.enumerated().map { index, code in
                AddedToken(content: "__\(code)__", id: Int32(table.count + index), isSpecial: true)
            }
        }
        components.takesLanguageCode = style == .marian
        var special = Set(configuration.namedTokens.values.map { Array($0.content.utf8) })
        special.formUnion((components.addedTokens + configuration.additionalSpecialTokens).map { Array($0.content.utf8) })
        special.formUnion(configuration.addedTokens.filter(\.isSpecial).map { Array($0.content.utf8) })
        components.decoder = .pieces(
            PieceText(
                pieces: Set(model.pieces.map { Array($0.text.utf8) }), special: special, separatesSpecial: style == .marian))
        self.init(components, configuration: configuration, normalizesAdded: false)
    }
}
