/// The physical blocks of one table: how many sequences use each, and which can be given out.
///
/// A block is *used* while a sequence refers to it, *cached* while nobody does but its contents are known, and *empty*
/// otherwise.
struct BlockReferences: Sendable {
    private var counts: [Int32]
    private var empty: [Int32]
    private var cached: BlockQueue

    init(blockCount: Int) {
        counts = Array(repeating: 0, count: blockCount)
        empty = (0..<Int32(blockCount)).reversed()
        cached = BlockQueue(blockCount: blockCount)
    }

    var availableCount: Int { empty.count + cached.count }
    var cachedCount: Int { cached.count }

    func count(_ block: Int32) -> Int32 { counts[Int(block)] }

    /// An empty block, or else the cached one that was used least recently, whose old contents are to be forgotten.
    mutating func take() -> Int32? {
        guard let block = empty.popLast() ?? cached.popFirst() else { return nil }
        counts[Int(block)] = 1
        return block
    }

    mutating func retain(_ block: Int32) {
        if counts[Int(block)] == 0 { cached.remove(block) }
        counts[Int(block)] += 1
    }

    mutating func release(_ block: Int32, isKnown: Bool) {
        counts[Int(block)] -= 1
        guard counts[Int(block)] == 0 else { return }
        if isKnown { cached.append(block) } else { empty.append(block) }
    }
}
