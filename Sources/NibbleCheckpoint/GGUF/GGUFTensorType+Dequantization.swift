import NibbleCore

/// Dequantization of blocks, after ggml's own functions. Scales are halves; products are rounded to `Float` in the order
/// written here.
extension GGUFTensorType {
    /// Dequantizes `count` blocks.
    /// - Precondition: this is a block type; `source` holds the blocks, `target` room for their elements.
    func dequantize(_ source: UnsafePointer<UInt8>, blocks count: Int, into target: UnsafeMutablePointer<Float>) {
        for index in 0..<count {
            let block = source + index * blockByteCount
            let output = target + index * blockSize
            switch self {
            case .q4_0: Self.q4_0(block, output)
            case .q4_1: Self.q4_1(block, output)
            case .q5_0: Self.q5_0(block, output)
            case .q5_1: Self.q5_1(block, output)
            case .q8_0: Self.q8_0(block, output)
            case .q2_K: Self.q2_K(block, output)
            case .q3_K: Self.q3_K(block, output)
            case .iq4_NL: Self.iq4_NL(block, output)
            case .iq4_XS: Self.iq4_XS(block, output)
            case .mxfp4: Self.mxfp4(block, output)
            case .q4_K: Self.q4_K(block, output)
            case .q5_K: Self.q5_K(block, output)
            case .q6_K: Self.q6_K(block, output)
            default: preconditionFailure("\(self) has no blocks")
            }
        }
    }

    @inline(__always)
    static func half(_ bytes: UnsafePointer<UInt8>) -> Float {
        Float(Float16(bitPattern: UInt16(bytes[0]) | UInt16(bytes[1]) << 8))
    }

    @inline(__always)
    private static func word(_ bytes: UnsafePointer<UInt8>) -> UInt32 {
        UInt32(bytes[0]) | UInt32(bytes[1]) << 8 | UInt32(bytes[2]) << 16 | UInt32(bytes[3]) << 24
    }

    /// d × (q − 8). The low nibbles are the first half of the block.
    // swift-format-ignore: AlwaysUseLowerCamelCase
    private static func q4_0(_ block: UnsafePointer<UInt8>, _ output: UnsafeMutablePointer<Float>) {
        let d = half(block)
        for j in 0..<16 {
            let byte = block[2 + j]
            output[j] = Float(Int32(byte & 0xF) - 8) * d
            output[j + 16] = Float(Int32(byte >> 4) - 8) * d
        }
    }

    /// d × q + m
    // swift-format-ignore: AlwaysUseLowerCamelCase
    private static func q4_1(_ block: UnsafePointer<UInt8>, _ output: UnsafeMutablePointer<Float>) {
        let (d, m) = (half(block), half(block + 2))
        for j in 0..<16 {
            let byte = block[4 + j]
            output[j] = Float(Int32(byte & 0xF)) * d + m
            output[j + 16] = Float(Int32(byte >> 4)) * d + m
        }
    }

    /// d × (q − 16). The fifth bits stand in a word of their own.
    // swift-format-ignore: AlwaysUseLowerCamelCase
    private static func q5_0(_ block: UnsafePointer<UInt8>, _ output: UnsafeMutablePointer<Float>) {
        let (d, high) = (half(block), word(block + 2))
        for j in 0..<16 {
            let byte = UInt32(block[6 + j])
            output[j] = Float(Int32(byte & 0xF | (high >> UInt32(j) & 1) << 4) - 16) * d
            output[j + 16] = Float(Int32(byte >> 4 | (high >> UInt32(j + 16) & 1) << 4) - 16) * d
        }
    }

    /// d × q + m
    // swift-format-ignore: AlwaysUseLowerCamelCase
    private static func q5_1(_ block: UnsafePointer<UInt8>, _ output: UnsafeMutablePointer<Float>) {
        let (d, m, high) = (half(block), half(block + 2), word(block + 4))
        for j in 0..<16 {
            let byte = UInt32(block[8 + j])
            output[j] = Float(Int32(byte & 0xF | (high >> UInt32(j) & 1) << 4)) * d + m
            output[j + 16] = Float(Int32(byte >> 4 | (high >> UInt32(j + 16) & 1) << 4)) * d + m
        }
    }

