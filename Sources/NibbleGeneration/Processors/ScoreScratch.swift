/// Working memory for scores of one vocabulary, reused from step to step.
package final class ScoreScratch {
    /// V numbers.
    var floats: [Float]
    var masses = [Double](repeating: 0, count: 2048)
    var selection = TopSelection(limit: 0)
    private var stamps: [UInt32]
    private var epoch: UInt32 = 0

    package init(vocabularySize: Int) {
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

    /// The k-th largest of `scores`, 1 ≤ k ≤ count; NaN counts as −∞.
    func largest(_ k: Int, of scores: UnsafeMutableBufferPointer<Float>) -> Float {
        guard k > 1 else { return scores.maximum }
        selection.reset(limit: k)
        selection.insert(contentsOf: scores)
        return selection.worst?.score ?? -.infinity
    }
}

/// Keeps the `limit` best of the inserted numbers: the larger, among equals the one of lower index. NaN counts as −∞.
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

    /// Inserts all numbers of a row under their indices.
    mutating func insert(contentsOf scores: UnsafeMutableBufferPointer<Float>) {
        // Among equals the earlier index wins, so a full heap rejects most numbers by one comparison.
        var bound = entries.count == limit ? worst?.score : nil
        for index in scores.indices {
            if let bound, !(scores[index] > bound) { continue }
            insert(scores[index], index)
            bound = entries.count == limit ? worst?.score : nil
        }
    }

    var worst: Entry? { entries.first }

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
