/// The input rows of a call, checked and padded, one per item: before they are expanded to beams or returned sequences.
struct InputRows {
    /// The decoder's prompts with their padding: [items, L].
    var prompts: [[Int32]]
    /// The prompts without padding, as the model is fed.
    var tokens: [[Int32]]
    /// Index of each prompt's first token after its left padding.
    var maskStarts: [Int]
    /// Encoder-decoders: the encoder's ids with padding and without.
    var encoderIds: [[Int32]] = []
    var encoderTokens: [[Int32]] = []
    /// Length of the padding before each of them.
    var encoderPadding: [Int] = []
    var warnings: [GenerationWarning] = []

    var items: Int { prompts.count }
    /// L
    var promptLength: Int { prompts[0].count }

    init(_ request: GenerationRequest, _ config: GenerationConfig, isEncoderDecoder: Bool) throws {
        let rows = try MaskedRows(request, config, isDecoderPrompt: !isEncoderDecoder)
        warnings = rows.warnings
        guard isEncoderDecoder else {
            prompts = rows.ids
            tokens = rows.tokens
            maskStarts = rows.starts
            return
        }
        encoderIds = rows.ids
        encoderTokens = rows.tokens
        encoderPadding = rows.starts
        prompts = try Self.decoderPrompts(request.decoderInputs, config, items: rows.ids.count)
        tokens = prompts
        maskStarts = Array(repeating: 0, count: prompts.count)
    }

    private static func decoderPrompts(_ given: [[Int32]]?, _ config: GenerationConfig, items: Int) throws -> [[Int32]] {
        let starts = try startTokens(config, items: items)
        guard let given else { return starts.map { [$0] } }
        guard given.count == items, Set(given.map(\.count)).count == 1 else {
            throw GenerationError.shapeMismatch(
                what: "decoder inputs", expected: "\(items) rows of equal length",
                found: "rows of \(given.map(\.count)) tokens")
        }
        let begins = zip(given, starts).allSatisfy { $0.first == $1 }
        return begins ? given : zip(given, starts).map { [$1] + $0 }
    }

    private static func startTokens(_ config: GenerationConfig, items: Int) throws -> [Int32] {
        guard let ids = config.decoderStartTokenId ?? config.bosTokenId.map({ [$0] }), !ids.isEmpty else {
            throw GenerationError.missingToken(name: "decoder_start_token_id", purpose: "to begin the decoder's sequence")
        }
        guard ids.count == 1 || ids.count == items else {
            throw GenerationError.shapeMismatch(
                what: "decoder_start_token_id", expected: "1 or \(items) ids", found: "\(ids.count)")
        }
        return ids.count == items ? ids : Array(repeating: ids[0], count: items)
    }
}

/// Rectangular rows with their mask.
private struct MaskedRows {
    var ids: [[Int32]]
    var mask: [[Bool]]
    var warnings: [GenerationWarning] = []

    var tokens: [[Int32]] { zip(ids, mask).map { row, mask in zip(row, mask).filter(\.1).map(\.0) } }
    var starts: [Int] { mask.map { $0.firstIndex(of: true) ?? 0 } }

    init(_ request: GenerationRequest, _ config: GenerationConfig, isDecoderPrompt: Bool) throws {
        ids = request.inputs
        mask = []
        try beginEmptyRows(config)
        // A mask of rows without tokens says nothing about the bos that they begin with.
        if let given = request.attentionMask, request.inputs.contains(where: { !$0.isEmpty }) {
            try checkMask(given)
            mask = given.map { $0.map { $0 != 0 } }
        } else {
            mask = try padAndMask(config)
        }
        if isDecoderPrompt, let row = mask.firstIndex(where: { $0.last == false }) {
            warnings.append(.rightPadding(row: row))
        }
        if let row = mask.firstIndex(where: { !$0.contains(true) }) { throw GenerationError.emptyRow(row: row) }
    }

    /// Empty rows, and the one row of a call without inputs, begin with bos.
    private mutating func beginEmptyRows(_ config: GenerationConfig) throws {
        if ids.isEmpty { ids = [[]] }
        guard ids.contains(where: \.isEmpty) else { return }
        guard let bos = config.bosTokenId else {
            throw GenerationError.missingToken(name: "bos_token_id", purpose: "to begin without a prompt")
        }
        ids = ids.map { $0.isEmpty ? [bos] : $0 }
    }

    private func checkMask(_ given: [[Int32]]) throws {
        guard given.map(\.count) == ids.map(\.count), Set(ids.map(\.count)).count == 1 else {
            throw GenerationError.shapeMismatch(
                what: "attention mask", expected: "[\(ids.count), \(ids[0].count)] as the inputs",
                found: "rows of \(given.map(\.count)) for inputs of \(ids.map(\.count))")
        }
    }

    private mutating func padAndMask(_ config: GenerationConfig) throws -> [[Bool]] {
        let width = ids.map(\.count).max() ?? 0
        let eos = config.eosTokenId ?? []
        if ids.contains(where: { $0.count < width }) {
            guard let pad = config.padTokenId ?? eos.first else {
                throw GenerationError.missingToken(name: "pad_token_id", purpose: "to batch prompts of different length")
            }
            let lengths = ids.map(\.count)
            ids = ids.map { Array(repeating: pad, count: width - $0.count) + $0 }
            return lengths.map { length in (0..<width).map { $0 >= width - length } }
        }
        if config.padTokenId == nil, let pad = eos.first, ids.count > 1 { warnings.append(.padFromEndOfSequence(pad)) }
        guard let pad = config.padTokenId, !eos.contains(pad), ids.contains(where: { $0.contains(pad) }) else {
            return ids.map { $0.map { _ in true } }
        }
        return ids.map { $0.map { $0 != pad } }
    }
}
