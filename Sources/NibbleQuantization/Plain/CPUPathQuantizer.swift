package import NibbleCore

/// Quantizes as bitsandbytes' CPU path does, where that decides a few codes differently from its CUDA path.
///
/// CUDA's results are canonical and what every backend makes. This is for comparing with results that the reference
/// recorded on a CPU, and is used under the reference switch only. It differs in FP4's decision thresholds and in the
/// rounding of nested scales; NF4 codes and plain scales are the same.
package enum CPUPathQuantizer {
    /// FP4's codes in ascending order of their values, zero before minus zero.
    private static let ascendingCodes: [UInt8] = [11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3]

    /// The midpoints of neighbouring values; a value on one takes the lower.
    private static let midpoints: [Float] = {
        let values = ascendingCodes.map { FourBitFormat.Codebook.fp4.values[Int($0)] }
        return zip(values, values.dropFirst()).map { ($0 + $1) * 0.5 }
    }()

    /// As ``PlainFourBit/quantize(_:_:blockSize:)``.
    package static func quantize(
        _ values: [Float], _ codebook: FourBitFormat.Codebook, blockSize: Int
    ) -> PlainFourBit.Quantized {
        guard codebook == .fp4 else { return PlainFourBit.quantize(values, codebook, blockSize: blockSize) }
        var quantized = PlainFourBit.Quantized(codes: [], absmax: [])
        quantized.codes.reserveCapacity(values.count)
        for start in stride(from: 0, to: values.count, by: blockSize) {
            let block = values[start..<min(start + blockSize, values.count)]
            let scale = block.reduce(0) { max($0, abs($1)) }
            quantized.absmax.append(scale)
            let divisor = max(scale, 1e-38)
            for value in block {
                // The short last block is divided; full ones are multiplied by the reciprocal.
                let scaled = block.count < blockSize ? value / divisor : value * (1 / divisor)
                quantized.codes.append(ascendingCodes[midpoints.count { scaled > $0 }])
            }
        }
        return quantized
    }

    /// As ``PlainNested/quantize(_:)``: scales are first rounded to a grid of 65,536 points.
    package static func quantizeScales(_ scales: [Float]) -> PlainNested.Quantized {
        var quantized = PlainNested.quantize(scales, offset: LaneSum.mean(scales))
        let map = NestedScales.dynamicMap
        let thresholds = zip(map, map.dropFirst()).map { ($0 + $1) * 0.5 }
        for index in scales.indices {
            let largest = quantized.absmax[index / FourBitFormat.nestedBlockSize]
            guard largest > 0 else { continue }
            let scaled = (scales[index] - quantized.offset) * (1 / largest)
            let step = Int((scaled + 1) * 0.5 * 65535 + 0.5)
            let point = Float(step) / 65535 * 2 - 1
            quantized.codes[index] = UInt8(lowerCount(thresholds, below: point))
        }
        return quantized
    }

    /// How many of the ascending `thresholds` are below `value`.
    private static func lowerCount(_ thresholds: [Float], below value: Float) -> Int {
        var (low, high) = (0, thresholds.count)
        while low < high {
            let middle = (low + high) / 2
            if thresholds[middle] < value { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
