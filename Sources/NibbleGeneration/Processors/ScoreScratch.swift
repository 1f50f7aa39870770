/// Working memory for scores of one vocabulary, reused from step to step.
public final class ScoreScratch {
    /// V numbers.
    var floats: [Float]
    var indices: [Int32] = []
    var histogram = [Int](repeating: 0, count: 2048)
    var masses = [Double](repeating: 0, count: 2048)
    var selection = TopSelection(limit: 0)
    private var stamps: [UInt32]
    private var epoch: UInt32 = 0

    public init(vocabularySize: Int) {
        floats = [Float](repeating: 0, count: vocabularySize)
        stamps = [UInt32](repeating: 0, count: vocabularySize)
    }

    /// Calls `body` once for each distinct token of `ids` that lies in the vocabulary.
    func forEachDistinct(_ ids: some Sequence<Int32>, _ body: (Int) -> Void) {
        epoch &+= 1
        if epoch == 0 {
            for index in stamps.indices { stamps[index] = 0 }
            epoch = 1
        }
        for id in ids {
            let token = Int(id)
            guard stamps.indices.contains(token), stamps[token] != epoch else { continue }
            stamps[token] = epoch
            body(token)
        }
    }

    /// The k-th largest of `scores`, 1 ≤ k ≤ count. Linear time whatever the values; NaN counts by its bits.
    func largest(_ k: Int, of scores: UnsafeMutableBufferPointer<Float>) -> Float {
        var prefix: UInt32 = 0
        var mask: UInt32 = 0
        var remaining = k
        for (shift, bits) in [(21, 11), (10, 11), (0, 10)] {
            let size = 1 << bits
            for bucket in 0..<size { histogram[bucket] = 0 }
            for score in scores {
                let key = score.orderedBits
                if key & mask == prefix { histogram[Int(key >> UInt32(shift)) & (size - 1)] += 1 }
            }
            var bucket = size - 1
            while bucket > 0, histogram[bucket] < remaining {
                remaining -= histogram[bucket]
                bucket -= 1
            }
            prefix |= UInt32(bucket) << UInt32(shift)
            mask |= UInt32(size - 1) << UInt32(shift)
        }
        return Float(orderedBits: prefix)
    }
}

extension Float {
    /// Bits that are ordered as the numbers are.
    var orderedBits: UInt32 {
        let bits = bitPattern
        return bits & 0x8000_0000 != 0 ? ~bits : bits | 0x8000_0000
    }

    init(orderedBits bits: UInt32) {
        self.init(bitPattern: bits & 0x8000_0000 != 0 ? bits & 0x7FFF_FFFF : ~bits)
    }
}

/// Keeps the `limit` best of the numbers it is shown: larger first, among equals the lower index. NaN counts as −∞.
struct TopSelection {
    struct Entry {
        var score: Float
        var index: Int

        func isBetter(than other: Entry) -> Bool {
            score > other.score || (score == other.score && index < other.index)
        }
    }

    /// A heap whose root is the worst entry.
    private(set) var entries: [Entry] = []
    private var limit: Int

    init(limit: Int) { self.limit = limit }

    mutating func reset(limit: Int) {
        self.limit = limit
        entries.removeAll(keepingCapacity: true)
    }

    mutating func insert(_ score: Float, _ index: Int) {
        let entry = Entry(score: score.isNaN ? -.infinity : score, index: index)
        if entries.count < limit {
            entries.append(entry)
            siftUp(entries.count - 1)
        } else if limit > 0, entry.isBetter(than: entries[0]) {
            entries[0] = entry
            siftDown()
        }
    }

    /// Sorts the entries, best first. Nothing may be inserted afterwards.
    mutating func finish() { entries.sort { $0.isBetter(than: $1) } }

    private mutating func siftUp(_ start: Int) {
        var child = start
        while child > 0 {
            let parent = (child - 1) / 2
            guard entries[parent].isBetter(than: entries[child]) else { return }
            entries.swapAt(parent, child)
            child = parent
        }
    }

    private mutating func siftDown() {
        var parent = 0
        while true {
            var worst = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < entries.count {
                if entries[worst].isBetter(than: entries[child]) { worst = child }
            }
            guard worst != parent else { return }
            entries.swapAt(parent, worst)
            parent = worst
        }
    }
}
