import NibbleCore

/// How text is treated around the pieces of a SentencePiece model.
package enum SentencePieceRules: Sendable {
    /// As the checkpoint's converted `tokenizer.json` would: what `transformers` does.
    case converted
    /// As SentencePiece itself: special tokens in a text are ordinary text, the normalizer takes its longest matches.
    case native
}

extension SentencePieceModel {
    static let mark: [UInt8] = [0xE2, 0x96, 0x81]
    static let spaceRuns = TextPattern.regex(try! Pattern(" {2,}"))
    private static let spacesToMarks = Normalizer.replace(.literal([0x20]), content: mark)

    func components(
        _ rules: SentencePieceRules, configuration: TokenizerConfiguration
    ) throws(TokenizerError) -> Tokenizer.Components {
        var table = TokenTable(capacity: pieces.count)
        for (id, piece) in pieces.enumerated() { table.insert(piece.text.utf8, id: Int32(id)) }
        var components = Tokenizer.Components(
            model: isBytePair
                ? .bytePair(bytePair(table, rules == .native ? .native : .byScore)) : .unigram(unigram(table, matchesAll: false)))
        components.addedTokens = addedTokens(rules)
        switch rules {
        case .native:
            components.normalizer = try nativeNormalizer()
            components.decoder = decoder
        case .converted where isBytePair: convertBytePair(&components, configuration)
        case .converted: try convertUnigram(&components, configuration)
        }
        return components
    }

    /// The configuration with the model's own special tokens where it names none.
    func completed(_ configuration: TokenizerConfiguration) -> TokenizerConfiguration {
        var configuration = configuration
        for (name, id) in [("bos_token", beginID), ("eos_token", endID), ("unk_token", unknownID), ("pad_token", padID)] {
            guard let id, Int(id) < pieces.count, configuration.namedTokens[name] == nil else { continue }
            configuration.namedTokens[name] = AddedToken(content: pieces[Int(id)].text, id: id, isSpecial: true)
        }
        return configuration
    }

    private func addedTokens(_ rules: SentencePieceRules) -> [AddedToken] {
        pieces.enumerated().compactMap { id, piece in
            switch piece.kind {
            case .control, .unknown:
                return rules == .native ? nil : AddedToken(content: piece.text, id: Int32(id), isSpecial: true)
            case .userDefined:
                var token = AddedToken(content: piece.text, id: Int32(id))
                token.isNormalized = rules == .native
                return token
            case .normal, .unused, .byte: return nil
            }
        }
    }

    private var decoder: Decoder {
        var parts: [Decoder] = [.replace(.literal(Self.mark), content: [0x20]), .byteFallback, .fuse]
        if addsDummyPrefix { parts.append(.strip(content: [0x20], start: 1, stop: 0)) }
        return .sequence(parts)
    }

    func map(_ rule: PrecompiledCharsMap.Rule) throws(TokenizerError) -> [Normalizer] {
        if charsMap.isEmpty { return [] }
        do {
            return [.precompiled(try PrecompiledCharsMap(charsMap, rule: rule))]
        } catch {
            throw .invalidField(
                file: file, field: "normalizer_spec.precompiled_charsmap", expected: "a charsmap", found: error.reason)
        }
    }

    func nativeNormalizer() throws(TokenizerError) -> Normalizer {
        var parts = try map(.longest)
        if removesExtraSpaces { parts.append(.removeExtraSpaces) }
        if addsDummyPrefix { parts.append(.prepend([0x20])) }
        return .sequence(parts + [Self.spacesToMarks])
    }
}

// MARK: - Models

extension SentencePieceModel {
    /// - Parameter matchesAll: whether special pieces are found in texts, too.
    func unigram(_ table: TokenTable, matchesAll: Bool) -> UnigramModel {
        UnigramModel(
            table: table, scores: pieces.map { Double($0.score) }, unknownID: unknownID, fallsBackToBytes: fallsBackToBytes,
            matchable: matchesAll ? nil : pieces.map { $0.kind == .normal || $0.kind == .userDefined })
    }

    /// The order of merges.
    enum MergeOrder {
        /// Best score first, and among equals the leftmost pair of the text; normal pieces only.
        case native
        /// Best score first, and among equals the longest left part, then the longest right part.
        case byScore
        /// In the order of the joined pieces' ids, and for one piece the shortest left part first.
        case byID
    }

    func bytePair(_ table: TokenTable, _ order: MergeOrder) -> BytePairModel {
        var options = BytePairModel.Options()
        options.unknownToken = unknownID.flatMap { Int($0) < pieces.count ? pieces[Int($0)].text : nil }
        options.fusesUnknown = true
        options.fallsBackToBytes = fallsBackToBytes
        return BytePairModel(table: table, merges: merges(table, order), options: options)
    }

    private struct Split {
        var left: Int32
        var right: Int32
        var result: Int32
        var score: Float
        var leftLength: Int
        var rightLength: Int
    }

