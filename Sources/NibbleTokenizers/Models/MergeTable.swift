/// Ranks and results of the merges, by pair of ids, in one open-addressed table.
struct MergeTable: Sendable {
    struct Merge {
        var rank: Int32
        var result: Int32
    }

    private static let empty = UInt64.max

    private struct Slot {
        var key = MergeTable.empty
        var merge = Merge(rank: 0, result: 0)
    }

    private var slots: [Slot]
    private(set) var count = 0

    init(capacity: Int = 0) {
        var size = 16
        while size < capacity * 2 { size *= 2 }
        slots = [Slot](repeating: Slot(), count: size)
    }

    @inline(__always)
    private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    }

    @inline(__always)
    private static func place(_ key: UInt64, _ count: Int) -> Int {
        let mixed = key &* 0x9E37_79B9_7F4A_7C15
        return Int(truncatingIfNeeded: (mixed ^ mixed >> 32) & UInt64(count - 1))
    }

    /// Adds a merge; a pair that is there already takes the new rank.
    mutating func insert(_ left: Int32, _ right: Int32, _ merge: Merge) {
        if (count + 1) * 2 > slots.count { grow() }
        let key = Self.key(left, right)
        var index = Self.place(key, slots.count)
        while slots[index].key != Self.empty, slots[index].key != key { index = (index + 1) & (slots.count - 1) }
        if slots[index].key == Self.empty { count += 1 }
        slots[index] = Slot(key: key, merge: merge)
    }

    private mutating func grow() {
        let old = slots
        slots = [Slot](repeating: Slot(), count: old.count * 2)
        for slot in old where slot.key != Self.empty {
            var index = Self.place(slot.key, slots.count)
            while slots[index].key != Self.empty { index = (index + 1) & (slots.count - 1) }
            slots[index] = slot
        }
    }

    @inline(__always)
    func find(_ left: Int32, _ right: Int32) -> Merge? {
        let key = Self.key(left, right)
        return slots.withUnsafeBufferPointer { slots in
            var index = Self.place(key, slots.count)
            while slots[index].key != Self.empty {
                if slots[index].key == key { return slots[index].merge }
                index = (index + 1) & (slots.count - 1)
            }
            return nil
        }
    }

    /// All pairs of ids that merge.
    var pairs: some Sequence<(left: Int32, right: Int32)> {
        slots.lazy.filter { $0.key != Self.empty }.map {
            (Int32(bitPattern: UInt32($0.key >> 32)), Int32(bitPattern: UInt32($0.key & 0xFFFF_FFFF)))
        }
    }
}

// MARK: - Merging

extension MergeTable {
    /// Words of at most this many units are merged by scanning, longer ones with a queue.
    static let scanLimit = 48

    /// Merges `pieces[start...]` in place: lowest rank first, leftmost among equals.
    func merge(_ pieces: inout [ModelPiece], from start: Int) {
        guard pieces.count - start > 1, count > 0 else { return }
        if pieces.count - start <= Self.scanLimit {
            mergeByScanning(&pieces, start)
        } else {
            mergeByQueue(&pieces, start)
        }
    }

    private func mergeByScanning(_ pieces: inout [ModelPiece], _ start: Int) {
        withUnsafeTemporaryAllocation(of: Merge.self, capacity: pieces.count - start) { merges in
            var count = pieces.count - start
            let none = Merge(rank: .max, result: -1)
            for index in 0..<(count - 1) {
                merges[index] = find(pieces[start + index].id, pieces[start + index + 1].id) ?? none
            }
            while count > 1 {
                var best = 0
                for index in 1..<max(count - 1, 1) where merges[index].rank < merges[best].rank { best = index }
                guard merges[best].result >= 0 else { break }
                let at = start + best
                pieces[at].id = merges[best].result
                pieces[at].length += pieces[at + 1].length
                for index in (at + 1)..<(start + count - 1) { pieces[index] = pieces[index + 1] }
                count -= 1
                for index in (best + 1)..<max(count - 1, best + 1) { merges[index] = merges[index + 1] }
                if best > 0 { merges[best - 1] = find(pieces[at - 1].id, pieces[at].id) ?? none }
                if best < count - 1 { merges[best] = find(pieces[at].id, pieces[at + 1].id) ?? none }
            }
            pieces.removeSubrange((start + count)...)
        }
    }

    private struct Candidate: Comparable {
        var rank: Int32
        var position: Int32
        var result: Int32

        static func < (a: Candidate, b: Candidate) -> Bool { a.rank != b.rank ? a.rank < b.rank : a.position < b.position }
    }

    private func mergeByQueue(_ pieces: inout [ModelPiece], _ start: Int) {
        let count = pieces.count - start
        var next = (1...count).map { Int32(truncatingIfNeeded: $0) }
        var previous = (-1..<(count - 1)).map { Int32(truncatingIfNeeded: $0) }
        var queue = MinimumHeap<Candidate>()
        func push(_ left: Int, _ right: Int) {
            guard let merge = find(pieces[start + left].id, pieces[start + right].id) else { return }
            queue.push(Candidate(rank: merge.rank, position: Int32(truncatingIfNeeded: left), result: merge.result))
        }
        for index in 0..<(count - 1) { push(index, index + 1) }
        while let top = queue.pop() {
            let left = Int(top.position)
            guard pieces[start + left].id >= 0 else { continue }
            let right = Int(next[left])
            guard right < count, let merge = find(pieces[start + left].id, pieces[start + right].id), merge.result == top.result
            else { continue }
            pieces[start + left].id = merge.result
            pieces[start + left].length += pieces[start + right].length
            pieces[start + right].id = -1
            let after = Int(next[right])
            next[left] = Int32(truncatingIfNeeded: after)
            if after < count {
                previous[after] = Int32(truncatingIfNeeded: left)
                push(left, after)
            }
            if previous[left] >= 0 { push(Int(previous[left]), left) }
        }
        var kept = start
        for index in start..<pieces.count where pieces[index].id >= 0 {
            pieces[kept] = pieces[index]
            kept += 1
        }
        pieces.removeSubrange(kept...)
    }
}

/// A binary heap that gives the smallest element first.
struct MinimumHeap<Element: Comparable> {
    private var elements: [Element] = []

    mutating func push(_ element: Element) {
        elements.append(element)
        var child = elements.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard elements[child] < elements[parent] else { break }
            elements.swapAt(child, parent)
            child = parent
        }
    }

    mutating func pop() -> Element? {
        guard let top = elements.first else { return nil }
        let last = elements.removeLast()
        guard !elements.isEmpty else { return top }
        elements[0] = last
        var parent = 0
        while true {
            var child = 2 * parent + 1
            guard child < elements.count else { break }
            if child + 1 < elements.count, elements[child + 1] < elements[child] { child += 1 }
            guard elements[child] < elements[parent] else { break }
            elements.swapAt(child, parent)
            parent = child
        }
        return top
    }
}
