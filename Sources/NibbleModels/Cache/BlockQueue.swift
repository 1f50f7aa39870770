/// Blocks in the order in which they were appended; any of them can be taken out in constant time.
struct BlockQueue: Sendable {
    private var next: [Int32]
    private var previous: [Int32]
    /// The place before the first and behind the last: links form a ring through it.
    private let end: Int32
    private(set) var count = 0

    init(blockCount: Int) {
        end = Int32(blockCount)
        next = Array(repeating: end, count: blockCount + 1)
        previous = Array(repeating: end, count: blockCount + 1)
    }

    mutating func append(_ block: Int32) {
        let last = previous[Int(end)]
        next[Int(last)] = block
        previous[Int(block)] = last
        next[Int(block)] = end
        previous[Int(end)] = block
        count += 1
    }

    mutating func remove(_ block: Int32) {
        next[Int(previous[Int(block)])] = next[Int(block)]
        previous[Int(next[Int(block)])] = previous[Int(block)]
        count -= 1
    }

    mutating func popFirst() -> Int32? {
        guard count > 0 else { return nil }
        let first = next[Int(end)]
        remove(first)
        return first
    }
}