    /// The pairs of pieces that join to a piece.
    private func merges(_ table: TokenTable, _ mergeOrder: MergeOrder) -> MergeTable {
        let isNative = mergeOrder == .native
        var splits: [Split] = []
        for (id, piece) in pieces.enumerated() where !isNative || piece.kind == .normal {
            splits += self.splits(of: piece, id: Int32(id), table, normalOnly: isNative)
        }
        let order = splits.indices.sorted { a, b in
            let (first, second) = (splits[a], splits[b])
            if mergeOrder == .byID {
                return (first.result, first.leftLength, first.rightLength, a)
                    < (second.result, second.leftLength, second.rightLength, b)
            }
            if first.score != second.score { return first.score > second.score }
            if first.leftLength != second.leftLength { return first.leftLength > second.leftLength }
            if first.rightLength != second.rightLength { return first.rightLength > second.rightLength }
            return a < b
        }
        var merges = MergeTable(capacity: splits.count)
        var rank: Int32 = -1
        var last: Float?
        for index in order {
            let split = splits[index]
            if !isNative || split.score != last { rank += 1 }
            last = split.score
            merges.insert(split.left, split.right, .init(rank: rank, result: split.result))
        }
        return merges
    }

    private func splits(of piece: Piece, id: Int32, _ table: TokenTable, normalOnly: Bool) -> [Split] {
        let text = Array(piece.text.utf8)
        let length = piece.text.unicodeScalars.count
        var found: [Split] = []
        var leftLength = 0
        text.withUnsafeBufferPointer { text in
            var middle = 0
            while middle < text.count {
                middle += UTF8Text.length(ofLead: text[middle])
                leftLength += 1
                guard middle < text.count, let left = table.id(of: UnsafeBufferPointer(rebasing: text[..<middle])),
                    let right = table.id(of: UnsafeBufferPointer(rebasing: text[middle...])),
                    !normalOnly || (pieces[Int(left)].kind == .normal && pieces[Int(right)].kind == .normal)
                else { continue }
                found.append(
                    Split(
                        left: left, right: right, result: table.id(of: text) ?? id, score: piece.score, leftLength: leftLength,
                        rightLength: length - leftLength))
            }
        }
        return found.sorted { ($0.left, $0.right) < ($1.left, $1.right) }
    }
}

// MARK: - What transformers makes of the families

extension SentencePieceModel {
    /// Llama and Mistral put a space in front, Gemma does not.
    private func convertBytePair(_ components: inout Tokenizer.Components, _ configuration: TokenizerConfiguration) {
        components.addsBegin = true
        components.decoder = decoder
        if !addsDummyPrefix {
            components.normalizer = Self.spacesToMarks
        } else if configuration.isLegacy ?? true {
            components.normalizer = .sequence([.prepend([0x2581]), Self.spacesToMarks])
        } else {
            components.preTokenizer = .metaspace(replacement: 0x2581, .first, splits: false)
        }
    }

    /// T5: white space only separates words; sentinel tokens follow the pieces; the end token closes the text.
    private func convertUnigram(
        _ components: inout Tokenizer.Components, _ configuration: TokenizerConfiguration
    ) throws(TokenizerError) {
        components.normalizer = .sequence(try map(.clusters))
        let metaspace = PreTokenizer.metaspace(replacement: 0x2581, addsDummyPrefix ? .always : .never, splits: true)
        components.preTokenizer = removesExtraSpaces ? .sequence([.whitespaceSplit, metaspace]) : metaspace
        components.decoder = .sequence([.byteFallback, .metaspace(replacement: Self.mark, keepsFirst: !addsDummyPrefix)])
        let isT5 = configuration.tokenizerClass?.contains("T5") ?? (beginID == nil)
        components.addsBegin = !isT5 && beginID != nil
        components.addsEnd = endID != nil
        guard isT5 else { return }
        let known = Set(texts: pieces.map(\.text))
        for index in (0..<(configuration.extraIDs ?? 100)).reversed() {
            let id = Int32(pieces.count + components.addedTokens.count)
            let name = "<extra_id_\(index)>"
            guard !known.contains(name) else { continue }
            components.addedTokens.append(AddedToken(content: name, id: id, isSpecial: true))
        }
    }
}

extension Tokenizer {
    /// A tokenizer from the bytes of a SentencePiece model (`spiece.model`, `tokenizer.model`).
    ///
    /// - Parameters:
    ///   - file: its name for error messages.
    ///   - rules: whether to treat texts as the converted tokenizer does or as SentencePiece does.
    package convenience init(
        sentencePiece bytes: [UInt8], file: String = "tokenizer.model", configuration: TokenizerConfiguration = .init(),
        rules: SentencePieceRules = .converted
    ) throws(TokenizerError) {
        let model = try SentencePieceModel(bytes, file: file)
        let completed = rules == .native ? TokenizerConfiguration() : model.completed(configuration)
        self.init(
            try model.components(rules, configuration: completed), configuration: completed, normalizesAdded: rules != .native)
    }
}
