package import NibbleCore

/// A model as generation sees it: something that makes sessions.
package protocol GenerativeModel: AnyObject, Sendable {
    var vocabularySize: Int { get }
    var isEncoderDecoder: Bool { get }
    /// The number of positions the model was made for (`max_position_embeddings`); `nil` if its config does not say.
    var maximumPositions: Int? { get }
    /// The number of positions the model has embeddings for, where positions are a table; `nil` where they go on.
    var positionLimit: Int? { get }

    /// Allocates caches and workspace for a run. For an encoder-decoder the encoder runs here, once.
    func makeSession(_ request: SessionRequest) throws -> any DecodingSession
}

extension GenerativeModel {
    package var positionLimit: Int? { nil }
}

/// How large a session has to be.
package struct SessionRequest: Sendable {
    /// Sequences that are decoded side by side (batch × beams).
    package var rows: Int
    /// The most tokens a row may hold, prompt included.
    package var capacity: Int
    /// Tokens of a row that memory is allocated for at once, where that is less than the model would allocate.
    package var initialCapacity: Int?
    /// Encoder-decoders only: for each row the encoder's input ids, without padding. Rows with equal `encoderGroup` share
    /// one encoder run.
    package var encoderInputs: [[Int32]]
    /// The number of padding tokens before each of ``encoderInputs``, for families whose positions count padding. Empty means
    /// none.
    package var encoderPadding: [Int]
    /// The index into ``encoderInputs`` that each row attends to; empty means that row r attends to entry r.
    package var encoderGroup: [Int]
    /// The adapters of each row, or one entry for all rows; `nil`: those that are active.
    package var adapters: [AdapterWeights]?
    /// How keys and values are stored; `nil`: as the model was loaded to store them.
    package var cacheQuantization: KeyValueQuantization?
    /// See ``DecodingSession/interruption``.
    package var interruption: (@Sendable () throws -> Void)?

    package init(
        rows: Int, capacity: Int, encoderInputs: [[Int32]] = [], encoderPadding: [Int] = [], encoderGroup: [Int] = [],
        adapters: [AdapterWeights]? = nil, cacheQuantization: KeyValueQuantization? = nil,
        interruption: (@Sendable () throws -> Void)? = nil
    ) {
        self.rows = rows
        self.capacity = capacity
        self.encoderInputs = encoderInputs
        self.encoderPadding = encoderPadding
        self.encoderGroup = encoderGroup
        self.adapters = adapters
        self.cacheQuantization = cacheQuantization
        self.interruption = interruption
    }
}

/// New tokens for one row, without padding.
package struct RowTokens: Sendable {
    package var row: Int
    package var tokens: [Int32]

    package init(row: Int, tokens: [Int32]) {
        self.row = row
        self.tokens = tokens
    }
}

/// The fed tokens whose logits are wanted.
package enum LogitsSelection: Sendable {
    /// The last token of every fed row: one logits row per entry of the feed, in its order.
    case last
    /// Every fed token, in the order of the feed.
    case all
}

/// Float32 logits [rows, V] on the host. They may be changed in place, and are valid only inside the closure that gets them.
public struct LogitsBatch {
    /// Number of rows.
    public let rows: Int
    /// Scores of one row (V).
    public let vocabularySize: Int
    /// [rows, V], row after row.
    public let values: UnsafeMutableBufferPointer<Float>

    package init(rows: Int, vocabularySize: Int, values: UnsafeMutableBufferPointer<Float>) {
        precondition(values.count >= rows * vocabularySize)
        self.rows = rows
        self.vocabularySize = vocabularySize
        self.values = values
    }

    /// The scores of one row.
    public subscript(row: Int) -> UnsafeMutableBufferPointer<Float> {
        UnsafeMutableBufferPointer(rebasing: values[row * vocabularySize..<(row + 1) * vocabularySize])
    }
}

