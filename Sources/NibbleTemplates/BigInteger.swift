/// An integer of any size, as Python's `int`. Plain schoolbook arithmetic: templates meet few large numbers, and the size is
/// bounded by `JinjaLimits.integerBits`.
public struct BigInteger: Sendable, Hashable {
    package private(set) var isNegative: Bool
    /// Base 2³², least significant first, no zero at the end; empty for zero.
    private(set) var limbs: [UInt32]

    package init(isNegative: Bool, limbs: [UInt32]) {
        var limbs = limbs
        while limbs.last == 0 { limbs.removeLast() }
        self.limbs = limbs
        self.isNegative = isNegative && !limbs.isEmpty
    }

    package init(_ value: Int) {
        let magnitude = UInt64(value.magnitude)
        self.init(
            isNegative: value < 0, limbs: [UInt32(truncatingIfNeeded: magnitude), UInt32(truncatingIfNeeded: magnitude >> 32)])
    }

    /// The whole part of a finite number.
    package init(truncating value: Double) {
        let whole = value.magnitude.rounded(.down)
        guard whole >= 1 else {
            self.init(isNegative: false, limbs: [])
            return
        }
        // significand × 2⁵² is a whole number.
        let bits = BigInteger(Int((whole.significand * 0x1p52)))
        let shift = Int(whole.exponent) - 52
        let shifted = shift >= 0 ? bits.shifted(left: shift) : BigInteger(Int(whole))
        self.init(isNegative: value < 0, limbs: shifted.limbs)
    }

    /// Digits after an optional sign; `nil` for anything else.
    package init?(_ text: String, radix: UInt32) {
        var digits = text.utf8[...]
        let isNegative = digits.first == UInt8(ascii: "-")
        if isNegative || digits.first == UInt8(ascii: "+") { digits = digits.dropFirst() }
        guard !digits.isEmpty else { return nil }
        var limbs: [UInt32] = []
        for byte in digits {
            guard let digit = Self.digit(byte), digit < radix else { return nil }
            var carry = UInt64(digit)
            for index in limbs.indices {
                let product = UInt64(limbs[index]) * UInt64(radix) + carry
                limbs[index] = UInt32(truncatingIfNeeded: product)
                carry = product >> 32
            }
            if carry > 0 { limbs.append(UInt32(carry)) }
        }
        self.init(isNegative: isNegative, limbs: limbs)
    }

