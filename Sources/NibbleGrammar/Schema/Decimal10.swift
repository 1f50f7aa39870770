import NibbleCore

/// A decimal number of at most 18 digits before the point and 15 behind it.
struct Decimal10: Hashable, Comparable, Sendable {
    let isNegative: Bool
    /// Without leading zeros, at least one digit.
    let whole: [UInt8]
    /// Without zeros at its end.
    let fraction: [UInt8]

    /// `nil` for what is no number or has too many digits.
    init?(_ value: JSONValue) {
        switch value {
        case .int(let number): self.init(text: "\(number)")
        default:
            guard let number = value.double, number.isFinite else { return nil }
            self.init(text: "\(number)")
        }
    }

    /// As Swift writes numbers: `-12.5`, `1e-05`.
    init?(text: String) {
        var digits = Array(text.utf8)
        isNegative = digits.first == 0x2D
        if isNegative { digits.removeFirst() }
        var exponent = 0
        if let mark = digits.firstIndex(where: { $0 == 0x65 || $0 == 0x45 }) {
            exponent = Int(String(decoding: digits[(mark + 1)...], as: UTF8.self).replacing("+", with: "")) ?? 0
            digits.removeSubrange(mark...)
        }
        var point = digits.firstIndex(of: 0x2E) ?? digits.count
        digits.removeAll { $0 == 0x2E }
        point += exponent
        guard abs(point) < 400 else { return nil }
        if point < 0 {
            digits.insert(contentsOf: [UInt8](repeating: 0x30, count: -point), at: 0)
            point = 0
        }
        while digits.count < point { digits.append(0x30) }
        let whole = digits[..<point].drop { $0 == 0x30 }
        var fraction = Array(digits[point...])
        while fraction.last == 0x30 { fraction.removeLast() }
        guard whole.count <= 18, fraction.count <= 15, digits.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        self.whole = whole.isEmpty ? [0x30] : Array(whole)
        self.fraction = fraction
    }

    private init(isNegative: Bool, whole: [UInt8], fraction: [UInt8]) {
        self.isNegative = isNegative
        self.whole = whole
        self.fraction = fraction
    }

    var isZero: Bool { whole == [0x30] && fraction.isEmpty }
    var magnitude: Decimal10 { Decimal10(isNegative: false, whole: whole, fraction: fraction) }
    var wholeNumber: Int64 { Int64(String(decoding: whole, as: UTF8.self)) ?? 0 }
    /// The number times 10 to the power of its digits behind the point.
    var allDigits: Int64? { Int64(String(decoding: whole + fraction, as: UTF8.self)) }

    /// The least whole number not below it.
    var ceiling: Int64 { isNegative ? -wholeNumber : wholeNumber + (fraction.isEmpty ? 0 : 1) }
    /// The greatest whole number not above it.
    var floor: Int64 { isNegative ? -wholeNumber - (fraction.isEmpty ? 0 : 1) : wholeNumber }

    static func < (a: Decimal10, b: Decimal10) -> Bool {
        if a.isZero && b.isZero { return false }
        let (negativeA, negativeB) = (a.isNegative && !a.isZero, b.isNegative && !b.isZero)
        if negativeA != negativeB { return negativeA }
        return negativeA ? b.isSmaller(than: a) : a.isSmaller(than: b)
    }

    private func isSmaller(than other: Decimal10) -> Bool {
        if whole.count != other.whole.count { return whole.count < other.whole.count }
        if whole != other.whole { return whole.lexicographicallyPrecedes(other.whole) }
        return fraction.lexicographicallyPrecedes(other.fraction)
    }
}

// MARK: - Numbers as expressions

extension ExpressionPool {
    private mutating func digits(_ minimum: Int, _ maximum: Int?) -> Expression {
        repetition(range(0x30...0x39), minimum, maximum)
    }

    private mutating func point() -> Expression { byte(0x2E) }
    private mutating func anyFraction() -> Expression { optional(sequence(point(), digits(1, nil))) }

    /// Whole numbers as JSON writes them.
    mutating func jsonInteger() -> Expression {
        sequence(optional(byte(0x2D)), either([byte(0x30), sequence(range(0x31...0x39), digits(0, nil))]))
    }

    /// Numbers as JSON writes them.
    mutating func jsonNumber() -> Expression {
        let exponent = sequence([bytes(ByteSet([0x65, 0x45])), optional(bytes(ByteSet([0x2B, 0x2D]))), digits(1, nil)])
        return sequence([jsonInteger(), anyFraction(), optional(exponent)])
    }

    /// Numbers that are not whole, without exponent.
    mutating func fractions() -> Expression {
        sequence([jsonInteger(), point(), digits(0, nil), range(0x31...0x39), digits(0, nil)])
    }

    /// Whole numbers from `low` to `high`.
    mutating func integers(_ low: Int64?, _ high: Int64?) -> Expression {
        var parts: [Expression] = []
        if high.map({ $0 >= 0 }) ?? true { parts.append(naturals(max(low ?? 0, 0), high)) }
        if low.map({ $0 < 0 }) ?? true {
            let least = high.map { $0 < 0 ? -$0 : 1 } ?? 1
            parts.append(sequence(byte(0x2D), naturals(least, low.map { -$0 })))
        }
        return either(parts)
    }

