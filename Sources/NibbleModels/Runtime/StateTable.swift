import NibbleCore

/// The blocks that hold the states of a session's rows.
///
/// A call reads a row's current state and leaves the next one in another block, so that the state before a call stays there until
/// the next: rows can be rolled back to it, and rows share blocks without copies. Beside those two a row keeps the state that its
/// last prompt left, to which a conversation returns.
package struct StateTable {
    /// A state in a block.
    private struct Snapshot {
        /// How many tokens of its row it has seen.
        var length: Int
        var block: Int32
        /// Whether a call with several tokens of the row left it.
        var isPrompt: Bool
    }

    /// What a call reads and writes for a row.
    package struct Blocks: Equatable {
        /// `nil`: the row begins from zeros.
        package var source: Int32?
        package var target: Int32

        package init(source: Int32?, target: Int32) {
            self.source = source
            self.target = target
        }
    }

    /// By row, the shortest first. The last one is current.
    private var snapshots: [[Snapshot]]
    /// By row: the block that its next call writes to, where that is promised.
    private var promised: [Int32?]
    private var references: [Int]
    private var free: [Int32]

    /// The most blocks that a row holds during a call: those of its last prompt, its current state and its next one.
    package static let blocksPerRow = 3

    package init(rows: Int, blockCount: Int) {
        snapshots = Array(repeating: [], count: rows)
        promised = Array(repeating: nil, count: rows)
        references = Array(repeating: 0, count: blockCount)
        free = (0..<Int32(blockCount)).reversed()
    }

    /// Moves `row` on by `count` tokens.
    package mutating func append(_ count: Int, to row: Int) -> Blocks {
        let current = snapshots[row].last
        keepPrompt(of: row, beside: current)
        let target = promised[row] ?? take()
        promised[row] = nil
        snapshots[row].append(Snapshot(length: (current?.length ?? 0) + count, block: target, isPrompt: count > 1))
        return Blocks(source: current?.block, target: target)
    }

    /// The block that the next call will write to, for a device that begins with it early. The state before the current one may
    /// be overwritten from now on.
    package mutating func promise(_ row: Int) -> Int32 {
        keepPrompt(of: row, beside: snapshots[row].last)
        let block = promised[row] ?? take()
        promised[row] = block
        return block
    }

    /// Lets go of all states of `row` but the last that a prompt left, and `current`.
    private mutating func keepPrompt(of row: Int, beside current: Snapshot?) {
        let prompt = snapshots[row].last { $0.isPrompt }
        drop(row) { $0.length != current?.length && $0.length != prompt?.length }
    }

    private mutating func drop(_ row: Int, where isGone: (Snapshot) -> Bool) {
        for snapshot in snapshots[row] where isGone(snapshot) { release(snapshot.block) }
        snapshots[row].removeAll(where: isGone)
    }

    /// The most of its first `length` tokens that `row` has a state for.
    package func longest(_ row: Int, upTo length: Int) -> Int {
        snapshots[row].last { $0.length <= length }?.length ?? 0
    }

    /// Forgets the states beyond `length` tokens.
    /// - Precondition: `longest(row, upTo: length)` is `length`, or the row is no longer than that.
    package mutating func truncate(_ row: Int, to length: Int) { drop(row) { $0.length > length } }

    /// Row r becomes what row `sources[r]` is.
    package mutating func gather(_ sources: [Int]) {
        let new = sources.map { snapshots[$0] }
        for snapshot in new.joined() { references[Int(snapshot.block)] += 1 }
        for row in snapshots.indices {
            drop(row) { _ in true }
            if let block = promised[row] { release(block) }
            promised[row] = nil
        }
        snapshots = new
    }

    private mutating func take() -> Int32 {
        let block = free.removeLast()
        references[Int(block)] = 1
        return block
    }

    private mutating func release(_ block: Int32) {
        references[Int(block)] -= 1
        if references[Int(block)] == 0 { free.append(block) }
    }
}
