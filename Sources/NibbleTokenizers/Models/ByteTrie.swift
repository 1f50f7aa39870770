/// A set of byte strings with values, searched from a place in a text. Edges live in one open-addressed table.
struct ByteTrie: Sendable {
    private static let empty = UInt64.max

    private var keys = [UInt64](repeating: ByteTrie.empty, count: 1024)
    private var children = [Int32](repeating: 0, count: 1024)
    /// The value at a node, −1 for none. Node 0 is the root.
    private var values: [Int32] = [-1]
    /// The root's edges, 0 for none.
    private var first = [Int32](repeating: 0, count: 256)

    var isEmpty: Bool { values.count == 1 }

    @inline(__always)
    private func slot(_ key: UInt64) -> Int {
        let mixed = key &* 0x9E37_79B9_7F4A_7C15
        return Int(truncatingIfNeeded: (mixed ^ mixed >> 32) & UInt64(keys.count - 1))
    }

    @inline(__always)
    private func child(_ node: Int32, _ byte: UInt8) -> Int32 {
        if node == 0 { return first[Int(byte)] }
        let key = UInt64(node) << 8 | UInt64(byte)
        var index = slot(key)
        while keys[index] != Self.empty {
            if keys[index] == key { return children[index] }
            index = (index + 1) & (keys.count - 1)
        }
        return 0
    }

    /// Adds `text`; an equal text takes the new value. An empty text is left out.
    mutating func insert(_ text: some Sequence<UInt8>, value: Int32) {
        var node: Int32 = 0
        for byte in text {
            var next = child(node, byte)
            if next == 0 {
                next = Int32(truncatingIfNeeded: values.count)
                values.append(-1)
                add(node, byte, next)
            }
            node = next
        }
        if node != 0 { values[Int(node)] = value }
    }

    private mutating func add(_ node: Int32, _ byte: UInt8, _ child: Int32) {
        if node == 0 {
            first[Int(byte)] = child
            return
        }
        if values.count * 2 > keys.count { grow() }
        put(UInt64(node) << 8 | UInt64(byte), child)
    }

    private mutating func put(_ key: UInt64, _ child: Int32) {
        var index = slot(key)
        while keys[index] != Self.empty { index = (index + 1) & (keys.count - 1) }
        keys[index] = key
        children[index] = child
    }

    private mutating func grow() {
        let old = (keys, children)
        keys = [UInt64](repeating: Self.empty, count: old.0.count * 2)
        children = [Int32](repeating: 0, count: old.0.count * 2)
        for (key, child) in zip(old.0, old.1) where key != Self.empty { put(key, child) }
    }

    /// Calls `body` with the end and the value of every entry that `text` holds at `start`, shortest first.
    @inline(__always)
    func forEachPrefix(of text: UnsafeBufferPointer<UInt8>, from start: Int, _ body: (Int, Int32) -> Void) {
        var node: Int32 = 0
        var index = start
        while index < text.count {
            node = child(node, text[index])
            if node == 0 { return }
            index += 1
            let value = values[Int(node)]
            if value >= 0 { body(index, value) }
        }
    }

    /// The longest entry that `text` holds at `start`.
    @inline(__always)
    func longestPrefix(of text: UnsafeBufferPointer<UInt8>, from start: Int) -> (end: Int, value: Int32)? {
        guard first[Int(text[start])] != 0 else { return nil }
        var found: (Int, Int32)?
        forEachPrefix(of: text, from: start) { found = ($0, $1) }
        return found
    }
}
