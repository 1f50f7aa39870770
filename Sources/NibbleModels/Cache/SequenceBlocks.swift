/// The cache blocks of one sequence: block i holds its positions i·S ..< (i + 1)·S, where S is the pool's block size.
///
/// A plain value; ``BlockPool`` makes it, changes it and counts the references it stands for. Dropping one without
/// ``BlockPool/release(_:)`` leaks its blocks.
package struct SequenceBlocks: Sendable, Equatable {
    /// Physical blocks, in the order of the positions they hold.
    package internal(set) var blocks: [Int32] = []
    /// Positions that have been given out.
    package internal(set) var length = 0
    /// What its first block follows: sequences share blocks only under the same root.
    package let root: PrefixRoot
    /// The index entries of its leading full blocks: their own, or those of known blocks with the same tokens.
    var entries: [UInt64] = []

    /// What its next block follows in the index.
    var lastEntry: UInt64 { entries.last ?? root.entry }

    init(root: PrefixRoot) { self.root = root }
}

/// What must be equal, beside the tokens, for two sequences to have the same keys and values: the adapter and, for
/// encoder-decoders, the encoder's input. Whoever numbers them gives different numbers to different combinations.
package struct PrefixRoot: Sendable, Hashable {
    package let number: UInt32

    package static let plain = PrefixRoot(number: 0)

    package init(number: UInt32) { self.number = number }

    /// Entries of blocks count up from 1 and never reach the upper half.
    var entry: UInt64 { 1 << 63 | UInt64(number) }
}

/// A block whose contents must be copied before the step that writes to the copy.
package struct BlockCopy: Sendable, Equatable {
    package let source: Int32
    package let target: Int32
}
