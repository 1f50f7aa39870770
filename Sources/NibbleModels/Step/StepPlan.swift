/// What the executor runs at once: at most one chunk of tokens over some slots.
///
/// A plan is kept and filled anew for every step, so that a step makes no arrays.
package struct StepPlan: Sendable {
    /// Decoding rows first, then prompts.
    package private(set) var rows: [Row] = []
    /// The tokens of all rows, one row behind the other.
    package private(set) var tokens: [Int32] = []
    /// The physical blocks of all rows, one row behind the other; a row's in the order of the positions they hold.
    package private(set) var blocks: [Int32] = []
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
        /// Its blocks, as places in ``StepPlan/blocks``; those that the new tokens are written to included.
        package var blocks: Range<Int>
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
        slot: Int, tokens newTokens: ArraySlice<Int32>, start: Int, blocks newBlocks: [Int32], wantsToken: Bool, counter: Int
    ) {
        rows.append(
            Row(
                slot: slot, tokens: tokens.count..<tokens.count + newTokens.count, start: start,
                blocks: blocks.count..<blocks.count + newBlocks.count, wantsToken: wantsToken, counter: counter))
        tokens += newTokens
        blocks += newBlocks
    }
}
