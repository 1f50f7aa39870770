/// The blocks of a cache: which of them sequences use, which are free, and which hold the beginnings of known texts.
///
/// A value without tensors, so that it can be tested by millions of events. A cache has a table of blocks for each kind of
/// layer that it serves: one for layers that see everything, one for each attention window. Blocks that nobody uses stay
/// known by their tokens until they are given out again, least recently used first. Every request that cannot be met is
/// refused before anything changes.
package struct BlockPool: Sendable {
    package let tables: [CacheTable]
    /// Positions a block holds.
    package let blockSize: Int
    var references: [BlockReferences]
    var index: PrefixIndex
    /// Blocks that the step's copies read, and that nobody else holds.
    private var copied: [(table: Int, block: Int32)] = []

    /// - Parameter hashMask: bits of hashes that count. Tests leave few, so that hashes collide.
    package init(tables: [CacheTable], blockSize: Int, hashMask: UInt64 = .max) {
        self.tables = tables
        self.blockSize = blockSize
        references = tables.map { BlockReferences(blockCount: $0.blockCount) }
        index = PrefixIndex(tables: tables, blockSize: blockSize, hashMask: hashMask)
    }

    /// A pool of one table that keeps everything.
    package init(blockCount: Int, blockSize: Int, hashMask: UInt64 = .max) {
        self.init(tables: [CacheTable(blockCount: blockCount)], blockSize: blockSize, hashMask: hashMask)
    }

    /// Blocks of all tables.
    package var blockCount: Int { tables.reduce(0) { $0 + $1.blockCount } }
    /// Blocks that can be given out: empty ones and cached ones.
    package var availableCount: Int { references.reduce(0) { $0 + $1.availableCount } }
    /// Blocks that sequences refer to.
    package var usedCount: Int { blockCount - availableCount }
    /// Blocks that nobody refers to and whose contents are known.
    package var cachedCount: Int { references.reduce(0) { $0 + $1.cachedCount } }
    /// Nodes of the index: blocks' worth of tokens that are known, or that known ones follow.
    package var knownCount: Int { index.nodeCount }

    /// Whether a table holds states.
    package var hasStates: Bool { tables.contains { $0.kind == .state } }

    /// Blocks that hold `positions` positions.
    package func blocks(for positions: Int) -> Int { (positions + blockSize - 1) / blockSize }

    /// Positions that one sequence can have if it is alone and adds at most `chunk` at once.
    package func capacity(chunk: Int) -> Int {
        tables.reduce(.max) { capacity, table in
            let atOnce = table.kind.blocksAtOnce(adding: chunk, blockSize: blockSize)
            let isEnough = atOnce.map { $0 <= table.blockCount } ?? false
            return isEnough ? capacity : min(capacity, table.blockCount * blockSize)
        }
    }

    /// A sequence without tokens.
    package func emptySequence(root: PrefixRoot) -> SequenceBlocks { SequenceBlocks(root: root, tableCount: tables.count) }
}

// MARK: Sequences

extension BlockPool {
    /// Blocks of a table that ``append(_:to:)`` would take, the copy of a shared last block included.
    package func blocksNeeded(adding count: Int, to sequence: SequenceBlocks, table: Int = 0) -> Int {
        guard count > 0 else { return 0 }
        let first = firstWritten(adding: count, to: sequence, table: table)
        return blocks(for: sequence.length + count) - max(first, sequence.blockCount)
            + (mustCopyLast(of: sequence, writingFrom: first, table: table) ? 1 : 0)
    }

    /// Whether ``append(_:to:)`` would succeed.
    package func hasRoom(adding count: Int, to sequence: SequenceBlocks) -> Bool {
        tables.indices.allSatisfy {
            blocksNeeded(adding: count, to: sequence, table: $0) <= references[$0].availableCount
        }
    }

    /// Makes room for `count` more positions.
    /// - Returns: the copies that must be made before they are written; `nil` if a table has too few blocks, and then nothing
    ///   has changed.
    package mutating func append(_ count: Int, to sequence: inout SequenceBlocks) -> [BlockCopy]? {
        guard hasRoom(adding: count, to: sequence) else { return nil }
        guard count > 0 else { return [] }
        var copies: [BlockCopy] = []
        let end = blocks(for: sequence.length + count)
        for table in tables.indices {
            let first = firstWritten(adding: count, to: sequence, table: table)
            if mustCopyLast(of: sequence, writingFrom: first, table: table),
                let copy = copyLast(of: &sequence, table: table)
            {
                copies.append(copy)
            }
            for place in sequence.tables[table].count..<end {
                let block = place < first ? nil : take(table)
                sequence.tables[table].append(block ?? SequenceBlocks.noBlock)
            }
        }
        sequence.length += count
        return copies
    }

