package import NibbleCore

/// FP4 and NF4, one element at a time: what every backend's quantizer is compared with (QLoRA, arXiv 2305.14314; the
/// arithmetic is that of the bitsandbytes CUDA kernels, except for their approximate reciprocal).
package enum PlainFourBit {
    /// Codes, one a byte, and the absmax of each block.
    package struct Quantized: Sendable, Equatable {
        package var codes: [UInt8]
        package var absmax: [Float]

        package init(codes: [UInt8], absmax: [Float]) {
            self.codes = codes
            self.absmax = absmax
        }

        /// Two codes a byte, the first in the high nibble; an odd end is filled with the code of zero.
        package func packed(_ codebook: FourBitFormat.Codebook) -> [UInt8] {
            stride(from: 0, to: codes.count, by: 2).map { first in
                let second = first + 1 < codes.count ? codes[first + 1] : codebook.zeroCode
                return codes[first] << 4 | second
            }
        }
    }

    /// Blocks are runs of `blockSize` consecutive values; the last may be short. Denormal values and scales count as zero, as
    /// on CUDA; blocks of zeros get the code of zero.
    /// - Precondition: all values are finite.
    package static func quantize(_ values: [Float], _ codebook: FourBitFormat.Codebook, blockSize: Int) -> Quantized {
        var codes = [UInt8]()
        var absmax = [Float]()
        codes.reserveCapacity(values.count)
        for start in stride(from: 0, to: values.count, by: blockSize) {
            let block = values[start..<min(start + blockSize, values.count)]
            var scale = flushed(block.reduce(0) { max($0, abs($1)) })
            // The largest magnitude is below 8 then, and becomes 6 at most.
            if codebook == .mxfp4, scale > 0 { scale = scale.binade / 4 }
            let inverse = scale > 0 ? flushed(1 / scale) : 0
            absmax.append(scale)
            for value in block { codes.append(codebook.code(flushed(flushed(value) * inverse))) }
        }
        return Quantized(codes: codes, absmax: absmax)
    }

    /// table[code] × absmax of the block, one float32 product an element.
    package static func dequantize(
        codes: [UInt8], absmax: [Float], _ codebook: FourBitFormat.Codebook, blockSize: Int
    ) -> [Float] {
        let table = codebook.values
        return codes.indices.map { table[Int(codes[$0])] * absmax[$0 / blockSize] }
    }

    /// The `count` codes in packed bytes.
    package static func unpack(_ packed: [UInt8], count: Int) -> [UInt8] {
        (0..<count).map { $0.isMultiple(of: 2) ? packed[$0 / 2] >> 4 : packed[$0 / 2] & 15 }
    }

    private static func flushed(_ value: Float) -> Float {
        value.magnitude < Float.leastNormalMagnitude ? 0 : value
    }
}

extension FourBitFormat.Codebook {
    /// The code that stands for zero.
    package var zeroCode: UInt8 { self == .nf4 ? 7 : 0 }

    /// The code of a value in [−1, 1]; on a threshold the lower interval (FP4: the smaller magnitude).
    package func code(_ value: Float) -> UInt8 {
        switch self {
        case .nf4: UInt8(thresholds.count { value > $0 })
        case .mxfp4: UInt8(thresholds.count { value.magnitude > $0 }) | (value < 0 ? 8 : 0)
        case .fp4: FourBitFormat.Codebook.fp4Magnitudes[thresholds.count { value.magnitude > $0 }] | (value < 0 ? 8 : 0)
        }
    }
}