    private static func digit(_ byte: UInt8) -> UInt32? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(byte - UInt8(ascii: "0"))
        case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(byte - UInt8(ascii: "a") + 10)
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt32(byte - UInt8(ascii: "A") + 10)
        default: nil
        }
    }

    package var isZero: Bool { limbs.isEmpty }

    /// Bits of the magnitude.
    var bitWidth: Int { limbs.isEmpty ? 0 : limbs.count * 32 - limbs[limbs.count - 1].leadingZeroBitCount }

    package var magnitude: BigInteger { BigInteger(isNegative: false, limbs: limbs) }

    /// The value, if it fits.
    package var int: Int? {
        guard limbs.count <= 2 else { return nil }
        let magnitude = limbs.enumerated().reduce(UInt64(0)) { $0 | UInt64($1.element) << (32 * UInt64($1.offset)) }
        if !isNegative { return Int(exactly: magnitude) }
        return magnitude == UInt64(Int.min.magnitude) ? .min : Int(exactly: magnitude).map { -$0 }
    }

    /// The nearest double, ties to even; infinite beyond the range.
    package var double: Double {
        guard bitWidth > 64 else {
            let magnitude = limbs.enumerated().reduce(UInt64(0)) { $0 | UInt64($1.element) << (32 * UInt64($1.offset)) }
            return isNegative ? -Double(magnitude) : Double(magnitude)
        }
        guard bitWidth <= 1024 else { return isNegative ? -.infinity : .infinity }
        // The upper 64 bits round correctly if the lowest one is set whenever a bit below it is.
        let shift = bitWidth - 64
        let head = shifted(right: shift)
        let isExact = head.shifted(left: shift) == magnitude
        let bits = UInt64(head.limbs[0]) | UInt64(head.limbs[1]) << 32 | (isExact ? 0 : 1)
        let value = Double(sign: .plus, exponent: shift, significand: Double(bits))
        return isNegative ? -value : value
    }

    /// Digits in a radix that is at most 36, with a sign.
    package func text(radix: UInt32 = 10, uppercase: Bool = false) -> String {
        guard !isZero else { return "0" }
        var digits: [UInt8] = []
        var rest = limbs
        while !rest.isEmpty {
            var remainder: UInt64 = 0
            for index in rest.indices.reversed() {
                let value = remainder << 32 | UInt64(rest[index])
                rest[index] = UInt32(value / UInt64(radix))
                remainder = value % UInt64(radix)
            }
            while rest.last == 0 { rest.removeLast() }
            let letter = uppercase ? UInt8(ascii: "A") : UInt8(ascii: "a")
            digits.append(remainder < 10 ? UInt8(ascii: "0") + UInt8(remainder) : letter + UInt8(remainder - 10))
        }
        return (isNegative ? "-" : "") + String(decoding: digits.reversed(), as: UTF8.self)
    }

    /// Python refuses to write integers of more decimal digits than this.
    static let decimalDigits = 4300

    /// - Throws: `arithmetic` for more than `decimalDigits` digits, as Python raises.
    func decimalText() throws -> String {
        let problem = JinjaError(.arithmetic("an integer of more than \(Self.decimalDigits) digits cannot be written"))
        guard bitWidth <= Self.decimalDigits * 10 / 3 else { throw problem }
        let text = text()
        guard text.utf8.count - (isNegative ? 1 : 0) <= Self.decimalDigits else { throw problem }
        return text
    }
}

extension BigInteger: Comparable {
    /// Order of the numbers.
    public static func < (a: BigInteger, b: BigInteger) -> Bool {
        if a.isNegative != b.isNegative { return a.isNegative }
        return a.isNegative ? compare(b.limbs, a.limbs) < 0 : compare(a.limbs, b.limbs) < 0
    }

    private static func compare(_ a: [UInt32], _ b: [UInt32]) -> Int {
        if a.count != b.count { return a.count < b.count ? -1 : 1 }
        for index in a.indices.reversed() where a[index] != b[index] { return a[index] < b[index] ? -1 : 1 }
        return 0
    }
}

// MARK: - Arithmetic

extension BigInteger {
    package static prefix func - (value: BigInteger) -> BigInteger {
        BigInteger(isNegative: !value.isNegative, limbs: value.limbs)
    }

    package static func + (a: BigInteger, b: BigInteger) -> BigInteger {
        if a.isNegative == b.isNegative { return BigInteger(isNegative: a.isNegative, limbs: sum(a.limbs, b.limbs)) }
        switch compare(a.limbs, b.limbs) {
        case 0: return BigInteger(0)
        case 1: return BigInteger(isNegative: a.isNegative, limbs: difference(a.limbs, b.limbs))
        default: return BigInteger(isNegative: b.isNegative, limbs: difference(b.limbs, a.limbs))
        }
    }

    package static func - (a: BigInteger, b: BigInteger) -> BigInteger { a + -b }

    private static func sum(_ a: [UInt32], _ b: [UInt32]) -> [UInt32] {
        var result: [UInt32] = []
        var carry: UInt64 = 0
        for index in 0..<max(a.count, b.count) {
            let total = UInt64(index < a.count ? a[index] : 0) + UInt64(index < b.count ? b[index] : 0) + carry
            result.append(UInt32(truncatingIfNeeded: total))
            carry = total >> 32
        }
        return result + [UInt32(carry)]
    }

