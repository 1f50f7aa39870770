import NibbleCore
import NibbleModels
import Testing

/// Block tables against a plain model of what a cache holds.
@Suite struct BlockTableTests {
    private static let size = KeyValueGeometry.blockSize

    private func expectNoCopy(_ table: inout BlockTable, _ count: Int, to row: Int) {
        let copied = table.append(count, to: row)
        #expect(copied == nil)
    }

    @Test(
        "a row takes a block for every 32 positions, the one of its next position included",
        arguments: [(0, 0), (1, 1), (31, 1), (32, 2), (33, 2), (64, 3), (65, 3), (128, 4)])
    func counts(length: Int, blocks: Int) {
        var table = BlockTable(rows: 1, capacity: 128, blockCount: 4)
        expectNoCopy(&table, length, to: 0)
        #expect(table.lengths == [length])
        #expect(table.blocks[0].count == blocks)
        #expect(Set(table.blocks[0]).count == blocks)
    }

    @Test("blocks of different rows are different")
    func disjoint() {
        var table = BlockTable(rows: 3, capacity: 100, blockCount: 12)
        for row in 0..<3 { _ = table.append(40 + 20 * row, to: row) }
        let all = table.blocks.flatMap { $0 }
        #expect(table.blocks.map(\.count) == [2, 2, 3])
        #expect(Set(all).count == all.count)
        #expect(all.allSatisfy { (0..<12).contains($0) })
    }

    @Test("a row that shares its last block copies it before it writes")
    func copyOnWrite() throws {
        var table = BlockTable(rows: 2, capacity: 128, blockCount: 8)
        _ = table.append(40, to: 0)
        table.gather([0, 0])
        let shared = table.blocks[0]
        #expect(table.blocks[1] == shared)
        let copied = table.append(1, to: 0)
        let copy = try #require(copied)
        #expect(copy.source == shared[1] && copy.target == table.blocks[0][1])
        #expect(table.blocks[0][0] == shared[0], "the full block stays shared")
        #expect(table.blocks[0][1] != table.blocks[1][1])
        expectNoCopy(&table, 1, to: 1)
        #expect(table.blocks[1] == shared)
    }

    @Test("a row that shares full blocks only copies nothing")
    func sharedFullBlocks() {
        var table = BlockTable(rows: 2, capacity: 128, blockCount: 8)
        _ = table.append(64, to: 0)
        table.gather([0, 0])
        expectNoCopy(&table, 1, to: 0)
        expectNoCopy(&table, 1, to: 1)
        #expect(table.blocks[0].prefix(2) == table.blocks[1].prefix(2))
        #expect(table.blocks[0][2] != table.blocks[1][2])
    }

    @Test("truncating gives blocks back, and no more than whole ones")
    func truncate() {
        var table = BlockTable(rows: 2, capacity: 96, blockCount: 4)
        _ = table.append(96, to: 0)
        table.truncate(0, to: 33)
        #expect(table.lengths == [33, 0] && table.blocks[0].count == 2)
        // Two blocks are free again: one short would trap.
        expectNoCopy(&table, 64, to: 1)
        table.truncate(0, to: 50)
        #expect(table.lengths[0] == 33, "a row never grows by being cut")
    }

