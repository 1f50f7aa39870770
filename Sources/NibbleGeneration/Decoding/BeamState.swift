/// Sequences that beam search is working on, one for each of items × beams rows.
struct BeamRows {
    let tokens: RowMatrix<Int32>
    /// For each new token the row whose scores it was taken from.
    let origins: RowMatrix<Int32>
    let logProbabilities: RowMatrix<Float>
    var scores: [Float]

    init(rows: Int, length: Int) {
        tokens = RowMatrix(rows: rows, capacity: length)
        origins = RowMatrix(rows: rows, capacity: length)
        logProbabilities = RowMatrix(rows: rows, capacity: length)
        scores = Array(repeating: 0, count: rows)
    }

    func reserve(_ length: Int, used: Int) {
        tokens.reserve(length, used: used)
        origins.reserve(length, used: used)
        logProbabilities.reserve(length, used: used)
    }

    /// Row `row` becomes row `source` of `other`, of which `length` tokens (`new` of them generated) are in use.
    func copyRow(_ row: Int, from other: BeamRows, _ source: Int, length: Int, new: Int) {
        tokens.copyRow(row, from: other.tokens, source, count: length)
        origins.copyRow(row, from: other.origins, source, count: new)
        logProbabilities.copyRow(row, from: other.logProbabilities, source, count: new)
    }
}

/// A possible next token of one of an item's beams.
struct BeamCandidate {
    /// Sum of log-probabilities, this token's included.
    var score: Float
    /// Decoding row it continues.
    var row: Int
    var token: Int32
    var logProbability: Float
    /// Why it would end here, if it would.
    var finish: FinishReason?
}

/// A slot for a finished sequence of an item.
struct BeamHypothesis {
    var tokens: [Int32] = []
    var origins: [Int32] = []
    var logProbabilities: [Float] = []
    var score: Float = BeamSearch.penalty
    var finish: FinishReason?
    var isDone = false
}
