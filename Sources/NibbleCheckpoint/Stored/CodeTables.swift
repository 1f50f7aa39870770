import NibbleCore

/// The numbers that codes of 8 and 4 bits stand for.
enum CodeTables {
    /// 4 exponent bits with bias 7, 3 mantissa bits, no infinities; 0x7F and 0xFF are NaN.
    static let e4m3: [Float] = (0..<256).map { code in
        let (sign, exponent, mantissa): (Float, Int, Int) = (code < 128 ? 1 : -1, code >> 3 & 15, code & 7)
        if exponent == 15, mantissa == 7 { return .nan }
        if exponent == 0 { return sign * Float(mantissa) * 0x1p-9 }
        return sign * Float(8 + mantissa) * Float(sign: .plus, exponent: exponent - 10, significand: 1)
    }

    /// The upper byte of a half.
    static let e5m2: [Float] = (0..<256).map { Float(Float16(bitPattern: UInt16($0) << 8)) }

    static let int8: [Float] = (0..<256).map { Float(Int8(truncatingIfNeeded: $0)) }

    /// 2 exponent bits, 1 mantissa bit; the sign is the highest of four bits.
    static let e2m1: [Float] = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]

    /// A power of two: 2^(code − 127). 255 is NaN.
    static let e8m0: [Float] = (0..<256).map { code in
        code == 255 ? .nan : Float(sign: .plus, exponent: code - 127, significand: 1)
    }

    /// Of 8-bit codes of this dtype.
    static func values(_ dtype: DType) -> [Float]? {
        switch dtype {
        case .float8E4M3: e4m3
        case .float8E5M2: e5m2
        case .int8: int8
        default: nil
        }
    }
}