    @Test("a window keeps what the next token sees and 64 positions before it", arguments: [4, 32, 40])
    func window(window: Int) {
        let blocks = CacheBlocks.count(rows: 1, capacity: 4096, window: window, chunkTokens: 1)
        var table = BlockTable(rows: 1, capacity: 4096, window: window, blockCount: blocks)
        for length in 1...1000 {
            table.releasePassed()
            _ = table.append(1, to: 0)
            // The position just written sees this far back, and may be rolled back by 64.
            let first = max(length - 1 - (window - 1) - CacheBlocks.rollback, 0) / Self.size
            for block in first..<table.blocks[0].count { #expect(table.blocks[0][block] != BlockTable.released) }
            #expect(table.canTruncate(0, to: max(length - CacheBlocks.rollback, 0)))
            #expect(table.canTruncate(0, to: 0))
        }
        let kept = table.blocks[0].filter { $0 != BlockTable.released }
        #expect(kept.count <= blocks && Set(kept).count == kept.count)
        #expect(!table.canTruncate(0, to: 500))
    }

    /// What each cache block holds, by (text, position): a plain cache.
    private struct PlainCache {
        var cells: [Int32: [Int: Int]] = [:]

        mutating func write(_ table: BlockTable, _ row: Int, _ positions: Range<Int>, _ tag: Int) {
            for position in positions {
                cells[table.blocks[row][position / size], default: [:]][position % size] = tag &* 31 &+ position
            }
        }

        func read(_ table: BlockTable, _ row: Int, _ position: Int) -> Int? {
            cells[table.blocks[row][position / size]]?[position % size]
        }
    }

    @Test("rows read their own tokens, whatever was shared, cut and reordered", arguments: [nil, 5, 50] as [Int?], 0..<8)
    func random(window: Int?, seed: UInt64) {
        let (rows, capacity, chunk) = (4, 300, 40)
        let count = CacheBlocks.count(rows: rows, capacity: capacity, window: window, chunkTokens: chunk)
        var table = BlockTable(rows: rows, capacity: capacity, window: window, blockCount: count)
        var cache = PlainCache()
        // What each row should read at each of its positions.
        var wanted = Array(repeating: [Int](), count: rows)
        for step in 0..<400 {
            func draw(_ range: Range<Int>, _ stream: UInt64) -> Int {
                range.lowerBound
                    + Int(RandomStream.uniform(seed: seed, stream: stream, counter: UInt64(step)) * Float(range.count))
            }
            let row = draw(0..<rows, 0)
            switch draw(0..<10, 1) {
            case 0:
                let sources = (0..<rows).map { draw(0..<rows, 2 + UInt64($0)) }
                table.gather(sources)
                wanted = sources.map { wanted[$0] }
            case 1:
                let length = max(table.lengths[row] - draw(0..<80, 9), 0)
                if table.canTruncate(row, to: length) {
                    table.truncate(row, to: length)
                    wanted[row].removeLast(wanted[row].count - length)
                }
            default:
                let start = table.lengths[row]
                let added = min(draw(1..<chunk, 9), capacity - start)
                table.releasePassed()
                if let copy = table.append(added, to: row) { cache.cells[copy.target] = cache.cells[copy.source] }
                cache.write(table, row, start..<start + added, step)
                wanted[row] += (start..<start + added).map { step &* 31 &+ $0 }
            }
            for row in 0..<rows {
                #expect(table.lengths[row] == wanted[row].count)
                let first = window.map { max(table.lengths[row] - $0, 0) } ?? 0
                for position in first..<table.lengths[row] where cache.read(table, row, position) != wanted[row][position] {
                    Issue.record("row \(row), position \(position), step \(step)")
                    return
                }
            }
        }
    }
}

@Suite struct CacheLayoutTests {
    private func layer(_ window: Int?) -> LayerDescription {
        var attention = AttentionDescription(heads: 2, headSize: 8)
        attention.window = window
        return LayerDescription(attention: attention, feedForward: .plain(.gelu))
    }

    @Test("layers with the same window share a table; a window as long as the row is none")
    func tables() {
        let windows = [nil, 64, nil, 64, 128, 4096, 5000] as [Int?]
        let layout = CacheLayout(windows.map(layer), rows: 2, capacity: 4096, chunkTokens: 512)
        #expect(layout.kinds == [.full, .window(64), .window(128)])
        #expect(layout.tableOfLayer == [0, 1, 0, 1, 2, 0, 0])
        #expect(layout.blocks.count == 3)
        #expect(layout.blocks[0] == 2 * 4096 / 32)
        #expect(layout.blocks[1] < layout.blocks[2] && layout.blocks[2] < layout.blocks[0])
    }

    @Test("a stack without layers has one table")
    func empty() {
        let layout = CacheLayout([], rows: 1, capacity: 10, chunkTokens: 8)
        #expect(layout.kinds == [.full] && layout.tableOfLayer.isEmpty && layout.blocks == [1])
    }

    @Test(
        "blocks for all rows, or for windows, rollback and one chunk",
        arguments: [
            (1, 100, nil, 1, 4), (3, 100, nil, 512, 12), (1, 4096, 32, 1, 6), (2, 4096, 32, 64, 12), (1, 64, 32, 512, 2),
            (1, 0, nil, 1, 1),
        ] as [(Int, Int, Int?, Int, Int)])
    func counts(rows: Int, capacity: Int, window: Int?, chunk: Int, blocks: Int) {
        #expect(CacheBlocks.count(rows: rows, capacity: capacity, window: window, chunkTokens: chunk) == blocks)
    }

    @Test("every table of a session grows together")
    func together() {
        let layout = CacheLayout([layer(nil), layer(8)], rows: 2, capacity: 200, chunkTokens: 64)
        var tables = BlockTables(layout, rows: 2, capacity: 200)
        var copies = BlockTables.Copies()
        tables.append(40, to: 0, copies: &copies)
        tables.gather([0, 0])
        tables.append(1, to: 1, copies: &copies)
        #expect(tables.lengths == [40, 41] && copies.map(\.count) == [1, 1])
    }
}
