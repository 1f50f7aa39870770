import NibbleCore

/// Which physical cache blocks each row's positions lie in.
///
/// Blocks are shared between rows after ``gather(_:)`` and copied when a row that shares its last one writes to it.
struct BlockTable {
    private(set) var lengths: [Int]
    /// By logical block; ``released`` where a window has passed.
    private(set) var blocks: [[Int32]]
    private var references: [Int]
    private var free: [Int32]
    /// Logical blocks of a row.
    private(set) var blocksPerRow: Int
    private let window: Int?

    static let released: Int32 = -1

    /// - Parameters:
    ///   - window: only the last so many positions are ever read; `nil`: all.
    ///   - blockCount: physical blocks, as ``CacheBlocks/count(rows:capacity:window:chunkTokens:)`` counts them.
    init(rows: Int, capacity: Int, window: Int? = nil, blockCount: Int) {
        blocksPerRow = max(KeyValueGeometry.blocks(for: capacity), 1)
        self.window = window
        lengths = Array(repeating: 0, count: rows)
        blocks = Array(repeating: [], count: rows)
        for row in 0..<rows { blocks[row].reserveCapacity(blocksPerRow) }
        references = Array(repeating: 0, count: blockCount)
        free = (0..<Int32(blockCount)).reversed()
    }

    /// Adds logical blocks for rows of `capacity` tokens and physical blocks up to `blockCount`. Rows keep theirs.
    mutating func grow(capacity: Int, blockCount: Int) {
        blocksPerRow = max(KeyValueGeometry.blocks(for: capacity), blocksPerRow)
        let added = Int32(references.count)..<Int32(max(blockCount, references.count))
        references += Array(repeating: 0, count: added.count)
        free = added.reversed() + free
    }

    /// Gives back the blocks that no row's next tokens can see.
    mutating func releasePassed() {
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

    /// Makes room for `count` more positions of `row`. Answers which block has to be copied first, if one has.
    mutating func append(_ count: Int, to row: Int) -> (from: Int32, to: Int32)? {
        let length = lengths[row]
        var copy: (from: Int32, to: Int32)?
        if count > 0, length % KeyValueGeometry.blockSize != 0, let last = blocks[row].last, references[Int(last)] > 1 {
            let own = take()
            references[Int(last)] -= 1
            blocks[row][blocks[row].count - 1] = own
            copy = (last, own)
        }
        while blocks[row].count < KeyValueGeometry.blocks(for: length + count) { blocks[row].append(take()) }
        lengths[row] = length + count
        return copy
    }

    /// Whether what a row of `length` tokens would see is still there.
    func canTruncate(_ row: Int, to length: Int) -> Bool {
        guard let window, length > 0 else { return true }
        let first = max(min(length, lengths[row]) - window, 0) / KeyValueGeometry.blockSize
        return first >= blocks[row].count || blocks[row][first] != Self.released
    }

    /// - Precondition: ``canTruncate(_:to:)``
    mutating func truncate(_ row: Int, to length: Int) {
        while blocks[row].count > KeyValueGeometry.blocks(for: length) { release(blocks[row].removeLast()) }
        lengths[row] = min(lengths[row], length)
    }

    /// Row r becomes what row `sources[r]` is.
    mutating func gather(_ sources: [Int]) {
        let newBlocks = sources.map { blocks[$0] }
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
struct BlockTables {
    private(set) var tables: [BlockTable]

    init(_ layout: CacheLayout, rows: Int, capacity: Int) {
        tables = zip(layout.windows, layout.blocks).map {
            BlockTable(rows: rows, capacity: capacity, window: $0, blockCount: $1)
        }
    }

    var lengths: [Int] { tables[0].lengths }
    var blocksPerRow: Int { tables[0].blocksPerRow }

    /// Blocks to copy within the caches of one table's layers.
    typealias Copies = [(table: Int, from: Int32, to: Int32)]

    /// See ``BlockTable/grow(capacity:blockCount:)``; `layout` has the same tables.
    mutating func grow(_ layout: CacheLayout, capacity: Int) {
        for table in tables.indices { tables[table].grow(capacity: capacity, blockCount: layout.blocks[table]) }
    }

    mutating func releasePassed() {
        for table in tables.indices { tables[table].releasePassed() }
    }

    mutating func append(_ count: Int, to row: Int, copies: inout Copies) {
        for table in tables.indices {
            if let copy = tables[table].append(count, to: row) { copies.append((table, copy.from, copy.to)) }
        }
    }

    func canTruncate(_ row: Int, to length: Int) -> Bool { tables.allSatisfy { $0.canTruncate(row, to: length) } }

    mutating func truncate(_ row: Int, to length: Int) {
        for table in tables.indices { tables[table].truncate(row, to: length) }
    }

    mutating func gather(_ sources: [Int]) {
        for table in tables.indices { tables[table].gather(sources) }
    }

    /// Writes `row`'s blocks into the image's tables at `index`. What has passed is never read.
    func fill(_ image: BatchBuffers.Image, at index: Int, row: Int) {
        for (table, blocks) in tables.enumerated() {
            let target = image.blockTable(table)
            for (place, block) in blocks.blocks[row].enumerated() { target[index * blocksPerRow + place] = max(block, 0) }
        }
    }
}
