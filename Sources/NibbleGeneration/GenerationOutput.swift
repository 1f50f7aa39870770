public import NibbleModels

/// What `generate` returns. Rows are item after item, an item's returned sequences side by side.
public struct GenerationOutput: Sendable {
    /// [rows, longest]: prompt (with its padding) and new tokens; for an encoder-decoder the decoder's tokens, start token
    /// included. Rows that ended early are padded.
    public var sequences: [[Int32]]
    /// Length of the prompt in every row, padding included.
    public var promptLength: Int
    /// New tokens of each row, eos included, padding not.
    public var newTokenCounts: [Int]
    /// Why each row ended.
    public var finishReasons: [FinishReason?]
    /// Beams: Σ log-probability / length^length_penalty of each returned row.
    public var sequencesScores: [Float]?
    /// Beams: for each returned row and new token, the decoding row whose scores it was taken from; −1 behind the end.
    public var beamIndices: [[Int32]]?
    /// For each row and new token its log-probability under the processed scores, if asked for.
    public var tokenLogProbabilities: [[Float]]?
    /// With `output_scores`: the processed scores of each step, [rows · beams, V] row after row. Rows that were not computed
    /// because they had ended hold NaN.
    public var scores: [[Float]]?
    /// With `output_logits`: the same, before processing.
    public var logits: [[Float]]?
    /// The seed that gives the same tokens again; `nil` if nothing was drawn.
    public var seed: UInt64?
    /// What generation noticed about the options.
    public var warnings: [GenerationWarning]
    /// Tokens of the prompt that were not fed, because the kept session held them.
    package var cachedTokens = 0
    /// How often the model was run, prompt included; without runs of an assistant.
    package var modelRuns = 0

    /// The new tokens of a row, without padding.
    public func newTokens(row: Int) -> ArraySlice<Int32> {
        sequences[row][promptLength..<(promptLength + newTokenCounts[row])]
    }
}

/// A token just chosen.
public struct GeneratedToken: Sendable, Equatable {
    /// The row of the batch.
    public var row: Int
    /// 0 for the row's first new token.
    public var step: Int
    /// The token.
    public var id: Int32
    /// If asked for.
    public var logProbability: Float?
    /// The most probable tokens in its place, best first, if an engine was asked for them.
    public var mostProbable: [TokenScore] = []
    /// Set on the last token of a row.
    public var finishReason: FinishReason?

    package init(
        row: Int, step: Int, id: Int32, logProbability: Float? = nil, finishReason: FinishReason? = nil
    ) {
        self.row = row
        self.step = step
        self.id = id
        self.logProbability = logProbability
        self.finishReason = finishReason
    }
}
