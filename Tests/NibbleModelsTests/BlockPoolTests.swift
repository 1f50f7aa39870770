import NibbleModels
import Testing

@Suite struct BlockPoolTests {
    private var pool = BlockPool(blockCount: 6, blockSize: 4)

    /// A sequence of `tokens` whose full blocks are known.
    private mutating func sequence(_ tokens: [Int32], root: PrefixRoot = .plain) throws -> SequenceBlocks {
        var sequence = pool.adopt(tokens, root: root)
        _ = try #require(pool.append(tokens.count - sequence.length, to: &sequence))
        pool.index(&sequence, tokens: tokens)
        return sequence
    }

    @Test("a request beyond the pool is refused and changes nothing")
    mutating func refusal() throws {
        var sequence = try sequence(Array(0..<10))
        let before = (sequence, pool.availableCount)
        #expect(pool.blocksNeeded(adding: 15, to: sequence) == 4)
        #expect(pool.append(15, to: &sequence) == nil)
        #expect(sequence == before.0 && pool.availableCount == before.1)
        #expect(pool.append(14, to: &sequence) != nil)
        #expect(pool.availableCount == 0)
    }

    @Test("a fork shares everything and copies the block it writes to, once")
    mutating func fork() throws {
        var first = try sequence(Array(0..<6))
        var second = pool.fork(first)
        #expect(pool.usedCount == 2)
        #expect(pool.blocksNeeded(adding: 1, to: second) == 1)
        let copy = try #require(pool.append(1, to: &second)?.first)
        #expect(copy.source == first.tables[0][1] && copy.target == second.tables[0][1])
        let written = try #require(pool.append(1, to: &first))
        #expect(written.isEmpty)
        #expect(first.tables[0][0] == second.tables[0][0] && pool.usedCount == 3)
        pool.release(&first)
        pool.release(&second)
        #expect(pool.usedCount == 0)
    }

    @Test("of a known prompt all but the last token is shared")
    mutating func adoption() throws {
        let first = try sequence(Array(0..<9))
        let again = pool.adopt(Array(0..<9), root: .plain)
        #expect(again.length == 8 && again.tables[0] == Array(first.tables[0].prefix(2)))
        // Equal to a full block's end: its last token is left to be computed.
        var partial = pool.adopt(Array(0..<8), root: .plain)
        #expect(partial.length == 7 && partial.tables[0] == Array(first.tables[0].prefix(2)))
        // A write to the known block copies it, though nobody else might hold it.
        #expect(pool.append(1, to: &partial)?.first?.source == first.tables[0][1])
    }

    @Test("equal blocks behind other beginnings, or under another root, are others")
    mutating func chains() throws {
        _ = try sequence([1, 1, 1, 1, 5, 5, 5, 5])
        #expect(pool.adopt([2, 2, 2, 2, 5, 5, 5, 5, 0], root: .plain).length == 0)
        #expect(pool.adopt([5, 5, 5, 5, 0], root: .plain).length == 0)
        #expect(pool.adopt([1, 1, 1, 1, 5, 5, 5, 5, 0], root: PrefixRoot(number: 7)).length == 0)
        #expect(pool.adopt([1, 1, 1, 1, 5, 5, 5, 5, 0], root: .plain).length == 8)
        _ = try sequence([2, 2, 2, 2, 5, 5, 5, 5, 6, 6, 6, 6])
        #expect(pool.adopt([2, 2, 2, 2, 5, 5, 5, 5, 6, 6, 6, 6, 0], root: .plain).length == 12)
        #expect(pool.adopt([1, 1, 1, 1, 5, 5, 5, 5, 0], root: .plain).length == 8)
    }

    @Test("the least recently used chain is given away first, and from its end")
    mutating func eviction() throws {
        var old = try sequence([1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3])
        var new = try sequence([7, 7, 7, 7, 8, 8, 8, 8])
        pool.release(&old)
        pool.release(&new)
        #expect(pool.cachedCount == 5 && pool.usedCount == 0)
        var other = pool.adopt([9], root: .plain)
        #expect(pool.append(8, to: &other) != nil)
        #expect(pool.adopt([1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4], root: .plain).length == 8)
        #expect(pool.adopt([7, 7, 7, 7, 8, 8, 8, 8, 9], root: .plain).length == 8)
    }

    @Test("a block that was given away is not found by its old tokens")
    mutating func staleBlocks() throws {
        var old = try sequence(Array(0..<24))
        pool.release(&old)
        var new = try sequence(Array(100..<124))
        pool.release(&new)
        #expect(pool.adopt(Array(0..<24), root: .plain).length == 0)
        #expect(pool.adopt(Array(100..<124), root: .plain).length == 23)
    }

    @Test("a truncated sequence gives blocks back and writes to its own", arguments: [0, 3, 4, 5, 8, 9])
    mutating func truncation(length: Int) throws {
        let tokens = [Int32](0..<10)
        var sequence = try sequence(tokens)
        #expect(pool.truncate(&sequence, to: length))
        #expect(sequence.length == length && sequence.tables[0].count == (length + 3) / 4)
        #expect(pool.usedCount == sequence.tables[0].count)
        let other = Array(tokens.prefix(length)) + [Int32](50..<60)
        _ = try #require(pool.append(10, to: &sequence))
        pool.finishCopies()
        pool.index(&sequence, tokens: other)
        pool.release(&sequence)
        #expect(pool.usedCount == 0)
        #expect(pool.adopt(other + [0], root: .plain).length >= (length + 10) / 4 * 4)
    }
}
