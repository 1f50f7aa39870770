/// The physical blocks of a cache: how many sequences use each, which full blocks hold which tokens, and which are free.
///
/// A value without tensors, so that it can be tested by millions of events. A block is *used* while a sequence refers to it,
/// *cached* while nobody does but its tokens are still known, and *empty* otherwise. Cached blocks are given out again, least
/// recently used first, when no empty one is left. Every request that cannot be met is refused before anything changes.
package struct BlockPool: Sendable {
    package let blockCount: Int
    /// Positions a block holds.
    package let blockSize: Int
    var references: [Int32]
    private var empty: [Int32]
    var index: PrefixIndex
    private var unreferenced: BlockQueue

    /// - Parameter hashMask: bits of hashes that count. Tests leave few, so that hashes collide.
    package init(blockCount: Int, blockSize: Int, hashMask: UInt64 = .max) {
        self.blockCount = blockCount
        self.blockSize = blockSize
        references = Array(repeating: 0, count: blockCount)
        empty = (0..<Int32(blockCount)).reversed()
        index = PrefixIndex(blockCount: blockCount, blockSize: blockSize, hashMask: hashMask)
        unreferenced = BlockQueue(blockCount: blockCount)
    }

    /// Blocks that can be given out: empty ones and cached ones.
    package var availableCount: Int { empty.count + unreferenced.count }
    /// Blocks that sequences refer to.
    package var usedCount: Int { blockCount - availableCount }
    /// Blocks that nobody refers to and whose tokens are known.
    package var cachedCount: Int { unreferenced.count }

    /// A sequence without tokens.
    package static func emptySequence(root: PrefixRoot) -> SequenceBlocks { SequenceBlocks(root: root) }

    /// Blocks that hold `positions` positions.
    package func blocks(for positions: Int) -> Int { (positions + blockSize - 1) / blockSize }
}

// MARK: Sequences

extension BlockPool {
    /// Blocks that ``append(_:to:)`` would take, the copy of a shared last block included.
    package func blocksNeeded(adding count: Int, to sequence: SequenceBlocks) -> Int {
        guard count > 0 else { return 0 }
        return blocks(for: sequence.length + count) - sequence.blocks.count + (mustCopyLast(of: sequence) ? 1 : 0)
    }

    /// Makes room for `count` more positions.
    /// - Returns: the copy that must be made before they are written, if one must; `nil` if the pool has too few blocks, and
    ///   then nothing has changed.
    package mutating func append(_ count: Int, to sequence: inout SequenceBlocks) -> AppendResult? {
        guard blocksNeeded(adding: count, to: sequence) <= availableCount else { return nil }
        var result = AppendResult()
        if count > 0, mustCopyLast(of: sequence), let last = sequence.blocks.last, let own = take() {
            result.copy = BlockCopy(source: last, target: own)
            sequence.blocks[sequence.blocks.count - 1] = own
            releaseBlock(last)
        }
        while sequence.blocks.count < blocks(for: sequence.length + count), let block = take() {
            sequence.blocks.append(block)
        }
        sequence.length += count
        return result
    }

    package struct AppendResult: Sendable, Equatable {
        package var copy: BlockCopy?
    }

    /// A second sequence with the same contents. Blocks are shared until one of the two writes to them.
    package mutating func fork(_ sequence: SequenceBlocks) -> SequenceBlocks {
        for block in sequence.blocks { references[Int(block)] += 1 }
        return sequence
    }

    /// Forgets all but the first `length` positions.
    package mutating func truncate(_ sequence: inout SequenceBlocks, to length: Int) {
        guard length < sequence.length else { return }
        while sequence.blocks.count > blocks(for: length) { releaseBlock(sequence.blocks.removeLast()) }
        sequence.length = length
        sequence.entries.removeLast(max(sequence.entries.count - length / blockSize, 0))
    }

    /// Gives all blocks back. Full blocks whose tokens are known stay cached.
    package mutating func release(_ sequence: inout SequenceBlocks) {
        // The last blocks first: of a chain, the end is evicted before the beginning.
        while let block = sequence.blocks.popLast() { releaseBlock(block) }
        sequence = SequenceBlocks(root: sequence.root)
    }

    /// Whether the next position falls into a block that others read, or that others may find in the index.
    private func mustCopyLast(of sequence: SequenceBlocks) -> Bool {
        guard sequence.length % blockSize != 0, let last = sequence.blocks.last else { return false }
        return references[Int(last)] > 1 || index.contains(last)
    }
}

// MARK: Prefixes

extension BlockPool {
    /// A sequence that starts with the longest known beginning of `tokens`, but never with all of them: the last token is left
    /// to be computed, since its logits are wanted.
    ///
    /// Full blocks are shared. Where a known block continues with some, but not all, of the tokens that follow, it is
    /// shared too, cut to those; the first write to it copies it.
    package mutating func adopt(_ tokens: [Int32], root: PrefixRoot) -> SequenceBlocks {
        let sequence = knownPrefix(of: tokens, root: root)
        for block in sequence.blocks { retain(block) }
        return sequence
    }

    /// Tokens that ``adopt(_:root:)`` would find, and how many of the blocks that hold them are cached rather than used: those
    /// count against ``availableCount``.
    package func prefixLength(of tokens: [Int32], root: PrefixRoot) -> (tokens: Int, cachedBlocks: Int) {
        let prefix = knownPrefix(of: tokens, root: root)
        return (prefix.length, prefix.blocks.count { references[Int($0)] == 0 })
    }

    private func knownPrefix(of tokens: [Int32], root: PrefixRoot) -> SequenceBlocks {
        var sequence = SequenceBlocks(root: root)
        let limit = tokens.count - 1
        while sequence.length + blockSize <= limit,
            let block = index.find(tokens[sequence.length..<sequence.length + blockSize], after: sequence.lastEntry)
        {
            sequence.blocks.append(block)
            sequence.length += blockSize
            sequence.entries.append(index.entry(of: block))
        }
        guard sequence.length < limit else { return sequence }
        if let (block, count) = index.findBeginning(tokens[sequence.length..<limit], after: sequence.lastEntry) {
            sequence.blocks.append(block)
            sequence.length += count
        }
        return sequence
    }

    /// Makes the full blocks of a sequence known. Call it when their keys and values have been computed.
    /// - Parameter tokens: the sequence's tokens from its first position; at least ``SequenceBlocks/length`` of them.
    package mutating func index(_ sequence: inout SequenceBlocks, tokens: [Int32]) {
        while (sequence.entries.count + 1) * blockSize <= sequence.length {
            let place = sequence.entries.count
            let content = tokens[place * blockSize..<(place + 1) * blockSize]
            if let known = index.find(content, after: sequence.lastEntry) {
                sequence.entries.append(index.entry(of: known))
            } else {
                sequence.entries.append(index.insert(sequence.blocks[place], content, after: sequence.lastEntry))
            }
        }
    }
}

// MARK: Single blocks

extension BlockPool {
    private mutating func take() -> Int32? {
        if let block = empty.popLast() {
            references[Int(block)] = 1
            return block
        }
        guard let block = unreferenced.popFirst() else { return nil }
        index.remove(block)
        references[Int(block)] = 1
        return block
    }

    private mutating func retain(_ block: Int32) {
        if references[Int(block)] == 0 { unreferenced.remove(block) }
        references[Int(block)] += 1
    }

    private mutating func releaseBlock(_ block: Int32) {
        references[Int(block)] -= 1
        guard references[Int(block)] == 0 else { return }
        if index.isReachable(block) {
            unreferenced.append(block)
        } else {
            index.remove(block)
            empty.append(block)
        }
    }
}
