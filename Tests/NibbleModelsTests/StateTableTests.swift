import NibbleCore
import NibbleModels
import Testing

/// Tables of states against a plain model of what blocks hold.
@Suite struct StateTableTests {
    @Test("a call reads the row's state and leaves the next in another block")
    func steps() {
        var table = StateTable(rows: 1, blockCount: StateTable.blocksPerRow)
        let first = table.append(5, to: 0)
        #expect(first.source == nil)
        let second = table.append(1, to: 0)
        #expect(second.source == first.target && second.target != first.target)
        // The prompt's state stays, so the third block takes turns with the second.
        let third = table.append(1, to: 0)
        #expect(third.source == second.target && Set([first.target, second.target, third.target]).count == 3)
        let fourth = table.append(1, to: 0)
        #expect(fourth == .init(source: third.target, target: second.target))
        #expect((0...8).map { table.longest(0, upTo: $0) } == [0, 0, 0, 0, 0, 5, 5, 7, 8])
    }

    @Test("a promised block is the one that the next call writes to")
    func promises() {
        var table = StateTable(rows: 1, blockCount: StateTable.blocksPerRow)
        _ = table.append(5, to: 0)
        for _ in 0..<10 {
            let step = table.append(1, to: 0)
            let promised = table.promise(0)
            #expect(promised != step.target && table.promise(0) == promised)
            let next = table.append(1, to: 0)
            #expect(next == .init(source: step.target, target: promised))
        }
        // What was promised may have been written to.
        let length = table.longest(0, upTo: 100)
        _ = table.promise(0)
        #expect(table.longest(0, upTo: length - 1) == 5)
    }

    @Test("rows read their own states, whatever was shared, cut and reordered", arguments: 0..<8)
    func random(seed: UInt64) {
        let rows = 4
        var table = StateTable(rows: rows, blockCount: rows * StateTable.blocksPerRow)
        // By block: the text whose state it holds.
        var cells: [Int32: [Int]] = [:]
        var held = Array(repeating: [Int](), count: rows)
        for step in 0..<600 {
            func draw(_ range: Range<Int>, _ stream: UInt64) -> Int {
                range.lowerBound
                    + Int(RandomStream.uniform(seed: seed, stream: stream, counter: UInt64(step)) * Float(range.count))
            }
            let row = draw(0..<rows, 0)
            switch draw(0..<12, 1) {
            case 0:
                let sources = (0..<rows).map { draw(0..<rows, 2 + UInt64($0)) }
                table.gather(sources)
                held = sources.map { held[$0] }
            case 1:
                let kept = table.longest(row, upTo: draw(0..<held[row].count + 1, 9))
                table.truncate(row, to: kept)
                held[row].removeLast(held[row].count - kept)
            case 2:
                // An early step that nobody asks for.
                cells[table.promise(row)] = [-step]
            default:
                let count = draw(0..<4, 9) == 0 ? 7 : 1
                let blocks = table.append(count, to: row)
                let before = blocks.source.map { cells[$0] ?? [-1] } ?? []
                if before != held[row] {
                    Issue.record("row \(row) begins from another state in step \(step)")
                    return
                }
                held[row] += (0..<count).map { step * 10 + $0 }
                cells[blocks.target] = held[row]
            }
            for row in 0..<rows { #expect(table.longest(row, upTo: .max) == held[row].count) }
        }
    }
}
