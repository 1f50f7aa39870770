/// The order in which parameters are listed and loaded: `h.2.x` before `h.10.x`.
package enum NaturalOrder {
    /// Compares dot-separated parts from left to right. A part of digits is a number; numbers come before words; a name
    /// comes before the names that it is a prefix of.
    package static func precedes(_ a: String, _ b: String) -> Bool {
        var (a, b) = (a, b)
        return a.withUTF8 { x in b.withUTF8 { y in precedes(x, y) } }
    }

    private typealias Bytes = UnsafeBufferPointer<UInt8>

    private static func precedes(_ a: Bytes, _ b: Bytes) -> Bool {
        var (i, j) = (0, 0)
        while i < a.count, j < b.count {
            let (endA, endB) = (endOfPart(a, from: i), endOfPart(b, from: j))
            let order = compare(a[i..<endA], b[j..<endB])
            if order != 0 { return order < 0 }
            (i, j) = (endA + 1, endB + 1)
        }
        if i < a.count || j < b.count { return i >= a.count }
        return a.lexicographicallyPrecedes(b)
    }

    private static func endOfPart(_ text: Bytes, from start: Int) -> Int {
        var end = start
        while end < text.count, text[end] != UInt8(ascii: ".") { end += 1 }
        return end
    }

    /// Negative, zero or positive.
    private static func compare(_ p: Slice<Bytes>, _ q: Slice<Bytes>) -> Int {
        switch (isNumber(p), isNumber(q)) {
        case (true, false): return -1
        case (false, true): return 1
        case (true, true):
            // Compared as digits, because a number may be too large for any integer type.
            let (m, n) = (p.drop { $0 == UInt8(ascii: "0") }, q.drop { $0 == UInt8(ascii: "0") })
            return m.count != n.count ? m.count - n.count : lexicographic(m, n)
        case (false, false): return lexicographic(p, q)
        }
    }

    private static func lexicographic(_ p: Slice<Bytes>, _ q: Slice<Bytes>) -> Int {
        for (x, y) in zip(p, q) where x != y { return x < y ? -1 : 1 }
        return p.count - q.count
    }

    private static func isNumber(_ part: Slice<Bytes>) -> Bool {
        !part.isEmpty && part.allSatisfy { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
    }
}
