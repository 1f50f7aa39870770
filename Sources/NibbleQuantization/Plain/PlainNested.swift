internal import NibbleCore

/// Scales quantized to 8 bits against the dynamic map, one at a time ("double quantization").
package enum PlainNested {
    package struct Quantized: Sendable, Equatable {
        /// Indices into ``NestedScales/dynamicMap``, one a scale.
        package var codes: [UInt8]
        /// The largest |scale − offset| of each 256.
        package var absmax: [Float]
        /// The mean of the scales.
        package var offset: Float

        package init(codes: [UInt8], absmax: [Float], offset: Float) {
            self.codes = codes
            self.absmax = absmax
            self.offset = offset
        }
    }

    package static func quantize(_ scales: [Float]) -> Quantized {
        let mean = scales.isEmpty ? 0 : Float(scales.reduce(0.0) { $0 + Double($1) } / Double(scales.count))
        return quantize(scales, offset: mean)
    }

    static func quantize(_ scales: [Float], offset: Float) -> Quantized {
        let blocks = quantizeBlocks(scales.map { $0 - offset })
        return Quantized(codes: blocks.codes, absmax: blocks.absmax, offset: offset)
    }

    /// Blocks of 256 against the map, without an offset.
    package static func quantizeBlocks(_ values: [Float]) -> (codes: [UInt8], absmax: [Float]) {
        var codes = [UInt8]()
        var absmax = [Float]()
        for start in stride(from: 0, to: values.count, by: FourBitFormat.nestedBlockSize) {
            let block = values[start..<min(start + FourBitFormat.nestedBlockSize, values.count)]
            let largest = block.reduce(0) { max($0, abs($1)) }
            let scale = largest < Float.leastNormalMagnitude ? 0 : largest
            let inverse = 1 / scale
            absmax.append(scale)
            for value in block { codes.append(scale > 0 ? nearest(value * inverse) : 0) }
        }
        return (codes, absmax)
    }

    /// map[code] × absmax + offset, rounded after each step.
    package static func dequantize(_ quantized: Quantized) -> [Float] {
        quantized.codes.indices.map { index in
            let scaled =
                NestedScales.dynamicMap[Int(quantized.codes[index])]
                * quantized.absmax[index / FourBitFormat.nestedBlockSize]
            return scaled + quantized.offset
        }
    }

    /// The index of the nearest entry; halfway between two, the even one.
    package static func nearest(_ value: Float) -> UInt8 {
        let map = NestedScales.dynamicMap
        guard let lower = map.lastIndex(where: { $0 <= value }) else { return 0 }
        guard lower + 1 < map.count else { return UInt8(lower) }
        let midpoint = (map[lower] + map[lower + 1]) * 0.5
        if value == midpoint { return UInt8(lower.isMultiple(of: 2) ? lower : lower + 1) }
        return UInt8(value < midpoint ? lower : lower + 1)
    }
}
