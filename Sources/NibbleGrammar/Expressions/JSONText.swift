/// How texts are written within JSON strings.
///
/// A character has few spellings: itself where JSON allows that, its short escape, and `\uXXXX` where it is not printable
/// ASCII. Printable ASCII is never written as `\uXXXX`, so that keys can be told apart by their spelling.
struct JSONText: Sendable {
    private var characters: [ScalarRanges: Expression] = [:]

    /// One character of the set.
    mutating func character(_ set: ScalarRanges, _ pool: inout ExpressionPool) -> Expression {
        if let known = characters[set] { return known }
        var parts = [pool.utf8(ScalarRanges(set.intersection(0x20...0x10FFFF).flatMap(Self.withoutQuoteAndBackslash)))]
        for range in set.intersection(0...0x7F) {
            for value in range { parts += Self.escapes(of: UInt8(value), &pool) }
        }
        for range in set.intersection(0x80...0xFFFF) { parts.append(hexEscape(range, &pool)) }
        for range in set.intersection(0x10000...0x10FFFF) { parts.append(surrogatePair(range, &pool)) }
        let result = pool.either(parts)
        characters[set] = result
        return result
    }

    /// Any character.
    mutating func any(_ pool: inout ExpressionPool) -> Expression { character(.all, &pool) }

    /// A string with this content, quotes included.
    mutating func literal(_ text: String, _ pool: inout ExpressionPool) -> Expression {
        let quote = pool.byte(0x22)
        return pool.sequence([quote, content(text, &pool), quote])
    }

    /// A string's content, without quotes.
    mutating func content(_ text: String, _ pool: inout ExpressionPool) -> Expression {
        pool.sequence(text.unicodeScalars.map { character(ScalarRanges($0), &pool) })
    }

    private static func withoutQuoteAndBackslash(_ range: ClosedRange<UInt32>) -> [ClosedRange<UInt32>] {
        let excluded = ScalarRanges([0x22...0x22, 0x5C...0x5C]).complement
        return excluded.intersection(range)
    }

    private static let shortEscapes: [UInt8: UInt8] = [
        0x22: 0x22, 0x5C: 0x5C, 0x2F: 0x2F, 0x08: 0x62, 0x0C: 0x66, 0x0A: 0x6E, 0x0D: 0x72, 0x09: 0x74,
    ]

    private static func escapes(of byte: UInt8, _ pool: inout ExpressionPool) -> [Expression] {
        var parts: [Expression] = []
        if let letter = shortEscapes[byte] { parts.append(pool.text([0x5C, letter])) }
        if byte < 0x20 || byte == 0x7F {
            parts.append(pool.sequence([pool.text(#"\u00"#), hexDigit(byte >> 4, &pool), hexDigit(byte & 15, &pool)]))
        }
        return parts
    }

    private static func hexDigit(_ value: UInt8, _ pool: inout ExpressionPool) -> Expression {
        hexDigits(value...value, &pool)
    }

    private static func hexDigits(_ values: ClosedRange<UInt8>, _ pool: inout ExpressionPool) -> Expression {
        var set = ByteSet()
        for value in values {
            set.insert(value < 10 ? 0x30 + value : 0x61 + value - 10)
            if value >= 10 { set.insert(0x41 + value - 10) }
        }
        return pool.bytes(set)
    }

    private func hexEscape(_ range: ClosedRange<UInt32>, _ pool: inout ExpressionPool) -> Expression {
        pool.sequence(pool.text(#"\u"#), hexBetween(range.lowerBound, range.upperBound, digits: 4, &pool))
    }

    /// `digits` hexadecimal digits from `low` to `high`.
    private func hexBetween(_ low: UInt32, _ high: UInt32, digits: Int, _ pool: inout ExpressionPool) -> Expression {
        guard digits > 0 else { return ExpressionPool.empty }
        let shift = UInt32(4 * (digits - 1))
        let rest: UInt32 = (1 << shift) - 1
        let (first, last) = (UInt8(low >> shift), UInt8(high >> shift))
        func part(_ digit: UInt8, _ a: UInt32, _ b: UInt32, _ pool: inout ExpressionPool) -> Expression {
            pool.sequence(Self.hexDigit(digit, &pool), hexBetween(a, b, digits: digits - 1, &pool))
        }
        if first == last { return part(first, low & rest, high & rest, &pool) }
        var parts: [Expression] = []
        var (start, end) = (first, last)
        if low & rest != 0 {
            parts.append(part(first, low & rest, rest, &pool))
            start += 1
        }
        if high & rest != rest {
            parts.append(part(last, 0, high & rest, &pool))
            end -= 1
        }
        if start <= end {
            let free = pool.repetition(Self.hexDigits(0...15, &pool), digits - 1, digits - 1)
            parts.append(pool.sequence(Self.hexDigits(start...end, &pool), free))
        }
        return pool.either(parts)
    }

    private func surrogatePair(_ range: ClosedRange<UInt32>, _ pool: inout ExpressionPool) -> Expression {
        let (low, high) = (range.lowerBound - 0x10000, range.upperBound - 0x10000)
        func pair(_ first: ClosedRange<UInt32>, _ second: ClosedRange<UInt32>, _ pool: inout ExpressionPool) -> Expression {
            pool.sequence(
                hexEscape(0xD800 + first.lowerBound...0xD800 + first.upperBound, &pool),
                hexEscape(0xDC00 + second.lowerBound...0xDC00 + second.upperBound, &pool))
        }
        let (first, last) = (low >> 10, high >> 10)
        if first == last { return pair(first...first, (low & 0x3FF)...(high & 0x3FF), &pool) }
        var parts = [pair(first...first, (low & 0x3FF)...0x3FF, &pool), pair(last...last, 0...(high & 0x3FF), &pool)]
        if last - first > 1 { parts.append(pair(first + 1...last - 1, 0...0x3FF, &pool)) }
        return pool.either(parts)
    }
}
