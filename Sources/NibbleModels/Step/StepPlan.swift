/// What the executor runs at once: at most one chunk of tokens over some slots.
///
/// A plan is kept and filled anew for every step, so that a step makes no arrays.
package struct StepPlan: Sendable {
    /// Decoding rows first, then prompts.
    package private(set) var rows: [Row] = []
    /// The tokens of all rows, one row behind the other.
    package private(set) var tokens: [Int32] = []
    /// The physical blocks of all rows, one row behind the other; a row's table by table, in the order of the positions they
    /// hold. Where a row reads a block no more, ``SequenceBlocks/noBlock``.
    private var blocks: [Int32] = []
    /// Blocks to copy before anything is written.
    package var copies: [BlockCopy] = []

    /// One sequence's part of a step.
    package struct Row: Sendable, Equatable {
        /// Where the executor keeps what it knows of the sequence between steps.
        package var slot: Int
        /// Its tokens, as places in ``StepPlan/tokens``.
        package var tokens: Range<Int>
        /// The position of the first of them: as many tokens of the sequence the cache holds already.
        package var start: Int
        /// Its blocks of all tables, those that the new tokens are written to included.
        fileprivate var blocks: Range<Int>
        fileprivate var tableCount: Int
        /// Whether a token is to be chosen after the last of them.
        package var wantsToken: Bool
        /// How many tokens were chosen for the sequence before: the counter of its random stream.
        package var counter: Int
    }

    /// Whether the same rows are likely to follow, each with the token chosen for it.
    package var isSteady = false

    package init() {}

    package mutating func removeAll() {
        rows.removeAll(keepingCapacity: true)
        tokens.removeAll(keepingCapacity: true)
        blocks.removeAll(keepingCapacity: true)
        copies.removeAll(keepingCapacity: true)
        isSteady = false
    }

    package mutating func addRow(
        slot: Int, tokens newTokens: ArraySlice<Int32>, start: Int, tables: [[Int32]], wantsToken: Bool, counter: Int
    ) {
        let first = blocks.count
        for table in tables { blocks += table }
        rows.append(
            Row(
                slot: slot, tokens: tokens.count..<tokens.count + newTokens.count, start: start,
                blocks: first..<blocks.count, tableCount: tables.count, wantsToken: wantsToken, counter: counter))
        tokens += newTokens
    }

    /// A row's blocks of one table.
    package func blocks(of row: Row, table: Int = 0) -> ArraySlice<Int32> {
        let count = row.blocks.count / row.tableCount
        return blocks[row.blocks.lowerBound + table * count..<row.blocks.lowerBound + (table + 1) * count]
    }
}
