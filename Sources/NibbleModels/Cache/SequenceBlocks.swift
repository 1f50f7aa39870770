/// The cache blocks of one sequence: in each table, block i holds its positions i·S ..< (i + 1)·S, where S is the pool's block
/// size.
///
/// A plain value; ``BlockPool`` makes it, changes it and counts the references it stands for. Dropping one without
/// ``BlockPool/release(_:)`` leaks its blocks.
package struct SequenceBlocks: Sendable, Equatable {
    /// By table: physical blocks in the order of the positions they hold, ``noBlock`` where nothing is read any more. All
    /// tables have as many.
    package internal(set) var tables: [[Int32]]
    /// By table: blocks before this one are released.
    var firstHeld: [Int]
    /// Positions that have been given out.
    package internal(set) var length = 0
    /// What its first block follows: sequences share blocks only under the same root.
    package let root: PrefixRoot
    /// How many of its leading full blocks the index knows, by their tokens, and its place behind them.
    var knownBlocks = 0
    var place: ChainPlace

    /// Stands for a block that is no longer read.
    package static let noBlock: Int32 = -1

    init(root: PrefixRoot, tableCount: Int) {
        tables = Array(repeating: [], count: tableCount)
        firstHeld = Array(repeating: 0, count: tableCount)
        self.root = root
        place = root.place
    }

    var blockCount: Int { tables[0].count }
}

/// What must be equal, beside the tokens, for two sequences to have the same keys and values: the adapter and, for
/// encoder-decoders, the encoder's input. Whoever numbers them gives different numbers to different combinations.
package struct PrefixRoot: Sendable, Hashable {
    package let number: UInt32

    package static let plain = PrefixRoot(number: 0)

    package init(number: UInt32) { self.number = number }

    var place: ChainPlace { .root(number) }
}

/// A block whose contents must be copied before the step that writes to the copy.
package struct BlockCopy: Sendable, Equatable {
    package let source: Int32
    package let target: Int32
    /// The table whose layers copy it.
    package var table = 0
}