    /// `a` is not below `b`.
    private static func difference(_ a: [UInt32], _ b: [UInt32]) -> [UInt32] {
        var result: [UInt32] = []
        var borrow: Int64 = 0
        for index in a.indices {
            let value = Int64(a[index]) - Int64(index < b.count ? b[index] : 0) - borrow
            borrow = value < 0 ? 1 : 0
            result.append(UInt32(truncatingIfNeeded: value))
        }
        return result
    }

    package static func * (a: BigInteger, b: BigInteger) -> BigInteger {
        var result = [UInt32](repeating: 0, count: a.limbs.count + b.limbs.count + 1)
        for (i, x) in a.limbs.enumerated() {
            var carry: UInt64 = 0
            for (j, y) in b.limbs.enumerated() {
                let value = UInt64(x) * UInt64(y) + UInt64(result[i + j]) + carry
                result[i + j] = UInt32(truncatingIfNeeded: value)
                carry = value >> 32
            }
            result[i + b.limbs.count] = UInt32(carry)
        }
        return BigInteger(isNegative: a.isNegative != b.isNegative, limbs: result)
    }

    package func shifted(left count: Int) -> BigInteger {
        let (words, bits) = (count / 32, UInt64(count % 32))
        var result = [UInt32](repeating: 0, count: words)
        var carry: UInt64 = 0
        for limb in limbs {
            let value = UInt64(limb) << bits | carry
            result.append(UInt32(truncatingIfNeeded: value))
            carry = value >> 32
        }
        return BigInteger(isNegative: isNegative, limbs: result + [UInt32(carry)])
    }

    /// The magnitude without its lowest `count` bits.
    func shifted(right count: Int) -> BigInteger {
        let (words, bits) = (count / 32, UInt64(count % 32))
        let kept = Array(limbs.dropFirst(words))
        let result = kept.indices.map { index in
            UInt32(truncatingIfNeeded: (UInt64(index + 1 < kept.count ? kept[index + 1] : 0) << 32 | UInt64(kept[index])) >> bits)
        }
        return BigInteger(isNegative: false, limbs: result)
    }

    /// Quotient rounded down and the remainder of the divisor's sign, as Python's `divmod`. `divisor` is not zero.
    package func dividedByFlooring(_ divisor: BigInteger) -> (quotient: BigInteger, remainder: BigInteger) {
        var (quotient, remainder) = Self.divide(limbs, divisor.limbs)
        if isNegative != divisor.isNegative, !remainder.isZero {
            quotient = quotient + BigInteger(1)
            remainder = divisor.magnitude - remainder
        }
        return (isNegative == divisor.isNegative ? quotient : -quotient, divisor.isNegative ? -remainder : remainder)
    }

    /// Bit by bit for divisors of several limbs.
    private static func divide(_ a: [UInt32], _ b: [UInt32]) -> (quotient: BigInteger, remainder: BigInteger) {
        var quotient = [UInt32](repeating: 0, count: a.count)
        if b.count == 1 {
            var remainder: UInt64 = 0
            for index in a.indices.reversed() {
                let value = remainder << 32 | UInt64(a[index])
                quotient[index] = UInt32(value / UInt64(b[0]))
                remainder = value % UInt64(b[0])
            }
            return (BigInteger(isNegative: false, limbs: quotient), BigInteger(isNegative: false, limbs: [UInt32(remainder)]))
        }
        let divisor = BigInteger(isNegative: false, limbs: b)
        var remainder = BigInteger(0)
        for bit in (0..<a.count * 32).reversed() {
            remainder = remainder.shifted(left: 1)
            if a[bit / 32] >> UInt32(bit % 32) & 1 == 1 { remainder = remainder + BigInteger(1) }
            if remainder >= divisor {
                remainder = remainder - divisor
                quotient[bit / 32] |= 1 << UInt32(bit % 32)
            }
        }
        return (BigInteger(isNegative: false, limbs: quotient), remainder)
    }
}