    /// Lets go of what no position to come reads. Call it when what was appended has been computed and ``index(_:tokens:)``
    /// knows it.
    package mutating func releasePassed(_ sequence: inout SequenceBlocks) {
        for table in tables.indices {
            let first = firstRead(at: sequence.length, table: table)
            while sequence.firstHeld[table] < min(first, sequence.tables[table].count) {
                let place = sequence.firstHeld[table]
                releaseBlock(sequence.tables[table][place], table)
                sequence.tables[table][place] = SequenceBlocks.noBlock
                sequence.firstHeld[table] += 1
            }
        }
    }

    /// A second sequence with the same contents. Blocks are shared until one of the two writes to them.
    package mutating func fork(_ sequence: SequenceBlocks) -> SequenceBlocks {
        for (table, blocks) in sequence.tables.enumerated() {
            for block in blocks where block != SequenceBlocks.noBlock { references[table].retain(block) }
        }
        index.hold(sequence.place)
        return sequence
    }

    /// Whether everything is there that a sequence of `length` positions reads. A state is there at the sequence's end, and
    /// where a step ended with a block.
    package func canTruncate(_ sequence: SequenceBlocks, to length: Int) -> Bool {
        guard length < sequence.length else { return true }
        return tables.indices.allSatisfy { table in
            let read = sequence.tables[table][firstRead(at: length, table: table)..<blocks(for: length)]
            guard tables[table].kind == .state, let block = read.last else { return !read.contains(SequenceBlocks.noBlock) }
            return length % blockSize == 0 && block != SequenceBlocks.noBlock && index.contains(block, table: table)
        }
    }

    /// Forgets all but the first `length` positions.
    /// - Returns: whether it could: see ``canTruncate(_:to:)``.
    package mutating func truncate(_ sequence: inout SequenceBlocks, to length: Int) -> Bool {
        guard canTruncate(sequence, to: length) else { return false }
        guard length < sequence.length else { return true }
        for table in tables.indices {
            while sequence.tables[table].count > blocks(for: length) {
                releaseBlock(sequence.tables[table].removeLast(), table)
            }
            sequence.firstHeld[table] = min(sequence.firstHeld[table], sequence.tables[table].count)
        }
        sequence.length = length
        while sequence.knownBlocks > length / blockSize {
            sequence.knownBlocks -= 1
            move(&sequence, to: index.predecessor(of: sequence.place))
        }
        return true
    }

    /// Gives all blocks back. Those whose contents are known stay cached.
    package mutating func release(_ sequence: inout SequenceBlocks) {
        for table in tables.indices {
            // The last blocks first: of a chain, the end is evicted before the beginning.
            while let block = sequence.tables[table].popLast() { releaseBlock(block, table) }
        }
        index.letGo(sequence.place)
        sequence = emptySequence(root: sequence.root)
    }

    private func firstRead(at length: Int, table: Int) -> Int {
        tables[table].kind.firstRead(at: length, blockSize: blockSize)
    }

    private func firstWritten(adding count: Int, to sequence: SequenceBlocks, table: Int) -> Int {
        tables[table].kind.firstWritten(from: sequence.length, to: sequence.length + count, blockSize: blockSize)
    }

    /// Whether the last block is written to though others read it, or may find it in the index.
    private func mustCopyLast(of sequence: SequenceBlocks, writingFrom first: Int, table: Int) -> Bool {
        guard sequence.length % blockSize != 0, first < sequence.blockCount, let last = sequence.tables[table].last else {
            return false
        }
        return references[table].count(last) > 1 || index.contains(last, table: table)
    }

    private mutating func copyLast(of sequence: inout SequenceBlocks, table: Int) -> BlockCopy? {
        guard let last = sequence.tables[table].popLast(), let own = take(table) else { return nil }
        sequence.tables[table].append(own)
        if references[table].count(last) > 1 {
            releaseBlock(last, table)
        } else {
            // All copies of a step are made at once: none may write to what another reads.
            copied.append((table, last))
        }
        return BlockCopy(source: last, target: own, table: table)
    }

    /// The copies that ``append(_:to:)`` asked for have been made, or never will be.
    package mutating func finishCopies() {
        for (table, block) in copied { releaseBlock(block, table) }
        copied.removeAll(keepingCapacity: true)
    }
}

// MARK: Prefixes

extension BlockPool {
    /// The longest known beginning of a text, which ``BlockPool/adopt(_:root:)`` makes a sequence of.
    package struct KnownPrefix: Sendable {
        package fileprivate(set) var length = 0
        /// Of its full blocks.
        fileprivate var nodes: [Int32] = []
        /// Of a last block that continues otherwise.
        fileprivate var partial: Int32?
    }

