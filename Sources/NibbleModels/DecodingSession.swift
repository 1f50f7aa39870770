package import NibbleCore

/// What generation needs to know of a model: enough to make sessions, nothing of what is inside.
package protocol GenerativeModel: AnyObject, Sendable {
    var vocabularySize: Int { get }
    var isEncoderDecoder: Bool { get }
    /// The number of positions the model was made for (`max_position_embeddings`), where it says so.
    var maximumPositions: Int? { get }

    /// Allocates caches and workspace for a run. For an encoder-decoder the encoder runs here, once.
    func makeSession(_ request: SessionRequest) throws -> any DecodingSession
}

/// How large a session has to be.
package struct SessionRequest: Sendable {
    /// Sequences that are decoded side by side (batch × beams).
    package var rows: Int
    /// Tokens a row may come to hold, prompt included.
    package var capacity: Int
    /// Encoder-decoders only: for each row the encoder's input ids, without padding. Rows with equal `encoderGroup` share
    /// one encoder run.
    package var encoderInputs: [[Int32]]
    /// How much padding stands before each of ``encoderInputs``: it moves the positions of the families that count it. Empty
    /// means none.
    package var encoderPadding: [Int]
    /// Which entry of ``encoderInputs`` each row attends to; empty means row r ↔ entry r.
    package var encoderGroup: [Int]
    /// Keys and values are stored in this form; `nil`: as the model was loaded to.
    package var cacheQuantization: KeyValueQuantization?
    /// See ``DecodingSession/interruption``.
    package var interruption: (@Sendable () throws -> Void)?

    package init(
        rows: Int, capacity: Int, encoderInputs: [[Int32]] = [], encoderPadding: [Int] = [], encoderGroup: [Int] = [],
        cacheQuantization: KeyValueQuantization? = nil, interruption: (@Sendable () throws -> Void)? = nil
    ) {
        self.rows = rows
        self.capacity = capacity
        self.encoderInputs = encoderInputs
        self.encoderPadding = encoderPadding
        self.encoderGroup = encoderGroup
        self.cacheQuantization = cacheQuantization
        self.interruption = interruption
    }
}

/// New tokens for one row. Rows are ragged: there is no padding anywhere below this line.
package struct RowTokens: Sendable {
    package var row: Int
    package var tokens: [Int32]

    package init(row: Int, tokens: [Int32]) {
        self.row = row
        self.tokens = tokens
    }
}

/// For which of the fed tokens logits are wanted.
package enum LogitsSelection: Sendable {
    /// The last token of every fed row: one logits row per entry of the feed, in its order.
    case last
    /// Every fed token, in the order of the feed.
    case all
}

/// Float32 logits [rows, V] on the host, writable in place, valid only inside the closure they are handed to.
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

/// A model's running state for some rows: caches, lengths, workspace. Not `Sendable`; used by one task at a time.
package protocol DecodingSession: AnyObject {
    var vocabularySize: Int { get }
    var rows: Int { get }
    /// Tokens a row can hold.
    var capacity: Int { get }

    /// Tokens held by `row`.
    func length(ofRow row: Int) -> Int

    /// Bytes that the rows' keys and values take, whatever they hold.
    var cacheByteCount: Int { get }

    /// Asked often while tokens are fed, also within a long prompt. What it throws ends the feed.
    var interruption: (@Sendable () throws -> Void)? { get set }

    /// Appends tokens to rows, runs the model over them and hands out logits.
    ///
    /// - Throws: ``SessionError`` when a row would exceed ``capacity``; whatever the backend, ``interruption`` and `body`
    ///   throw. The rows then hold what they held before, or nothing where a window has passed that.
    func feed<Result>(
        _ inputs: [RowTokens], logits: LogitsSelection, _ body: (LogitsBatch) throws -> Result
    ) throws -> Result

    /// As ``feed(_:logits:_:)`` with ``LogitsSelection/last``, but picks the next token of every fed row where the logits
    /// are, without handing them out. One id per entry of `inputs`.
    func feed(_ inputs: [RowTokens], sampling: SamplingParameters) throws -> [Int32]

    /// Row r continues as a copy of what row `sources[r]` holds now. Costs no copy of full cache blocks.
    func gather(_ sources: [Int]) throws

    /// Whether `row` can be cut to `length` tokens. Where layers see a window only, what has left it is gone; at least the
    /// last 64 tokens can be taken back, and all of them always.
    func canTruncate(row: Int, to length: Int) -> Bool

    /// Forgets all but the first `length` tokens of `row`.
    /// - Throws: ``SessionError/cannotTruncate(row:from:to:)`` unless ``canTruncate(row:to:)``.
    func truncate(row: Int, to length: Int) throws
}

extension DecodingSession {
    package var cacheByteCount: Int { 0 }

    package var interruption: (@Sendable () throws -> Void)? {
        get { nil }
        set {}
    }

    package func canTruncate(row: Int, to length: Int) -> Bool { true }

    /// Cuts `row` to `length` tokens, or to none where that is no longer possible. Answers how many it then holds.
    package func rollBack(row: Int, to length: Int) throws -> Int {
        let kept = min(canTruncate(row: row, to: length) ? length : 0, self.length(ofRow: row))
        try truncate(row: row, to: kept)
        return kept
    }
}

/// Why a session cannot take the tokens it was given.
public enum SessionError: Error, Sendable, Equatable {
    /// More tokens than the session was made for.
    case capacityExceeded(row: Int, length: Int, adding: Int, capacity: Int)
    /// A token id that the vocabulary does not have.
    case tokenOutOfRange(token: Int32, vocabularySize: Int)
    /// A row that the session does not have.
    case rowOutOfRange(row: Int, rows: Int)
    /// A position without an embedding.
    case positionOutOfRange(position: Int, positions: Int)
    /// Keys that have left a window cannot be restored.
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
            "row \(row) of \(from) tokens cannot be cut to \(to): the attention window has passed, and its keys are gone"
        }
    }
}
