/// Token texts and ids, both ways, in flat arrays: a vocabulary of 256,000 entries takes no allocation an entry.
struct TokenTable: Sendable {
    /// Ids beyond this are refused, so that a table indexed by id stays small.
    static let maximumID = 1 << 24

    private var arena: [UInt8] = []
    /// Where the entry's text starts in `arena`; the next entry's start ends it.
    private var starts: [Int32] = [0]
    private var ids: [Int32] = []
    /// Entry of an id, −1 for none.
    private var entryOfID: [Int32] = []
    /// Open addressing by hash of the text; entry or −1.
    private var slots: [Int32] = [Int32](repeating: -1, count: 64)

    init() {}

    init(capacity: Int) { reserve(capacity) }

    /// Number of distinct texts.
    var count: Int { ids.count }
    /// One more than the largest id.
    var idLimit: Int { entryOfID.count }

    mutating func reserve(_ capacity: Int) {
        ids.reserveCapacity(capacity)
        starts.reserveCapacity(capacity + 1)
        entryOfID.reserveCapacity(capacity)
        arena.reserveCapacity(capacity * 8)
        var size = 64
        while size < capacity * 2 { size *= 2 }
        if size > slots.count { rehash(size) }
    }

    private static func hash(_ text: UnsafeBufferPointer<UInt8>) -> Int {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in text { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return Int(truncatingIfNeeded: (hash ^ hash >> 29) & 0x7FFF_FFFF_FFFF_FFFF)
    }

    private mutating func rehash(_ size: Int) {
        slots = [Int32](repeating: -1, count: size)
        for entry in 0..<ids.count {
            let slot = arena.withUnsafeBufferPointer { arena in
                freeSlot(Self.hash(UnsafeBufferPointer(rebasing: arena[Int(starts[entry])..<Int(starts[entry + 1])])))
            }
            slots[slot] = Int32(entry)
        }
    }

    private func freeSlot(_ hash: Int) -> Int {
        var slot = hash & (slots.count - 1)
        while slots[slot] >= 0 { slot = (slot + 1) & (slots.count - 1) }
        return slot
    }

    private func entry(of text: UnsafeBufferPointer<UInt8>) -> Int? {
        var slot = Self.hash(text) & (slots.count - 1)
        while slots[slot] >= 0 {
            let entry = Int(slots[slot])
            let start = Int(starts[entry])
            let length = Int(starts[entry + 1]) - start
            if length == text.count, isEqual(at: start, text) { return entry }
            slot = (slot + 1) & (slots.count - 1)
        }
        return nil
    }

    @inline(__always)
    private func isEqual(at start: Int, _ text: UnsafeBufferPointer<UInt8>) -> Bool {
        arena.withUnsafeBufferPointer { arena in
            for index in 0..<text.count where arena[start + index] != text[index] { return false }
            return true
        }
    }

    /// Adds `text` with `id`, which must be in `0...maximumID`; a text that is there already gets the new id as well.
    /// An id keeps the first text it was given.
    mutating func insert(_ text: UnsafeBufferPointer<UInt8>, id: Int32) {
        let position: Int
        if let known = entry(of: text) {
            ids[known] = id
            position = known
        } else {
            if (ids.count + 1) * 2 > slots.count { rehash(slots.count * 2) }
            position = ids.count
            slots[freeSlot(Self.hash(text))] = Int32(position)
            ids.append(id)
            arena.append(contentsOf: text)
            starts.append(Int32(truncatingIfNeeded: arena.count))
        }
        while entryOfID.count <= Int(id) { entryOfID.append(-1) }
        if entryOfID[Int(id)] < 0 { entryOfID[Int(id)] = Int32(position) }
    }

    mutating func insert(_ text: some Collection<UInt8>, id: Int32) {
        Array(text).withUnsafeBufferPointer { insert($0, id: id) }
    }

    func id(of text: UnsafeBufferPointer<UInt8>) -> Int32? { entry(of: text).map { ids[$0] } }

    func id(of text: [UInt8]) -> Int32? { text.withUnsafeBufferPointer { id(of: $0) } }

    func id(of text: some StringProtocol) -> Int32? { id(of: Array(text.utf8)) }

    /// The UTF-8 text of `id`, `nil` for an id that is not in the table.
    func text(of id: Int32) -> ArraySlice<UInt8>? {
        guard id >= 0, Int(id) < entryOfID.count, entryOfID[Int(id)] >= 0 else { return nil }
        let entry = Int(entryOfID[Int(id)])
        return arena[Int(starts[entry])..<Int(starts[entry + 1])]
    }
}
