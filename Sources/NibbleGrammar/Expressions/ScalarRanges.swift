/// A set of Unicode scalars as sorted ranges that neither touch nor overlap; surrogates are never in it.
struct ScalarRanges: Hashable, Sendable {
    private(set) var ranges: [ClosedRange<UInt32>]

    static let all = ScalarRanges([0...0x10FFFF])

    init(_ ranges: [ClosedRange<UInt32>]) {
        let scalars = ranges.flatMap(Self.withoutSurrogates).sorted { $0.lowerBound < $1.lowerBound }
        var joined: [ClosedRange<UInt32>] = []
        for range in scalars {
            if let last = joined.last, range.lowerBound <= last.upperBound + 1, !(last.upperBound == 0xD7FF) {
                joined[joined.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
            } else {
                joined.append(range)
            }
        }
        self.ranges = joined
    }

    init(_ scalar: Unicode.Scalar) { self.init([scalar.value...scalar.value]) }

    private static func withoutSurrogates(_ range: ClosedRange<UInt32>) -> [ClosedRange<UInt32>] {
        var parts: [ClosedRange<UInt32>] = []
        if range.lowerBound < 0xD800 { parts.append(range.lowerBound...min(range.upperBound, 0xD7FF)) }
        if range.upperBound > 0xDFFF { parts.append(max(range.lowerBound, 0xE000)...range.upperBound) }
        return parts
    }

    var isEmpty: Bool { ranges.isEmpty }
    /// The scalar of a set of one.
    var only: UInt32? { ranges.count == 1 && ranges[0].count == 1 ? ranges[0].lowerBound : nil }

    func union(_ other: ScalarRanges) -> ScalarRanges { ScalarRanges(ranges + other.ranges) }

    var complement: ScalarRanges {
        var parts: [ClosedRange<UInt32>] = []
        var next: UInt32 = 0
        for range in ranges {
            if range.lowerBound > next { parts.append(next...range.lowerBound - 1) }
            next = range.upperBound + 1
        }
        if next <= 0x10FFFF { parts.append(next...0x10FFFF) }
        return ScalarRanges(parts)
    }

    func intersection(_ range: ClosedRange<UInt32>) -> [ClosedRange<UInt32>] {
        ranges.compactMap { part in
            let low = max(part.lowerBound, range.lowerBound)
            let high = min(part.upperBound, range.upperBound)
            return low <= high ? low...high : nil
        }
    }
}

// MARK: - As bytes

extension ExpressionPool {
    /// The scalars in UTF-8.
    mutating func utf8(_ set: ScalarRanges) -> Expression {
        var parts: [Expression] = []
        for range in set.ranges {
            for (low, high) in [(0, 0x7F), (0x80, 0x7FF), (0x800, 0xFFFF), (0x10000, 0x10FFFF)] as [(UInt32, UInt32)] {
                let (first, last) = (max(range.lowerBound, low), min(range.upperBound, high))
                guard first <= last, let a = Unicode.Scalar(first), let b = Unicode.Scalar(last) else { continue }
                parts.append(between(Array(UTF8.encode(a)!), Array(UTF8.encode(b)!), lowest: 0x80, highest: 0xBF))
            }
        }
        return either(parts)
    }

    /// Texts of equally many bytes from `low` to `high` in the order of bytes; those behind the first run from `lowest` to `highest`.
    mutating func between(_ low: [UInt8], _ high: [UInt8], lowest: UInt8, highest: UInt8) -> Expression {
        guard let first = low.first, let last = high.first else { return Self.empty }
        let (restLow, restHigh) = (Array(low.dropFirst()), Array(high.dropFirst()))
        let free = repetition(range(lowest...highest), restLow.count, restLow.count)
        if first == last {
            return sequence(byte(first), between(restLow, restHigh, lowest: lowest, highest: highest))
        }
        let top = [UInt8](repeating: highest, count: restLow.count)
        let bottom = [UInt8](repeating: lowest, count: restLow.count)
        var parts: [Expression] = []
        var (start, end) = (first, last)
        if restLow != bottom {
            parts.append(sequence(byte(first), between(restLow, top, lowest: lowest, highest: highest)))
            start += 1
        }
        if restHigh != top {
            parts.append(sequence(byte(last), between(bottom, restHigh, lowest: lowest, highest: highest)))
            end -= 1
        }
        if start <= end { parts.append(sequence(range(start...end), free)) }
        return either(parts)
    }
}
