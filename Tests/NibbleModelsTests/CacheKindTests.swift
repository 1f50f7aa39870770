import NibbleModels
import Testing

/// What windows and states change of a pool's rules.
@Suite struct CacheKindTests {
    static func pool(_ kinds: CacheKind..., blocks: Int = 24) -> BlockPool {
        BlockPool(tables: kinds.map { CacheTable($0, blockCount: blocks) }, blockSize: 4)
    }

    /// Feeds a sequence the rest of `tokens`, `chunk` at a time.
    static func feed(_ tokens: [Int32], to sequence: inout SequenceBlocks, of pool: inout BlockPool, chunk: Int = 4) throws {
        while sequence.length < tokens.count {
            let end = min((sequence.length / chunk + 1) * chunk, tokens.count)
            _ = try #require(pool.append(end - sequence.length, to: &sequence))
            pool.finishCopies()
            pool.index(&sequence, tokens: tokens)
            pool.releasePassed(&sequence)
        }
    }

    static func held(_ sequence: SequenceBlocks, _ table: Int) -> [Int] {
        sequence.tables[table].indices.filter { sequence.tables[table][$0] != SequenceBlocks.noBlock }
    }

    @Test("a long sequence holds the blocks that its next positions read", arguments: [1, 2, 4, 5, 6, 9, 30], [1, 3, 4, 7])
    func bound(window: Int, chunk: Int) throws {
        var pool = Self.pool(.window(window), .full, .state, blocks: 200)
        let bound = try #require(CacheKind.window(window).blocksAtOnce(adding: chunk, blockSize: 4))
        let tokens = (0..<400).map { Int32($0) }
        var sequence = pool.emptySequence(root: .plain)
        while sequence.length < 400 {
            let count = min(chunk, 400 - sequence.length)
            _ = try #require(pool.append(count, to: &sequence))
            #expect(Self.held(sequence, 0).count <= bound && Self.held(sequence, 2).count <= 2)
            pool.index(&sequence, tokens: tokens)
            pool.releasePassed(&sequence)
            let first = max(sequence.length - window + 1, 0) / 4
            #expect(Self.held(sequence, 0) == Array(first..<max((sequence.length + 3) / 4, first)))
        }
        #expect(Self.held(sequence, 1).count == 100)
        pool.release(&sequence)
        #expect(pool.usedCount == 0)
    }

    @Test("a sequence may be longer than the blocks of a window reach")
    func capacity() throws {
        #expect(Self.pool(.window(9), blocks: 6).capacity(chunk: 8) == .max)
        #expect(Self.pool(.window(9), blocks: 4).capacity(chunk: 8) == 16)
        #expect(Self.pool(.window(9), .full, blocks: 6).capacity(chunk: 8) == 24)
        var pool = Self.pool(.window(9), blocks: 6)
        var sequence = pool.emptySequence(root: .plain)
        try Self.feed((0..<1000).map { Int32($0) }, to: &sequence, of: &pool, chunk: 8)
        #expect(sequence.length == 1000)
    }

    @Test("a beginning is shared if the blocks of its last window are there, whatever became of the others")
    func windowedPrefix() throws {
        var pool = Self.pool(.window(6), blocks: 8)
        let tokens = (0..<40).map { Int32($0) }
        var first = pool.emptySequence(root: .plain)
        try Self.feed(tokens, to: &first, of: &pool)
        // Six blocks were given out anew since.
        let again = pool.adopt(tokens + [99], root: .plain)
        #expect(again.length == 40 && Self.held(again, 0) == [8, 9])
        #expect(again.tables[0][8...] == first.tables[0][8...])
        // What begins alike but ends early has lost its window.
        #expect(pool.adopt(Array(tokens.prefix(8)) + [99], root: .plain).length == 0)
    }

    @Test("with windows and full attention, both must know a beginning")
    func mixedPrefix() throws {
        var pool = BlockPool(
            tables: [CacheTable(blockCount: 30), CacheTable(.window(5), blockCount: 6)], blockSize: 4)
        let tokens = (0..<40).map { Int32($0) }
        var first = pool.emptySequence(root: .plain)
        try Self.feed(tokens, to: &first, of: &pool)
        pool.release(&first)
        // Of the window's blocks, those of the last positions are left.
        var known = pool.adopt(tokens + [99], root: .plain)
        #expect(known.length == 40 && Self.held(known, 0) == Array(0..<10) && Self.held(known, 1) == [9])
        pool.release(&known)
        let early = pool.adopt(Array(tokens.prefix(8)) + [99], root: .plain)
        #expect(early.length == 0)
        // Cut within a block: the last tokens of it are not shared.
        let cut = pool.adopt(Array(tokens.prefix(38)) + [99, 98], root: .plain)
        #expect(cut.length == 38 && Self.held(cut, 1) == [8, 9])
    }