/// The state of some rows that are being decoded: caches, lengths, activations. Not `Sendable`; used by one task at a time.
package protocol DecodingSession: AnyObject {
    var vocabularySize: Int { get }
    var rows: Int { get }
    /// Tokens a row can hold.
    var capacity: Int { get }

    /// The number of tokens that `row` holds.
    func length(ofRow row: Int) -> Int

    /// The tokens that `row` holds.
    func tokens(ofRow row: Int) -> [Int32]

    /// Bytes allocated for the rows' keys and values.
    var cacheByteCount: Int { get }

    /// Called often while tokens are fed, also within a long prompt. What it throws ends the feed.
    var interruption: (@Sendable () throws -> Void)? { get set }

    /// Appends tokens to rows, runs the model over them and passes logits to `body`.
    ///
    /// - Throws: ``SessionError`` when a row would exceed ``capacity`` or the model's positions; whatever the backend,
    ///   ``interruption`` and `body` throw. The rows then hold what they held before, or nothing where an attention window has
    ///   moved past it.
    func feed<Result>(
        _ inputs: [RowTokens], logits: LogitsSelection, _ body: (LogitsBatch) throws -> Result
    ) throws -> Result

    /// As ``feed(_:logits:_:)`` with ``LogitsSelection/last``, but chooses the next token of every fed row on the device. Returns
    /// one id per entry of `inputs`.
    func feed(_ inputs: [RowTokens], sampling: SamplingParameters) throws -> [Int32]

    /// Makes row r a copy of what row `sources[r]` holds now. Full cache blocks are shared, not copied.
    func gather(_ sources: [Int]) throws

    /// Whether `row` can be cut to `length` tokens. Where all layers attend to a window, keys that left it are gone: at least
    /// the last 64 tokens can be removed, and always all of them. Recurrent layers keep the state before the last call for the
    /// row, and the one after its last prompt.
    func canTruncate(row: Int, to length: Int) -> Bool

    /// Removes all but the first `length` tokens of `row`.
    /// - Throws: ``SessionError/cannotTruncate(row:from:to:)`` unless ``canTruncate(row:to:)``.
    func truncate(row: Int, to length: Int) throws

    /// Cuts `row` to `length` tokens, or to the most below that for which ``canTruncate(row:to:)``. Returns how many it then
    /// holds.
    func rollBack(row: Int, to length: Int) throws -> Int
}

extension DecodingSession {
    package var cacheByteCount: Int { 0 }

    package var interruption: (@Sendable () throws -> Void)? {
        get { nil }
        set {}
    }

    package func canTruncate(row: Int, to length: Int) -> Bool { true }

    package func rollBack(row: Int, to length: Int) throws -> Int {
        let kept = min(canTruncate(row: row, to: length) ? length : 0, self.length(ofRow: row))
        try truncate(row: row, to: kept)
        return kept
    }

    /// Cuts `row` to the tokens with which `sequence` begins, at most all but its last, or to fewer where that is no longer
    /// possible. Returns how many it then holds: the rest of `sequence` can be fed, and gives logits.
    package func keepPrefix(row: Int, of sequence: [Int32]) throws -> Int {
        let common = zip(tokens(ofRow: row), sequence.dropLast()).prefix { $0 == $1 }.count
        return common < length(ofRow: row) ? try rollBack(row: row, to: common) : common
    }
}

/// Why a session refuses a feed.
public enum SessionError: Error, Sendable, Equatable {
    /// More tokens than the session was made for.
    case capacityExceeded(row: Int, length: Int, adding: Int, capacity: Int)
    /// A token id that the vocabulary does not have.
    case tokenOutOfRange(token: Int32, vocabularySize: Int)
    /// A row that the session does not have.
    case rowOutOfRange(row: Int, rows: Int)
    /// A position without an embedding.
    case positionOutOfRange(position: Int, positions: Int)
    /// Keys that have left a window, and states that were passed, cannot be restored.
    case cannotTruncate(row: Int, from: Int, to: Int)
}

extension SessionError: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .capacityExceeded(let row, let length, let adding, let capacity):
            "row \(row) holds \(length) tokens and cannot take \(adding) more: the session was made for \(capacity)"
        case .tokenOutOfRange(let token, let size):
            "token id \(token) is outside the vocabulary of \(size)"
        case .rowOutOfRange(let row, let rows):
            "row \(row) does not exist: the session has \(rows)"
        case .positionOutOfRange(let position, let positions):
            "position \(position) is beyond the \(positions) that the model has embeddings for"
        case .cannotTruncate(let row, let from, let to):
            "row \(row) of \(from) tokens cannot be cut to \(to): the attention window or the recurrent state of that place has "
                + "passed and is gone"
        }
    }
}
