package import NibbleCore

/// What the device's records hold of a session's rows: how their tokens are chosen, and which tokens were counted.
///
/// Choosing on the device counts each chosen token itself. After any other change a row's record is written again.
package struct RowSelections: Sendable {
    private var rows: [Row]

    private struct Row: Sendable {
        /// The tokens that the row holds.
        var tokens: [Int32] = []
        var written: SlotSelection?
        /// How many of ``tokens`` the device has counted, where ``written`` has penalties.
        var counted = 0
        /// The token that the device has counted beyond those.
        var chosen: Int32?

        var hasCountedAll: Bool {
            counted == tokens.count || (counted + 1 == tokens.count && chosen == tokens.last)
        }
    }

    package init(rows: Int) { self.rows = Array(repeating: Row(), count: rows) }

    package func tokens(_ row: Int) -> [Int32] { rows[row].tokens }

    package mutating func append(_ tokens: some Sequence<Int32>, to row: Int) { rows[row].tokens += tokens }

    package mutating func truncate(_ row: Int, to length: Int) {
        guard length < rows[row].tokens.count else { return }
        rows[row].tokens.removeLast(rows[row].tokens.count - length)
        rows[row].written = nil
    }

    package mutating func gather(_ sources: [Int]) {
        rows = sources.map { Row(tokens: rows[$0].tokens) }
    }

    /// Whether the record of `row` is the one that these parameters ask for.
    package func holds(_ parameters: SamplingParameters, row: Int) -> Bool {
        rows[row].written == SlotSelection(parameters, row: row)
    }

    /// Writes the record of `row` where it is not up to date.
    package mutating func prepare(_ parameters: SamplingParameters, row: Int, in state: SelectionState) throws {
        let selection = SlotSelection(parameters, row: row)
        let isCurrent = rows[row].written == selection
        if isCurrent, !selection.hasPenalties || rows[row].hasCountedAll { return }
        rows[row].written = nil
        try state.write(selection, slot: row, prompt: selection.hasPenalties ? rows[row].tokens : [], generated: [])
        rows[row].written = selection
        rows[row].counted = rows[row].tokens.count
        rows[row].chosen = nil
    }

    /// Notes that the device chose `token` for `row`.
    package mutating func noteChosen(_ token: Int32, row: Int) {
        rows[row].counted = rows[row].tokens.count
        rows[row].chosen = token
    }
}

extension SlotSelection {
    /// The selection of a session's row, which draws from the stream of its number.
    fileprivate init(_ parameters: SamplingParameters, row: Int) {
        self.init()
        temperature = parameters.temperature
        topK = parameters.topK
        // A set of probability 0 still holds the best token.
        topP = max(parameters.topP, .leastNormalMagnitude)
        minP = parameters.minP
        repetitionPenalty = parameters.repetitionPenalty
        seed = parameters.seed
        stream = parameters.firstStream + UInt64(row)
        bias = parameters.forbiddenTokens.map { TokenBias(token: $0, value: -.infinity) }
    }
}
