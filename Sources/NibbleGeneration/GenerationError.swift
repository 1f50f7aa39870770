/// What keeps a generation from starting or from going on.
public enum GenerationError: Error, Sendable, Equatable {
    /// A field's value cannot be used. `source` names the file it came from, where there is one.
    case invalidValue(field: String, expected: String, found: String, source: String?)
    /// Unknown fields, each with the most similar known name.
    case unknownFields([UnknownField])
    /// A decoding mode that transformers has moved out of its core, or that Nibble does not have.
    case unsupportedMode(field: String, mode: String)
    /// Two settings that cannot both hold.
    case conflict(String)
    /// The prompt leaves no room for new tokens.
    case promptTooLong(length: Int, maximum: Int)
    /// A special token is needed and not set.
    case missingToken(name: String, purpose: String)
    /// A token id that the vocabulary does not have.
    case tokenOutOfRange(field: String, token: Int32, vocabularySize: Int)
    /// Inputs whose sizes do not fit together.
    case shapeMismatch(what: String, expected: String, found: String)
    /// A row of nothing but padding.
    case emptyRow(row: Int)
    /// Every token is forbidden, or a score is NaN.
    case noTokenAllowed(row: Int, position: Int)
    /// `prefix_allowed_tokens_fn` returned no token for a row.
    case constraintUnsatisfiable(item: Int)
    /// A model broke the contract of `DecodingSession`.
    case modelMisbehaved(String)

    /// A name that is no generation option.
    public struct UnknownField: Sendable, Equatable {
        /// The name as it was given.
        public let name: String
        /// The known option whose name is closest, if one is close.
        public let suggestion: String?

        package init(name: String, suggestion: String?) {
            self.name = name
            self.suggestion = suggestion
        }
    }
}

extension GenerationError: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .invalidValue(let field, let expected, let found, let source):
            "\(source.map { "\($0): " } ?? "")`\(field)` must be \(expected), found \(found)"
        case .unknownFields(let fields):
            "unknown generation option\(fields.count == 1 ? "" : "s"): "
                + fields.map { field in
                    "`\(field.name)`" + (field.suggestion.map { " (did you mean `\($0)`?)" } ?? "")
                }.joined(separator: ", ")
        case .unsupportedMode(let field, let mode):
            "\(mode) (asked for by `\(field)`) is not supported: use greedy, sampling, beam search, beam sampling, "
                + "assisted decoding or prompt look-up"
        case .conflict(let text): text
        case .promptTooLong(let length, let maximum):
            "the prompt has \(length) tokens, which leaves no room below max_length \(maximum): raise max_length or, better, set "
                + "max_new_tokens"
        case .missingToken(let name, let purpose): "`\(name)` is not set; it is needed \(purpose)"
        case .tokenOutOfRange(let field, let token, let size):
            "`\(field)` names token \(token), outside the vocabulary of \(size)"
        case .shapeMismatch(let what, let expected, let found): "\(what): expected \(expected), found \(found)"
        case .emptyRow(let row): "row \(row) of the inputs holds nothing but padding"
        case .noTokenAllowed(let row, let position):
            "row \(row): no token can be chosen at position \(position): every token is forbidden, or the model's scores are not numbers (NaN)"
        case .constraintUnsatisfiable(let item):
            "prefix_allowed_tokens_fn returned no token for batch item \(item): the constraint cannot be satisfied"
        case .modelMisbehaved(let text): "the model did not keep its contract: \(text)"
        }
    }
}

/// What a generation noticed but did not stop for.
public enum GenerationWarning: Sendable, Equatable, Hashable {
    /// A sampling value without `do_sample`: it has no effect.
    case ignoredWithoutSampling(field: String)
    /// A beam value without beams: it has no effect.
    case ignoredWithoutBeams(field: String)
    /// Two limits are set; `maxNewTokens` counts.
    case bothLengthsGiven(maxLength: Int, maxNewTokens: Int)
    /// Neither `max_length` nor `max_new_tokens` was given.
    case defaultLength(newTokens: Int)
    /// The shortest allowed output is longer than the longest one.
    case impossibleMinimum(field: String, minimum: Int, maximum: Int)
    /// `pad_token_id` was unset and became the first `eos_token_id`, in a batch without a mask.
    case padFromEndOfSequence(Int32)
    /// A row of a decoder-only model is padded on the right.
    case rightPadding(row: Int)
    /// Sequences may become longer than the model was trained for.
    case beyondModelPositions(length: Int, positions: Int)
    /// The model's positions are a table, which ends before the length asked for.
    case cutToPositions(length: Int, positions: Int)
    /// The caller's processor replaces a standard one of the same type.
    case replacedProcessor(String)
    /// A field that is read but has no effect here.
    case withoutEffect(field: String)
}

extension GenerationWarning: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .ignoredWithoutSampling(let field): "`\(field)` has no effect without do_sample"
        case .ignoredWithoutBeams(let field): "`\(field)` has no effect with num_beams 1"
        case .bothLengthsGiven(let maxLength, let maxNewTokens):
            "both max_new_tokens (\(maxNewTokens)) and max_length (\(maxLength)) are set; max_new_tokens takes precedence"
        case .defaultLength(let newTokens): "no length was given: at most \(newTokens) new tokens; set max_new_tokens"
        case .impossibleMinimum(let field, let minimum, let maximum):
            "`\(field)` asks for \(minimum) tokens, more than the maximum of \(maximum)"
        case .padFromEndOfSequence(let id): "pad_token_id is not set; using eos_token_id \(id) for padding"
        case .rightPadding(let row): "row \(row) is padded on the right; decoder-only models expect padding on the left"
        case .beyondModelPositions(let length, let positions):
            "sequences may grow to \(length) tokens, but the model was made for \(positions)"
        case .cutToPositions(let length, let positions):
            "the model has embeddings for \(positions) positions: sequences end at \(positions + 1) tokens instead of \(length)"
        case .replacedProcessor(let name): "the given \(name) replaces the one made from the configuration"
        case .withoutEffect(let field): "`\(field)` has no effect here"
        }
    }
}