    @Test("a beginning that lost its window is known again once it was computed again")
    func healed() throws {
        var pool = Self.pool(.window(5), blocks: 4)
        let tokens = (0..<40).map { Int32($0) }
        var long = pool.emptySequence(root: .plain)
        try Self.feed(tokens, to: &long, of: &pool)
        pool.release(&long)
        var short = pool.adopt(Array(tokens.prefix(8)), root: .plain)
        #expect(short.length == 0)
        try Self.feed(Array(tokens.prefix(8)), to: &short, of: &pool)
        pool.release(&short)
        #expect(pool.adopt(Array(tokens.prefix(8)) + [99], root: .plain).length == 8)
    }

    @Test("a state is shared where a step ended with a block, and nowhere else")
    func states() throws {
        var pool = Self.pool(.full, .state)
        let tokens = (0..<22).map { Int32($0) }
        var first = pool.emptySequence(root: .plain)
        try Self.feed(Array(tokens.prefix(8)), to: &first, of: &pool, chunk: 8)
        try Self.feed(Array(tokens.prefix(10)), to: &first, of: &pool, chunk: 10)
        try Self.feed(tokens, to: &first, of: &pool, chunk: 22)
        #expect(Self.held(first, 1) == [5])
        // States were left after 8, 10 and 22 tokens, the last two within a block.
        #expect(pool.adopt(tokens + [99], root: .plain).length == 8)
        #expect(pool.adopt(Array(tokens.prefix(7)) + [99], root: .plain).length == 0)
        #expect(!pool.canTruncate(first, to: 21) && !pool.canTruncate(first, to: 20))
        let before = first
        #expect(!pool.truncate(&first, to: 8) && first == before)
    }

    @Test("a state that a fork reads, or that is known, is copied before a step overwrites it")
    func stateCopies() throws {
        var pool = Self.pool(.state)
        var first = pool.emptySequence(root: .plain)
        _ = pool.append(6, to: &first)
        var second = pool.fork(first)
        let copy = try #require(pool.append(1, to: &second)?.first)
        #expect(copy.source == first.tables[0][1] && copy.target == second.tables[0][1])
        #expect(pool.append(1, to: &first) == [])
        // A step that ends in another block reads the state and leaves it.
        var third = pool.fork(first)
        #expect(pool.append(2, to: &third) == [])
        #expect(third.tables[0][1] == first.tables[0][1] && pool.usedCount == 3)
    }

    @Test("a block that is copied in a step is not given out in the same step")
    func copiesAtOnce() throws {
        var pool = Self.pool(.full, blocks: 3)
        let tokens = (0..<8).map { Int32($0) }
        var first = pool.emptySequence(root: .plain)
        try Self.feed(tokens, to: &first, of: &pool)
        pool.release(&first)
        var second = pool.adopt(Array(tokens.prefix(7)), root: .plain)
        #expect(second.length == 6)
        let copy = try #require(pool.append(1, to: &second)?.first)
        var third = pool.emptySequence(root: .plain)
        #expect(pool.append(1, to: &third) == nil)
        pool.finishCopies()
        #expect(pool.append(1, to: &third) != nil && third.tables[0] == [copy.source])
    }

    @Test("chains without blocks are forgotten")
    func forgotten() throws {
        var pool = Self.pool(.window(5), blocks: 4)
        for start: Int32 in [0, 1000, 2000] {
            let tokens = (start..<start + 400).map { $0 }
            var sequence = pool.emptySequence(root: .plain)
            try Self.feed(tokens, to: &sequence, of: &pool)
            pool.release(&sequence)
        }
        // The last text's, whose end is still there.
        #expect(pool.knownCount == 100)
        var other = pool.emptySequence(root: .plain)
        _ = try #require(pool.append(16, to: &other))
        #expect(pool.knownCount == 0)
    }
}