    /// The longest beginning of `tokens` whose blocks are still there as far as they will be read. Never all of them: the last
    /// token is left to be computed, since its logits are wanted.
    ///
    /// Where a known block continues with some, but not all, of the tokens that follow, it is shared too, cut to those; the
    /// first write to it copies it. States cannot be cut.
    package func knownPrefix(of tokens: [Int32], root: PrefixRoot) -> KnownPrefix {
        var nodes: [Int32] = []
        var usable = 0
        var place = root.place
        // By table: the blocks without a gap before the place.
        var runs = Array(repeating: 0, count: tables.count)
        let limit = tokens.count - 1
        while (nodes.count + 1) * blockSize <= limit,
            let node = index.find(tokens[nodes.count * blockSize..<(nodes.count + 1) * blockSize], after: place)
        {
            nodes.append(node)
            place = .node(node)
            for table in runs.indices { runs[table] = index.block(of: node, table: table) == nil ? 0 : runs[table] + 1 }
            let length = nodes.count * blockSize
            guard runs.indices.allSatisfy({ tables[$0].kind != .full || runs[$0] == nodes.count }) else { break }
            if runs.indices.allSatisfy({ runs[$0] >= nodes.count - firstRead(at: length, table: $0) }) {
                usable = nodes.count
            }
        }
        var prefix = KnownPrefix(length: usable * blockSize, nodes: Array(nodes.prefix(usable)))
        guard prefix.length < limit, !hasStates else { return prefix }
        place = prefix.nodes.last.map { .node($0) } ?? root.place
        if let (node, count) = index.findBeginning(tokens[prefix.length..<limit], after: place) {
            prefix.partial = node
            prefix.length += count
        }
        return prefix
    }

    /// Whether there are blocks for a sequence of `length` positions that begins with `prefix`.
    /// - Parameters:
    ///   - chunk: the most positions that are added at once.
    ///   - spare: blocks of each table that must be left.
    package func hasRoom(for prefix: KnownPrefix, length: Int, chunk: Int, spare: Int) -> Bool {
        tables.indices.allSatisfy { table in
            let new = blocks(for: length) - prefix.nodes.count
            let needed = min(new, tables[table].kind.blocksAtOnce(adding: chunk, blockSize: blockSize) ?? new)
            let cached = adopted(prefix, table).count { references[table].count($0) == 0 }
            return needed + spare <= references[table].availableCount - cached
        }
    }

    /// A sequence that begins with `prefix`, found since the pool changed last.
    package mutating func adopt(_ prefix: KnownPrefix, root: PrefixRoot) -> SequenceBlocks {
        var sequence = emptySequence(root: root)
        for table in tables.indices {
            let blocks = adopted(prefix, table)
            for block in blocks { references[table].retain(block) }
            let first = self.blocks(for: prefix.length) - blocks.count
            sequence.tables[table] = Array(repeating: SequenceBlocks.noBlock, count: first) + blocks
            sequence.firstHeld[table] = first
        }
        sequence.length = prefix.length
        sequence.knownBlocks = prefix.nodes.count
        if let last = prefix.nodes.last { move(&sequence, to: .node(last)) }
        return sequence
    }

    /// ``knownPrefix(of:root:)``, adopted.
    package mutating func adopt(_ tokens: [Int32], root: PrefixRoot) -> SequenceBlocks {
        adopt(knownPrefix(of: tokens, root: root), root: root)
    }

    /// The blocks of a prefix that are read when it is continued.
    private func adopted(_ prefix: KnownPrefix, _ table: Int) -> [Int32] {
        let first = min(firstRead(at: prefix.length, table: table), prefix.nodes.count)
        return (prefix.nodes[first...] + (prefix.partial.map { [$0] } ?? [])).compactMap { index.block(of: $0, table: table) }
    }

    /// Makes the full blocks of a sequence known. Call it when their contents have been computed.
    /// - Parameter tokens: the sequence's tokens from its first position; at least ``SequenceBlocks/length`` of them.
    package mutating func index(_ sequence: inout SequenceBlocks, tokens: [Int32]) {
        while (sequence.knownBlocks + 1) * blockSize <= sequence.length {
            let (number, end) = (sequence.knownBlocks, (sequence.knownBlocks + 1) * blockSize)
            let content = tokens[number * blockSize..<end]
            let node = index.find(content, after: sequence.place) ?? index.insert(content, after: sequence.place)
            move(&sequence, to: .node(node))
            sequence.knownBlocks += 1
            for table in tables.indices where index.block(of: node, table: table) == nil {
                let block = sequence.tables[table][number]
                guard block != SequenceBlocks.noBlock, !index.contains(block, table: table) else { continue }
                // A state is the last step's: it is the block's only if that step ended with the block.
                guard tables[table].kind != .state || end == sequence.length else { continue }
                index.setBlock(block, of: node, table: table)
            }
        }
    }

    private mutating func move(_ sequence: inout SequenceBlocks, to place: ChainPlace) {
        index.hold(place)
        index.letGo(sequence.place)
        sequence.place = place
    }
}

// MARK: Single blocks

extension BlockPool {
    private mutating func take(_ table: Int) -> Int32? {
        guard let block = references[table].take() else { return nil }
        index.forget(block, table: table)
        return block
    }

    private mutating func releaseBlock(_ block: Int32, _ table: Int) {
        guard block != SequenceBlocks.noBlock else { return }
        references[table].release(block, isKnown: index.contains(block, table: table))
    }
}
