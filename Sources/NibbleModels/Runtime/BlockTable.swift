import NibbleCore

/// Which physical cache blocks each row's positions lie in.
///
/// Blocks are shared between rows after ``gather(_:)`` and copied when a row that shares its last one writes to it.
struct BlockTable {
    private(set) var lengths: [Int]
    private(set) var blocks: [[Int32]]
    private var references: [Int]
    private var free: [Int32]
    let blocksPerRow: Int

    init(rows: Int, capacity: Int) {
        blocksPerRow = max(KeyValueGeometry.blocks(for: capacity), 1)
        lengths = Array(repeating: 0, count: rows)
        blocks = Array(repeating: [], count: rows)
        for row in 0..<rows { blocks[row].reserveCapacity(blocksPerRow) }
        references = Array(repeating: 0, count: rows * blocksPerRow)
        free = (0..<Int32(rows * blocksPerRow)).reversed()
    }

    /// Blocks in all; rows can never need more.
    var blockCount: Int { references.count }

    /// Makes room for `count` more positions of `row`; a block that has to be copied first is appended to `copies`.
    mutating func append(_ count: Int, to row: Int, copies: inout [(from: Int32, to: Int32)]) {
        let length = lengths[row]
        if count > 0, length % KeyValueGeometry.blockSize != 0, let last = blocks[row].last, references[Int(last)] > 1 {
            let own = take()
            references[Int(last)] -= 1
            blocks[row][blocks[row].count - 1] = own
            copies.append((last, own))
        }
        while blocks[row].count < KeyValueGeometry.blocks(for: length + count) { blocks[row].append(take()) }
        lengths[row] = length + count
    }

    mutating func truncate(_ row: Int, to length: Int) {
        while blocks[row].count > KeyValueGeometry.blocks(for: length) { release(blocks[row].removeLast()) }
        lengths[row] = min(lengths[row], length)
    }

    /// Row r becomes what row `sources[r]` is.
    mutating func gather(_ sources: [Int]) {
        let newBlocks = sources.map { blocks[$0] }
        for block in newBlocks.joined() { references[Int(block)] += 1 }
        for block in blocks.joined() { release(block) }
        lengths = sources.map { lengths[$0] }
        blocks = newBlocks
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
