/// Which full blocks hold which tokens.
///
/// A block is known by its tokens and by the entry of the block before it, so that equal tokens behind different beginnings are
/// different blocks. Entries are numbered once and never again: a block that was given out anew cannot be mistaken for the old
/// one. Hashes only find candidates; tokens and entry decide.
struct PrefixIndex: Sendable {
    private let blockSize: Int
    private let hashMask: UInt64
    /// By block: its entry, 0 if it has none, and the entry it follows.
    private var entries: [UInt64]
    private var predecessors: [UInt64]
    /// By block, `blockSize` each.
    private var tokens: [Int32]
    private var blocksByHash: [UInt64: Int32] = [:]
    /// The blocks that follow an entry, for searches by less than a block.
    private var successors: [UInt64: [Int32]] = [:]
    private var nextEntry: UInt64 = 1

    init(blockCount: Int, blockSize: Int, hashMask: UInt64) {
        self.blockSize = blockSize
        self.hashMask = hashMask
        entries = Array(repeating: 0, count: blockCount)
        predecessors = Array(repeating: 0, count: blockCount)
        tokens = Array(repeating: 0, count: blockCount * blockSize)
    }

    func entry(of block: Int32) -> UInt64 { entries[Int(block)] }
    func contains(_ block: Int32) -> Bool { entries[Int(block)] != 0 }

    /// Whether a search can still come to this block: not if the block before it has been given away.
    func isReachable(_ block: Int32) -> Bool {
        contains(block) && successors[predecessors[Int(block)]]?.contains(block) == true
    }

    func find(_ content: ArraySlice<Int32>, after predecessor: UInt64) -> Int32? {
        guard let block = blocksByHash[hash(content, predecessor)], holds(block, content, predecessor) else { return nil }
        return block
    }

    /// The known block that begins with the most of `content`, at least one token, and how many those are.
    func findBeginning(_ content: ArraySlice<Int32>, after predecessor: UInt64) -> (block: Int32, count: Int)? {
        var best: (block: Int32, count: Int)?
        for block in (successors[predecessor] ?? []).prefix(16) {
            let held = held(block)
            let count = zip(held, content).prefix { $0 == $1 }.count
            if count > best?.count ?? 0 { best = (block, count) }
        }
        return best
    }

    /// - Returns: the entry of `block`.
    mutating func insert(_ block: Int32, _ content: ArraySlice<Int32>, after predecessor: UInt64) -> UInt64 {
        let entry = nextEntry
        nextEntry += 1
        entries[Int(block)] = entry
        predecessors[Int(block)] = predecessor
        for (offset, token) in content.enumerated() { tokens[Int(block) * blockSize + offset] = token }
        let hash = hash(content, predecessor)
        // Of two blocks with one hash, the first is found.
        if blocksByHash[hash] == nil { blocksByHash[hash] = block }
        successors[predecessor, default: []].append(block)
        return entry
    }

    mutating func remove(_ block: Int32) {
        guard contains(block) else { return }
        let hash = hash(held(block), predecessors[Int(block)])
        if blocksByHash[hash] == block { blocksByHash[hash] = nil }
        if var siblings = successors.removeValue(forKey: predecessors[Int(block)]) {
            siblings.removeAll { $0 == block }
            if !siblings.isEmpty { successors[predecessors[Int(block)]] = siblings }
        }
        // What follows can no longer be found.
        successors[entries[Int(block)]] = nil
        entries[Int(block)] = 0
    }

    private func held(_ block: Int32) -> ArraySlice<Int32> {
        tokens[Int(block) * blockSize..<(Int(block) + 1) * blockSize]
    }

    private func holds(_ block: Int32, _ content: ArraySlice<Int32>, _ predecessor: UInt64) -> Bool {
        predecessors[Int(block)] == predecessor && held(block).elementsEqual(content)
    }

    /// FNV-1a over the predecessor and the tokens.
    private func hash(_ content: ArraySlice<Int32>, _ predecessor: UInt64) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        hash = (hash ^ predecessor) &* 0x100_0000_01B3
        for token in content { hash = (hash ^ UInt64(UInt32(bitPattern: token))) &* 0x100_0000_01B3 }
        return hash & hashMask
    }
}
