/// Dequantization of blocks of two and three bits, and of those whose codes are indices into a table.
extension GGUFTensorType {
    /// Sixteen groups of 16: d × scale × q − dmin × minimum. Scales and minimums of four bits, then codes of two bits.
    // swift-format-ignore: AlwaysUseLowerCamelCase
    static func q2_K(_ block: UnsafePointer<UInt8>, _ output: UnsafeMutablePointer<Float>) {
        let (d, dmin) = (half(block + 80), half(block + 82))
        for group in 0..<16 {
            let scale = d * Float(block[group] & 0xF)
            let minimum = dmin * Float(block[group] >> 4)
            // Four groups of each half of the block share a byte of codes.
            let codes = block + 16 + 32 * (group / 8) + 16 * (group % 2)
            let shift = UInt8(group % 8 / 2 * 2)
            for l in 0..<16 { output[16 * group + l] = scale * Float(codes[l] >> shift & 3) - minimum }
        }
    }

    /// Sixteen groups of 16: d × (scale − 32) × q. The third bits of all codes, the two lower bits, scales of six bits.
    // swift-format-ignore: AlwaysUseLowerCamelCase
    static func q3_K(_ block: UnsafePointer<UInt8>, _ output: UnsafeMutablePointer<Float>) {
        let (low, scales, d) = (block + 32, block + 96, half(block + 108))
        for group in 0..<16 {
            let lower = scales[group % 8] >> UInt8(group / 8 * 4) & 0xF
            let upper = scales[8 + group % 4] >> UInt8(group / 4 * 2) & 3
            let scale = d * Float(Int32(lower | upper << 4) - 32)
            let first = 16 * (group % 2)
            let codes = low + 32 * (group / 8) + first
            let shift = UInt8(group % 8 / 2 * 2)
            for l in 0..<16 {
                let code = Int32(codes[l] >> shift & 3)
                let isHigh = block[first + l] >> UInt8(group / 2) & 1 == 1
                output[16 * group + l] = scale * Float(isHigh ? code : code - 4)
            }
        }
    }

    /// The values of the sixteen codes of IQ4_NL and IQ4_XS.
    private static let nonlinear: [Float] = [
        -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
    ]

    // swift-format-ignore: AlwaysUseLowerCamelCase
    static func iq4_NL(_ block: UnsafePointer<UInt8>, _ output: UnsafeMutablePointer<Float>) {
        table(nonlinear, scale: half(block), block + 2, output)
    }

    /// Eight groups of 32: d × (scale − 32) × value. The upper two bits of the scales stand in a word, the lower four in bytes.
    // swift-format-ignore: AlwaysUseLowerCamelCase
    static func iq4_XS(_ block: UnsafePointer<UInt8>, _ output: UnsafeMutablePointer<Float>) {
        let d = half(block)
        let upper = UInt16(block[2]) | UInt16(block[3]) << 8
        for group in 0..<8 {
            let low = Int32(block[4 + group / 2] >> UInt8(group % 2 * 4) & 0xF)
            let high = Int32(upper >> UInt16(2 * group) & 3)
            table(nonlinear, scale: d * Float((low | high << 4) - 32), block + 8 + 16 * group, output + 32 * group)
        }
    }

    /// Twice the values of the sixteen codes of MXFP4.
    private static let microscaling: [Float] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]

    /// The scale is half of 2^(e − 127).
    static func mxfp4(_ block: UnsafePointer<UInt8>, _ output: UnsafeMutablePointer<Float>) {
        let exponent = UInt32(block[0])
        let bits = exponent < 2 ? 0x0020_0000 << exponent : (exponent - 1) << 23
        table(microscaling, scale: Float(bitPattern: bits), block + 1, output)
    }

    /// Two codes a byte; the low nibbles are the first half of the 32 elements.
    private static func table(
        _ values: [Float], scale: Float, _ codes: UnsafePointer<UInt8>, _ output: UnsafeMutablePointer<Float>
    ) {
        values.withUnsafeBufferPointer { values in
            for l in 0..<16 {
                output[l] = scale * values[Int(codes[l] & 0xF)]
                output[l + 16] = scale * values[Int(codes[l] >> 4)]
            }
        }
    }
}