    private mutating func naturals(_ low: Int64, _ high: Int64?) -> Expression {
        guard high.map({ $0 >= low }) ?? true else { return Self.nothing }
        var parts: [Expression] = []
        let first = Array("\(low)".utf8)
        let last = high.map { Array("\($0)".utf8) } ?? [UInt8](repeating: 0x39, count: first.count)
        for count in first.count...last.count {
            let from = count == first.count ? first : [0x31] + [UInt8](repeating: 0x30, count: count - 1)
            let to = count == last.count ? last : [UInt8](repeating: 0x39, count: count)
            parts.append(between(from, to, lowest: 0x30, highest: 0x39))
        }
        if high == nil { parts.append(sequence(range(0x31...0x39), digits(first.count, nil))) }
        return either(parts)
    }

    /// Decimal numbers without exponent within bounds.
    mutating func decimals(
        _ low: (value: Decimal10, isExclusive: Bool)?, _ high: (value: Decimal10, isExclusive: Bool)?
    ) -> Expression {
        var parts: [Expression] = []
        let isLowNegative = low.map { $0.value.isNegative && !$0.value.isZero } ?? true
        let isHighNegative = high.map { $0.value.isNegative && !$0.value.isZero } ?? false
        if !isHighNegative {
            let least = isLowNegative ? nil : low
            parts.append(magnitudes(least, high.map { ($0.value.magnitude, $0.isExclusive) }))
        }
        if isLowNegative {
            var least = isHighNegative ? high.map { ($0.value.magnitude, $0.isExclusive) } : nil
            // −0 is 0, which an exclusive bound of 0 excludes.
            if let high, high.value.isZero, high.isExclusive { least = (high.value.magnitude, true) }
            parts.append(sequence(byte(0x2D), magnitudes(least, low.map { ($0.value.magnitude, $0.isExclusive) })))
        }
        return either(parts)
    }

    private mutating func magnitudes(
        _ low: (value: Decimal10, isExclusive: Bool)?, _ high: (value: Decimal10, isExclusive: Bool)?
    ) -> Expression {
        var parts: [Expression] = []
        if let low { parts.append(atLeast(low.value, isExclusive: low.isExclusive)) }
        if let high { parts.append(atMost(high.value, isExclusive: high.isExclusive)) }
        return parts.isEmpty ? sequence(naturals(0, nil), anyFraction()) : both(parts)
    }

    private mutating func atLeast(_ bound: Decimal10, isExclusive: Bool) -> Expression {
        let whole = bound.wholeNumber
        var equal: Expression
        if bound.fraction.isEmpty {
            let positive = sequence([point(), star(byte(0x30)), range(0x31...0x39), digits(0, nil)])
            equal = isExclusive ? positive : anyFraction()
        } else {
            equal = sequence(point(), fractionAtLeast(bound.fraction[...], isExclusive))
        }
        equal = sequence(naturals(whole, whole), equal)
        return either([equal, sequence(naturals(whole + 1, nil), anyFraction())])
    }

    private mutating func fractionAtLeast(_ bound: ArraySlice<UInt8>, _ isExclusive: Bool) -> Expression {
        guard let digit = bound.first else {
            return isExclusive ? sequence([star(byte(0x30)), range(0x31...0x39), digits(0, nil)]) : digits(0, nil)
        }
        let equal = sequence(byte(digit), fractionAtLeast(bound.dropFirst(), isExclusive))
        return digit < 0x39 ? either([equal, sequence(range(digit + 1...0x39), digits(0, nil))]) : equal
    }

    private mutating func atMost(_ bound: Decimal10, isExclusive: Bool) -> Expression {
        let whole = bound.wholeNumber
        var equal: Expression
        if bound.fraction.isEmpty {
            equal = isExclusive ? Self.nothing : optional(sequence(point(), repetition(byte(0x30), 1, nil)))
        } else {
            equal = optional(sequence(point(), fractionAtMost(bound.fraction[...], isExclusive)))
        }
        equal = sequence(naturals(whole, whole), equal)
        return whole == 0 ? equal : either([equal, sequence(naturals(0, whole - 1), anyFraction())])
    }

    private mutating func fractionAtMost(_ bound: ArraySlice<UInt8>, _ isExclusive: Bool) -> Expression {
        guard let digit = bound.first else { return Self.nothing }
        let rest = bound.dropFirst()
        let tail =
            rest.isEmpty ? (isExclusive ? Self.nothing : star(byte(0x30))) : optional(fractionAtMost(rest, isExclusive))
        let equal = sequence(byte(digit), tail)
        return digit > 0x30 ? either([equal, sequence(range(0x30...digit - 1), digits(0, nil))]) : equal
    }

    /// Decimal numbers without exponent that `divisor` divides. Answers `nil` for divisors of more than 9 digits.
    mutating func multiples(of divisor: Decimal10) -> Expression? {
        guard let digits = divisor.allDigits, digits > 0, digits < 1_000_000_000 else { return nil }
        var parts: [Expression] = []
        var power: Int64 = 1
        for places in (0...divisor.fraction.count).reversed() {
            // With `places` digits behind the point the number is digits / 10^places.
            let needed = digits / Self.greatestCommonDivisor(digits, power)
            var syntax = jsonInteger()
            if places > 0 { syntax = sequence([syntax, point(), self.digits(places, places)]) }
            parts.append(both([syntax, remainder(divisor: needed, value: 0)]))
            power *= 10
        }
        return either(parts)
    }

    private static func greatestCommonDivisor(_ a: Int64, _ b: Int64) -> Int64 { b == 0 ? a : greatestCommonDivisor(b, a % b) }
}
