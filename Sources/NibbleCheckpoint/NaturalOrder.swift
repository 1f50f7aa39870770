/// The order in which parameters are listed and loaded: `h.2.x` before `h.10.x`.
public enum NaturalOrder {
    /// Compares dot-separated parts from left to right. A part of digits alone is a number; numbers come before words; a
    /// name comes before its extensions.
    public static func precedes(_ a: String, _ b: String) -> Bool {
        var (x, y) = (Array(a.utf8)[...], Array(b.utf8)[...])
        while true {
            let (partX, partY) = (takePart(&x), takePart(&y))
            switch (partX, partY) {
            case (nil, nil): return a.utf8.lexicographicallyPrecedes(b.utf8)
            case (nil, _): return true
            case (_, nil): return false
            case (let p?, let q?):
                let order = compare(p, q)
                if order != 0 { return order < 0 }
            }
        }
    }

    private static func takePart(_ rest: inout ArraySlice<UInt8>) -> ArraySlice<UInt8>? {
        guard rest.startIndex <= rest.endIndex, !rest.isEmpty else { return nil }
        let dot = rest.firstIndex(of: UInt8(ascii: ".")) ?? rest.endIndex
        defer { rest = rest[min(dot + 1, rest.endIndex)...] }
        return rest[rest.startIndex..<dot]
    }

    /// Negative, zero or positive.
    private static func compare(_ p: ArraySlice<UInt8>, _ q: ArraySlice<UInt8>) -> Int {
        switch (isNumber(p), isNumber(q)) {
        case (true, false): return -1
        case (false, true): return 1
        case (true, true):
            // Of two numbers without leading zeros the longer is the larger; no conversion can overflow.
            let (m, n) = (p.drop { $0 == UInt8(ascii: "0") }, q.drop { $0 == UInt8(ascii: "0") })
            return m.count != n.count ? m.count - n.count : lexicographic(m, n)
        case (false, false): return lexicographic(p, q)
        }
    }

    private static func lexicographic(_ p: ArraySlice<UInt8>, _ q: ArraySlice<UInt8>) -> Int {
        if p.elementsEqual(q) { return 0 }
        return p.lexicographicallyPrecedes(q) ? -1 : 1
    }

    private static func isNumber(_ part: ArraySlice<UInt8>) -> Bool {
        !part.isEmpty && part.allSatisfy { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
    }
}
