package import NibbleCore

/// The sets of tokens that selection on the device needs: the tokens of each row, and those that are never chosen.
///
/// Selection itself updates the sets of rows that are decoded token by token. After any other change a row's set is made again
/// from its tokens.
package final class TokenSets {
    private let backend: any Backend
    private let vocabulary: Int
    /// The tokens of each row.
    private var tokens: [[Int32]]
    /// How many of a row's tokens are in its set; −1 if the set holds other tokens.
    private var counted: [Int]
    /// int32 [rows, words], made when first needed. Its address stays, for captured graphs.
    private var seen: Tensor?
    /// One set for each list of forbidden tokens. Their addresses stay, too.
    private var forbidden: [[Int32]: Tensor] = [:]

    package init(rows: Int, vocabulary: Int, backend: any Backend) {
        self.backend = backend
        self.vocabulary = vocabulary
        tokens = Array(repeating: [], count: rows)
        counted = Array(repeating: 0, count: rows)
    }

    package func append(_ new: some Sequence<Int32>, to row: Int) { tokens[row] += new }

    package func truncate(_ row: Int, to length: Int) {
        guard length < tokens[row].count else { return }
        tokens[row].removeLast(tokens[row].count - length)
        counted[row] = -1
    }

    package func gather(_ sources: [Int]) {
        tokens = sources.map { tokens[$0] }
        counted = counted.map { _ in -1 }
    }

    /// Brings the sets that `parameters` need up to date for `rows`.
    /// - Parameter addsLatest: whether selection will add each row's last token itself.
    package func prepare(_ parameters: SamplingParameters, rows: [Int], addsLatest: Bool) throws {
        if !parameters.forbiddenTokens.isEmpty, forbidden[parameters.forbiddenTokens] == nil {
            let words = SelectionMasks.set(parameters.forbiddenTokens, vocabulary: vocabulary)
            forbidden[parameters.forbiddenTokens] = try upload(words)
        }
        guard parameters.repetitionPenalty != 1 else { return }
        let words = SelectionMasks.words(vocabulary)
        let seen = try self.seen ?? backend.allocate(.int32, [tokens.count, words])
        if self.seen == nil { counted = counted.map { _ in -1 } }
        self.seen = seen
        for row in rows {
            let count = tokens[row].count
            if counted[row] < (addsLatest ? count - 1 : count) || counted[row] > count {
                let set = SelectionMasks.set(tokens[row], vocabulary: vocabulary)
                try backend.copy(.host(set, .int32, [1, words]), to: seen.rows(row..<row + 1))
            }
            counted[row] = count
        }
    }

    /// The sets of consecutive rows.
    /// - Parameter latest: int32, one token a row.
    package func masks(_ parameters: SamplingParameters, rows: Range<Int>, latest: Tensor?) -> SelectionMasks {
        guard parameters.repetitionPenalty != 1 else {
            return SelectionMasks(forbidden: forbidden[parameters.forbiddenTokens])
        }
        return SelectionMasks(
            seen: seen?.rows(rows), latest: latest, forbidden: forbidden[parameters.forbiddenTokens])
    }

    private func upload(_ words: [Int32]) throws -> Tensor {
        let tensor = try backend.allocate(.int32, [words.count])
        try backend.copy(.host(words, .int32, [words.count]), to: tensor)
        return tensor
    }
}
