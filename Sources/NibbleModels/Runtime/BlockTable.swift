import NibbleCore

/// Which physical cache blocks each row's positions lie in.
///
/// Rows share blocks after ``gather(_:)``. A row that writes to a shared last block gets a copy of it first.
package struct BlockTable {
    /// Tokens of each row.
    package private(set) var lengths: [Int]
    /// The physical block of each row's logical blocks; ``released`` where the window has moved past it.
    package private(set) var blocks: [[Int32]]
    private var references: [Int]
    private var free: [Int32]
    /// Logical blocks of a row.
    package private(set) var blocksPerRow: Int
    private let window: Int?

    package static let released: Int32 = -1

    /// - Parameters:
    ///   - window: how many of the last positions are read; `nil`: all.
    ///   - blockCount: physical blocks, as ``CacheBlocks/count(rows:capacity:window:chunkTokens:)`` counts them.
    package init(rows: Int, capacity: Int, window: Int? = nil, blockCount: Int) {
        blocksPerRow = max(KeyValueGeometry.blocks(for: capacity), 1)
        self.window = window
        lengths = Array(repeating: 0, count: rows)
        blocks = Array(repeating: [], count: rows)
        for row in 0..<rows { blocks[row].reserveCapacity(blocksPerRow) }
        references = Array(repeating: 0, count: blockCount)
        free = (0..<Int32(blockCount)).reversed()
    }

    /// Adds logical blocks for rows of `capacity` tokens and physical blocks up to `blockCount`. Rows keep theirs.
    package mutating func grow(capacity: Int, blockCount: Int) {
        blocksPerRow = max(KeyValueGeometry.blocks(for: capacity), blocksPerRow)
        let added = Int32(references.count)..<Int32(max(blockCount, references.count))
        references += Array(repeating: 0, count: added.count)
        free = added.reversed() + free
    }

    /// Frees the blocks that lie before every window and before what rows can be rolled back to.
    package mutating func releasePassed() {
        guard let window else { return }
        for row in lengths.indices {
            var block = max(lengths[row] - CacheBlocks.kept(window), 0) / KeyValueGeometry.blockSize - 1
            while block >= 0, blocks[row][block] != Self.released {
                release(blocks[row][block])
                blocks[row][block] = Self.released
                block -= 1
            }
        }
    }

    /// Makes room for `count` more positions of `row`. Returns the block that has to be copied first, if the row shares its
    /// last one.
    package mutating func append(_ count: Int, to row: Int) -> BlockCopy? {
        let length = lengths[row]
        var copy: BlockCopy?
        let block = length / KeyValueGeometry.blockSize
        if count > 0, length % KeyValueGeometry.blockSize != 0, references[Int(blocks[row][block])] > 1 {
            let (shared, own) = (blocks[row][block], take())
            references[Int(shared)] -= 1
            blocks[row][block] = own
            copy = BlockCopy(source: shared, target: own)
        }
        while blocks[row].count < KeyValueGeometry.blocks(for: length + count) { blocks[row].append(take()) }
        lengths[row] = length + count
        if window == nil, count > 0 { reserve(row) }
        return copy
    }

    /// Takes the block of the next position early, so that a step can begin before the last one has been read.
    private mutating func reserve(_ row: Int) {
        let wanted = KeyValueGeometry.blocks(for: lengths[row] + 1)
        if wanted > blocks[row].count, wanted <= blocksPerRow, !free.isEmpty { blocks[row].append(take()) }
    }

    /// Whether everything that a row of `length` tokens sees is still in the cache.
    package func canTruncate(_ row: Int, to length: Int) -> Bool {
        guard let window, length > 0 else { return true }
        let first = max(min(length, lengths[row]) - window, 0) / KeyValueGeometry.blockSize
        return first >= blocks[row].count || blocks[row][first] != Self.released
    }

    /// - Precondition: ``canTruncate(_:to:)``
    package mutating func truncate(_ row: Int, to length: Int) {
        while blocks[row].count > KeyValueGeometry.blocks(for: length) { release(blocks[row].removeLast()) }
        lengths[row] = min(lengths[row], length)
    }

    /// Row r becomes what row `sources[r]` is.
    package mutating func gather(_ sources: [Int]) {
        // Blocks that were taken early hold nothing yet.
        let newBlocks = sources.map { Array(blocks[$0].prefix(KeyValueGeometry.blocks(for: lengths[$0]))) }
        for block in newBlocks.joined() where block != Self.released { references[Int(block)] += 1 }
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
        guard block != Self.released else { return }
        references[Int(block)] -= 1
        if references[Int(block)] == 0 { free.append(block) }
    }
}

/// The block tables of a session, one for each of a ``CacheLayout``'s.
package struct BlockTables {
    /// Of keys and values; a table of states is the layout's last.
    package private(set) var tables: [BlockTable] = []
    package private(set) var states: StateTable?
    /// Tokens of each row.
    package private(set) var lengths: [Int]

    package init(_ layout: CacheLayout, rows: Int, capacity: Int) {
        lengths = Array(repeating: 0, count: rows)
        for (kind, count) in zip(layout.kinds, layout.blocks) {
            switch kind {
            case .full: tables.append(BlockTable(rows: rows, capacity: capacity, blockCount: count))
            case .window(let window):
                tables.append(BlockTable(rows: rows, capacity: capacity, window: window, blockCount: count))
            case .state: states = StateTable(rows: rows, blockCount: count)
            }
        }
    }

    /// Blocks to copy within the caches of each table's layers.
    package typealias Copies = [[BlockCopy]]

    /// See ``BlockTable/grow(capacity:blockCount:)``; `layout` has the same tables.
    package mutating func grow(_ layout: CacheLayout, capacity: Int) {
        for table in tables.indices { tables[table].grow(capacity: capacity, blockCount: layout.blocks[table]) }
    }

    package mutating func releasePassed() {
        for table in tables.indices { tables[table].releasePassed() }
    }

    /// - Returns: the states that the call reads and writes for `row`, where there are any.
    @discardableResult
    package mutating func append(_ count: Int, to row: Int, copies: inout Copies) -> StateTable.Blocks? {
        lengths[row] += count
        for table in tables.indices {
            guard let copy = tables[table].append(count, to: row) else { continue }
            if copies.isEmpty { copies = Array(repeating: [], count: tables.count) }
            copies[table].append(copy)
        }
        return states?.append(count, to: row)
    }

    /// See ``StateTable/promise(_:)``.
    package mutating func promiseState(of row: Int) -> Int32? { states?.promise(row) }

    package func canTruncate(_ row: Int, to length: Int) -> Bool {
        length >= lengths[row] || longest(row, upTo: length) == length
    }

    /// The most of its first `length` tokens that `row` can be cut to: those whose state is there, and whose windows are.
    package func longest(_ row: Int, upTo length: Int) -> Int {
        let length = min(length, lengths[row])
        let kept = states?.longest(row, upTo: length) ?? length
        return tables.allSatisfy { $0.canTruncate(row, to: kept) } ? kept : 0
    }

    /// - Precondition: ``canTruncate(_:to:)``
    package mutating func truncate(_ row: Int, to length: Int) {
        lengths[row] = min(lengths[row], length)
        for table in tables.indices { tables[table].truncate(row, to: length) }
        states?.truncate(row, to: length)
    }

    package mutating func gather(_ sources: [Int]) {
        lengths = sources.map { lengths[$0] }
        for table in tables.indices { tables[table].gather(sources) }
        states?.gather(sources)
    }
}
