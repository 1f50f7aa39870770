/// Maps token texts to ids and back in flat arrays, without an allocation per entry.
struct TokenTable: Sendable {
    /// Ids beyond this are refused, so that a table indexed by id stays small.
    static let maximumID = 1 << 24

    private var arena: [UInt8] = []
    /// Where the entry's text starts in `arena`; the next entry's start ends it.
    private var starts: [Int32] = [0]
    private var ids: [Int32] = []
    /// Entry of an id, −1 for none.
    private var entryOfID: [Int32] = []
    /// Open addressing by hash of the text: the hash's upper half and the entry plus one, 0 for free. The hash spares a look
    /// at most texts that differ.
    private var slots: [UInt64] = [UInt64](repeating: 0, count: 64)

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

    private static func hash(_ text: UnsafeBufferPointer<UInt8>) -> UInt64 {
        var hash = UInt64(text.count) &* 0x9E37_79B9_7F4A_7C15
        let raw = UnsafeRawBufferPointer(text)
        var index = 0
        while index + 8 <= raw.count {
            hash = (hash ^ raw.loadUnaligned(fromByteOffset: index, as: UInt64.self)) &* 0xFF51_AFD7_ED55_8CCD
            hash ^= hash >> 32
            index += 8
        }
        var rest: UInt64 = 0
        while index < raw.count {
            rest = rest << 8 | UInt64(raw[index])
            index += 1
        }
        hash = (hash ^ rest) &* 0xC4CE_B9FE_1A85_EC53
        return hash ^ hash >> 32
    }

    private mutating func rehash(_ size: Int) {
        slots = [UInt64](repeating: 0, count: size)
        for entry in 0..<ids.count {
            let hash = arena.withUnsafeBufferPointer { arena in
                Self.hash(UnsafeBufferPointer(rebasing: arena[Int(starts[entry])..<Int(starts[entry + 1])]))
            }
            place(entry, hash)
        }
    }

    private mutating func place(_ entry: Int, _ hash: UInt64) {
        var slot = Int(truncatingIfNeeded: hash) & (slots.count - 1)
        while slots[slot] != 0 { slot = (slot + 1) & (slots.count - 1) }
        slots[slot] = hash & 0xFFFF_FFFF_0000_0000 | UInt64(entry + 1)
    }

    private func entry(of text: UnsafeBufferPointer<UInt8>, _ hash: UInt64) -> Int? {
        slots.withUnsafeBufferPointer { slots in
            var slot = Int(truncatingIfNeeded: hash) & (slots.count - 1)
            while slots[slot] != 0 {
                if (slots[slot] ^ hash) >> 32 == 0 {
                    let entry = Int(truncatingIfNeeded: slots[slot] & 0xFFFF_FFFF) - 1
                    if isEqual(entry, text) { return entry }
                }
                slot = (slot + 1) & (slots.count - 1)
            }
            return nil
        }
    }

    @inline(__always)
    private func isEqual(_ entry: Int, _ text: UnsafeBufferPointer<UInt8>) -> Bool {
        let start = Int(starts[entry])
        guard Int(starts[entry + 1]) - start == text.count else { return false }
        return arena.withUnsafeBufferPointer { arena in
            for index in 0..<text.count where arena[start + index] != text[index] { return false }
            return true
        }
    }

    /// Adds `text` with `id`, which must be in `0...maximumID`; a text that is there already gets the new id as well.
    /// An id keeps the first text it was given.
    mutating func insert(_ text: UnsafeBufferPointer<UInt8>, id: Int32) {
        let position: Int
        let hash = Self.hash(text)
        if let known = entry(of: text, hash) {
            ids[known] = id
            position = known
        } else {
            if (ids.count + 1) * 2 > slots.count { rehash(slots.count * 2) }
            position = ids.count
            place(position, hash)
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

    func id(of text: UnsafeBufferPointer<UInt8>) -> Int32? { entry(of: text, Self.hash(text)).map { ids[$0] } }

    /// The id of `text`; quick if it is the one after `previous` in the order of insertion, as the results of merges often are.
    func id(of text: UnsafeBufferPointer<UInt8>, after previous: Int32) -> Int32? {
        if previous >= 0, Int(previous) < entryOfID.count {
            let next = Int(entryOfID[Int(previous)]) + 1
            if next < ids.count, isEqual(next, text) { return ids[next] }
        }
        return id(of: text)
    }

    func id(of text: [UInt8]) -> Int32? { text.withUnsafeBufferPointer { id(of: $0) } }

    func id(of text: some StringProtocol) -> Int32? { id(of: Array(text.utf8)) }

    /// The UTF-8 text of `id`, `nil` for an id that is not in the table.
    func text(of id: Int32) -> ArraySlice<UInt8>? {
        guard id >= 0, Int(id) < entryOfID.count, entryOfID[Int(id)] >= 0 else { return nil }
        let entry = Int(entryOfID[Int(id)])
        return arena[Int(starts[entry])..<Int(starts[entry + 1])]
    }
}