    // swift-format-ignore: AlwaysUseLowerCamelCase
    private static func q8_0(_ block: UnsafePointer<UInt8>, _ output: UnsafeMutablePointer<Float>) {
        let d = half(block)
        for j in 0..<32 { output[j] = Float(Int32(Int8(bitPattern: block[2 + j]))) * d }
    }

    /// Six-bit scale and minimum of group `j` of eight, packed in twelve bytes.
    @inline(__always)
    private static func scaleAndMinimum(_ packed: UnsafePointer<UInt8>, _ j: Int) -> (Float, Float) {
        if j < 4 { return (Float(packed[j] & 63), Float(packed[j + 4] & 63)) }
        let scale = packed[j + 4] & 0xF | (packed[j - 4] >> 6) << 4
        let minimum = packed[j + 4] >> 4 | (packed[j] >> 6) << 4
        return (Float(scale), Float(minimum))
    }

    /// Eight groups of 32: d × scale × q − dmin × minimum.
    // swift-format-ignore: AlwaysUseLowerCamelCase
    private static func q4_K(_ block: UnsafePointer<UInt8>, _ output: UnsafeMutablePointer<Float>) {
        let (d, dmin) = (half(block), half(block + 2))
        for pair in 0..<4 {
            let (scale, minimum) = scaleAndMinimum(block + 4, 2 * pair)
            let (nextScale, nextMinimum) = scaleAndMinimum(block + 4, 2 * pair + 1)
            let (d1, m1, d2, m2) = (d * scale, dmin * minimum, d * nextScale, dmin * nextMinimum)
            let (bytes, values) = (block + 16 + 32 * pair, output + 64 * pair)
            for l in 0..<32 {
                values[l] = d1 * Float(Int32(bytes[l] & 0xF)) - m1
                values[l + 32] = d2 * Float(Int32(bytes[l] >> 4)) - m2
            }
        }
    }

    /// As ``q4_K``, with the fifth bits of all groups in 32 bytes.
    // swift-format-ignore: AlwaysUseLowerCamelCase
    private static func q5_K(_ block: UnsafePointer<UInt8>, _ output: UnsafeMutablePointer<Float>) {
        let (d, dmin) = (half(block), half(block + 2))
        let high = block + 16
        for pair in 0..<4 {
            let (scale, minimum) = scaleAndMinimum(block + 4, 2 * pair)
            let (nextScale, nextMinimum) = scaleAndMinimum(block + 4, 2 * pair + 1)
            let (d1, m1, d2, m2) = (d * scale, dmin * minimum, d * nextScale, dmin * nextMinimum)
            let (bytes, values) = (block + 48 + 32 * pair, output + 64 * pair)
            let shift = UInt8(2 * pair)
            for l in 0..<32 {
                values[l] = d1 * Float(Int32(bytes[l] & 0xF | (high[l] >> shift & 1) << 4)) - m1
                values[l + 32] = d2 * Float(Int32(bytes[l] >> 4 | (high[l] >> (shift + 1) & 1) << 4)) - m2
            }
        }
    }

    /// Sixteen groups of 16: d × scale × (q − 32). Low four bits, then upper two, then signed scales.
    // swift-format-ignore: AlwaysUseLowerCamelCase
    private static func q6_K(_ block: UnsafePointer<UInt8>, _ output: UnsafeMutablePointer<Float>) {
        let d = half(block + 208)
        for part in 0..<2 {
            let (low, high, scales) = (block + 64 * part, block + 128 + 32 * part, block + 192 + 8 * part)
            let values = output + 128 * part
            for group in 0..<2 {
                let d1 = d * Float(Int32(Int8(bitPattern: scales[group])))
                let d2 = d * Float(Int32(Int8(bitPattern: scales[group + 2])))
                let d3 = d * Float(Int32(Int8(bitPattern: scales[group + 4])))
                let d4 = d * Float(Int32(Int8(bitPattern: scales[group + 6])))
                for l in 16 * group..<16 * group + 16 {
                    values[l] = d1 * Float(Int32(low[l] & 0xF | (high[l] & 3) << 4) - 32)
                    values[l + 32] = d2 * Float(Int32(low[l + 32] & 0xF | (high[l] >> 2 & 3) << 4) - 32)
                    values[l + 64] = d3 * Float(Int32(low[l] >> 4 | (high[l] >> 4 & 3) << 4) - 32)
                    values[l + 96] = d4 * Float(Int32(low[l + 32] >> 4 | (high[l] >> 6) << 4) - 32)
                }
            }
        }
    }
}
