import NibbleTemplates
import Testing

/// The plain arithmetic of large integers against identities and known values.
@Suite struct BigIntegerTests {
    private static func random(_ state: inout UInt64, limbs: Int) -> BigInteger {
        let words = (0..<limbs).map { _ -> UInt32 in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt32(truncatingIfNeeded: state >> 32)
        }
        return BigInteger(isNegative: state >> 40 & 1 == 1, limbs: words)
    }

    @Test func divisionUndoesMultiplication() {
        var state: UInt64 = 7
        for round in 0..<200 {
            let a = Self.random(&state, limbs: 1 + round % 7)
            let b = Self.random(&state, limbs: 1 + round % 4)
            guard !b.isZero else { continue }
            let (quotient, remainder) = a.dividedByFlooring(b)
            #expect(quotient * b + remainder == a)
            #expect(remainder.magnitude < b.magnitude && (remainder.isZero || remainder.isNegative == b.isNegative))
            #expect(BigInteger(a.text(), radix: 10) == a && BigInteger(b.text(radix: 16), radix: 16) == b)
            #expect((a - b) + b == a && (a < b) == (a - b).isNegative)
        }
    }

    @Test(arguments: [0, 1, -1, Int.max, Int.min, 1 << 32, -(1 << 32)])
    func machineIntegersAreKept(_ value: Int) {
        #expect(BigInteger(value).int == value)
        #expect(BigInteger(value).text() == String(value))
        #expect(BigInteger(value).double == Double(value))
    }

    @Test func doublesAreRoundedOnce() {
        #expect(BigInteger("36893488147419103233", radix: 10)?.double == 36893488147419103233.0)
        #expect(BigInteger(truncating: 1e30).text() == "1000000000000000019884624838656")
        #expect(BigInteger(truncating: -1.9).int == -1 && BigInteger(truncating: 0.5).isZero)
        #expect(BigInteger(1).shifted(left: 1024).double == .infinity)
        #expect(BigInteger(1).shifted(left: 1023).double == 0x1p1023)
    }
}
