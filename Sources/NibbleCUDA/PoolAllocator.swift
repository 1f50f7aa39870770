/// Hands out parts of large segments, best fit first, within a hard budget.
///
/// The driver's own allocation waits for the GPU and rounds to megabytes, so memory is taken from it in segments and never
/// given back while any part of one is in use. What a segment's size adds up to is what counts against the budget: the sum
/// never exceeds it. Addresses are only numbers here, which lets tests run without a GPU.
struct PoolAllocator {
    /// Every address and size is a multiple of this.
    static let granularity = 256
    /// Sizes below this share segments.
    static let segmentSize = 32 << 20

    /// Bytes that may be taken from the device.
    let budget: Int
    /// Bytes taken from the device.
    private(set) var reserved = 0
    /// Bytes handed out.
    private(set) var used = 0
    /// The largest ``used`` so far.
    private(set) var peak = 0

    private struct Segment {
        let size: Int
        var used: Int
    }

    private struct Hole {
        var address: UInt
        var size: Int
    }

    private var segments: [UInt: Segment] = [:]
    /// Free ranges in order of address, never adjacent within a segment.
    private var holes: [Hole] = []
    private var live: [UInt: (size: Int, segment: UInt)] = [:]

    enum Failure: Error, Equatable {
        /// The budget cannot give the size; `available` bytes could still be given out, if not in one piece.
        case exceedsBudget(available: Int)
        /// The device refused a segment.
        case deviceFull(available: Int)
    }

    init(budget: Int) { self.budget = budget }

    static func rounded(_ size: Int) -> Int { (max(size, 1) + granularity - 1) & ~(granularity - 1) }

    /// - Parameters:
    ///   - take: takes a segment from the device; `nil` when it has none of that size.
    ///   - giveBack: returns a segment to it.
    mutating func allocate(
        _ byteCount: Int, take: (Int) throws -> UInt?, giveBack: (UInt) -> Void
    ) throws -> UInt {
        guard byteCount >= 0, byteCount <= budget else { throw Failure.exceedsBudget(available: max(budget - used, 0)) }
        let size = PoolAllocator.rounded(byteCount)
        if let address = fill(size) { return address }

        if budget - reserved < size { releaseEmptySegments(giveBack) }
        let room = budget - reserved
        guard size <= room else { throw Failure.exceedsBudget(available: max(budget - used, 0)) }
        let shared = min(PoolAllocator.segmentSize, room) & ~(PoolAllocator.granularity - 1)
        for wanted in size * 2 <= shared ? [shared, size] : [size] {
            guard let address = try take(wanted) else { continue }
            segments[address] = Segment(size: wanted, used: 0)
            reserved += wanted
            insertHole(Hole(address: address, size: wanted))
            if let result = fill(size) { return result }
        }
        let hadEmpty = segments.values.contains { $0.used == 0 }
        if hadEmpty {
            releaseEmptySegments(giveBack)
            return try allocate(byteCount, take: take, giveBack: giveBack)
        }
        throw Failure.deviceFull(available: max(reserved - used, 0))
    }

    /// Takes one segment for `byteCount` bytes to come, within the budget: allocations of many sizes waste less of a single
    /// segment than of several.
    mutating func expect(_ byteCount: Int, take: (Int) throws -> UInt?) rethrows {
        let size = min(PoolAllocator.rounded(byteCount), budget - reserved) & ~(PoolAllocator.granularity - 1)
        guard size > 0, let address = try take(size) else { return }
        segments[address] = Segment(size: size, used: 0)
        reserved += size
        insertHole(Hole(address: address, size: size))
    }

    /// - Precondition: `address` came from ``allocate(_:take:giveBack:)`` and was not freed since.
    mutating func free(_ address: UInt) {
        guard let block = live.removeValue(forKey: address) else {
            preconditionFailure("address \(address) is not allocated")
        }
        used -= block.size
        segments[block.segment]?.used -= block.size
        insertHole(Hole(address: address, size: block.size))
    }

    /// Gives back every segment, used or not: for when the owner goes away.
    mutating func releaseAll(_ giveBack: (UInt) -> Void) {
        segments.keys.forEach(giveBack)
        segments = [:]
        holes = []
        live = [:]
        reserved = 0
        used = 0
    }

    // MARK: Free ranges

    /// Takes the smallest hole that is large enough.
    private mutating func fill(_ size: Int) -> UInt? {
        var best: Int?
        for index in holes.indices where holes[index].size >= size {
            if best.map({ holes[index].size < holes[$0].size }) ?? true { best = index }
        }
        guard let best else { return nil }
        let address = holes[best].address
        if holes[best].size == size {
            holes.remove(at: best)
        } else {
            holes[best].address += UInt(size)
            holes[best].size -= size
        }
        let segment = segmentHolding(address)
        segments[segment]?.used += size
        live[address] = (size, segment)
        used += size
        peak = max(peak, used)
        return address
    }

    private func segmentHolding(_ address: UInt) -> UInt {
        var best: UInt = 0
        for (start, segment) in segments where start <= address && address < start + UInt(segment.size) { best = start }
        return best
    }

    /// Joins the hole with its neighbours in the same segment.
    private mutating func insertHole(_ hole: Hole) {
        var hole = hole
        let segment = segmentHolding(hole.address)
        var place = firstHole(after: hole.address)
        if place < holes.count, holes[place].address == hole.address + UInt(hole.size),
            segmentHolding(holes[place].address) == segment
        {
            hole.size += holes[place].size
            holes.remove(at: place)
        }
        if place > 0, holes[place - 1].address + UInt(holes[place - 1].size) == hole.address,
            segmentHolding(holes[place - 1].address) == segment
        {
            place -= 1
            holes[place].size += hole.size
        } else {
            holes.insert(hole, at: place)
        }
    }

    private func firstHole(after address: UInt) -> Int {
        var low = 0
        var high = holes.count
        while low < high {
            let middle = (low + high) / 2
            if holes[middle].address < address { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private mutating func releaseEmptySegments(_ giveBack: (UInt) -> Void) {
        for (start, segment) in segments where segment.used == 0 {
            holes.removeAll { $0.address >= start && $0.address < start + UInt(segment.size) }
            segments[start] = nil
            reserved -= segment.size
            giveBack(start)
        }
    }
}
