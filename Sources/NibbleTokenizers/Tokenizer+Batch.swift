/// The length that rows are padded to.
public enum Padding: String, Sendable {
    /// Rows keep their lengths.
    case none
    /// To the longest row of the batch.
    case longest
    /// To `maxLength`, or the model's maximum.
    case maxLength
}

/// Which of the texts is truncated if the row is too long.
public enum Truncation: String, Sendable {
    /// Nothing is shortened.
    case none
    /// The longer of the two until both fit.
    case longestFirst
    /// The first text.
    case onlyFirst
    /// The second text.
    case onlySecond
}

/// Rows of ids ready for a model.
public struct BatchEncoding: Sendable, Equatable {
    /// Ids, one array a text; of equal length if padded.
    public var inputIDs: [[Int32]]
    /// 1 for tokens, 0 for padding.
    public var attentionMask: [[Int32]]
    /// Only for tokenizers whose configuration lists `token_type_ids` among the model's inputs.
    public var tokenTypeIDs: [[Int32]]?
    /// Translations: the language of the answers, which `generate` makes their first token.
    package var forcedBosTokenId: Int32?

    /// A batch of these rows.
    public init(inputIDs: [[Int32]], attentionMask: [[Int32]], tokenTypeIDs: [[Int32]]? = nil) {
        self.inputIDs = inputIDs
        self.attentionMask = attentionMask
        self.tokenTypeIDs = tokenTypeIDs
    }
}

extension Tokenizer {
    /// One text as a batch of one row, with special tokens.
    public func callAsFunction(_ text: String) throws -> BatchEncoding { try self([text]) }

    /// Several texts as rows of ids.
    ///
    /// - Parameters:
    ///   - texts: one text for each row.
    ///   - padding: to what length rows are padded.
    ///   - truncation: whether a row that is too long is shortened.
    ///   - addSpecialTokens: whether to put the model's special tokens around each text.
    ///   - maxLength: longest row, special tokens included; the model's maximum if not given.
    ///   - padToMultipleOf: rows are padded further to a multiple of this.
    ///   - paddingSide: the tokenizer's own side if not given.
    /// - Throws: `TokenizerError.noUnknownToken`, `.noPaddingToken`, `.noMaximumLength` or `.invalidOption`.
    public func callAsFunction(
        _ texts: [String], padding: Padding = .none, truncation: Truncation = .none, maxLength: Int? = nil,
        addSpecialTokens: Bool = true, padToMultipleOf: Int? = nil, paddingSide: PaddingSide? = nil
    ) throws -> BatchEncoding {
        var rows: [Encoding] = []
        for text in texts {
            rows.append(
                try encoding(
                    text, pair: nil, truncation: truncation, maxLength: maxLength, addSpecialTokens: addSpecialTokens))
        }
        try pad(&rows, padding, maxLength: maxLength, multiple: padToMultipleOf, side: paddingSide)
        let wantsTypes = configuration.modelInputNames.contains("token_type_ids")
        var batch = BatchEncoding(
            inputIDs: rows.map(\.ids), attentionMask: rows.map(\.attentionMask),
            tokenTypeIDs: wantsTypes ? rows.map(\.typeIDs) : nil)
        batch.forcedBosTokenId = forcedBosTokenID
        return batch
    }

    /// One text or a pair, shortened to `maxLength` tokens, special tokens included.
    ///
    /// - Parameters:
    ///   - text: the first or only text.
    ///   - pair: the second text, if there is one.
    ///   - truncation: which of the texts is shortened.
    ///   - maxLength: the most tokens, special tokens included; the model's maximum if not given.
    ///   - addSpecialTokens: whether to put the model's special tokens around the texts.
    ///   - stride: number of tokens that a piece in `overflowing` repeats of the piece before.
    /// - Throws: `TokenizerError.noUnknownToken`; `.invalidOption` if the text to be shortened is not there or too short, or the stride too long.
    public func encoding(
        _ text: String, pair: String?, truncation: Truncation, maxLength: Int? = nil, stride: Int = 0,
        addSpecialTokens: Bool = true
    ) throws -> Encoding {
        var (encodings, incompleteWord) = encodings(text, pair: pair)
        if let incompleteWord { throw TokenizerError.noUnknownToken(text: incompleteWord) }
        if truncation != .none, let limit = maxLength ?? modelMaxLength {
            let added = addSpecialTokens ? postProcessor?.addedCount(isPair: pair != nil) ?? 0 : 0
            try Self.truncate(
                &encodings, to: max(limit - added, 0), truncation, stride: stride, side: configuration.truncationSide ?? .right)
        }
        return join(encodings, addSpecialTokens: addSpecialTokens)
    }

    private static func truncate(
        _ encodings: inout [Encoding], to limit: Int, _ truncation: Truncation, stride: Int, side: PaddingSide
    ) throws(TokenizerError) {
        let total = encodings.reduce(0) { $0 + $1.count }
        guard total > limit else { return }
        guard stride >= 0, stride < max(limit, 1) else {
            throw .invalidOption(name: "stride", reason: "\(stride) is not below the \(limit) tokens that remain")
        }
        switch truncation {
        case .none: return
        case .longestFirst:
            let lengths = longestFirst(encodings.map(\.count), limit)
            for (index, length) in lengths.enumerated() { encodings[index].truncate(to: length, stride: stride, side: side) }
        case .onlyFirst, .onlySecond:
            let index = truncation == .onlyFirst ? 0 : 1
            guard index < encodings.count else {
                throw .invalidOption(name: "truncation", reason: "the second text is to be shortened, but there is only one")
            }
            let length = encodings[index].count - (total - limit)
            guard length > 0 else {
                throw .invalidOption(name: "maxLength", reason: "the text to be shortened has no more tokens than must go")
            }
            encodings[index].truncate(to: length, stride: stride, side: side)
        }
    }

    /// The lengths that remain when the longer one gives way first.
    private static func longestFirst(_ counts: [Int], _ limit: Int) -> [Int] {
        guard counts.count == 2 else { return [limit] }
        let shorter = counts.min()!
        let longer = shorter > limit ? shorter : max(shorter, limit - shorter)
        if shorter + longer <= limit { return counts[0] > counts[1] ? [longer, shorter] : [shorter, longer] }
        let half = limit / 2
        return counts[0] > counts[1] ? [half + limit % 2, half] : [half, half + limit % 2]
    }

    private func pad(
        _ rows: inout [Encoding], _ padding: Padding, maxLength: Int?, multiple: Int?, side: PaddingSide?
    ) throws(TokenizerError) {
        var length: Int
        switch padding {
        case .none: return
        case .longest: length = rows.map(\.count).max() ?? 0
        case .maxLength:
            guard let limit = maxLength ?? modelMaxLength else { throw .noMaximumLength }
            length = limit
        }
        if let multiple {
            guard multiple > 0 else { throw .invalidOption(name: "padToMultipleOf", reason: "\(multiple) is not positive") }
            let (padded, overflows) = length.addingReportingOverflow((multiple - length % multiple) % multiple)
            guard !overflows else { throw .invalidOption(name: "padToMultipleOf", reason: "\(multiple) is too large") }
            length = padded
        }
        guard let pad = specialTokens.pad else { throw .noPaddingToken }
        for index in rows.indices {
            rows[index].pad(to: length, id: pad.id, token: pad.text, side: side ?? paddingSide)
        }
    }
}
