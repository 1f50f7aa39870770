import NibbleCheckpoint
import NibbleCore
import Testing

/// The kernels of every instruction level, against the definitions of the codes.
@Suite struct StoredKernelTests {
    private static let magnitudes: [Float] = [0, 0.5, 1, 1.5, 2, 3, 4, 6]

    private static func value(_ code: StoredKernels.Code, _ bits: UInt8) -> Float {
        switch code {
        case .e4m3:
            if bits & 127 == 127 { return .nan }
            let (exponent, mantissa) = (Int(bits >> 3 & 15), Float(bits & 7))
            let size =
                exponent == 0 ? mantissa * 0x1p-9 : (8 + mantissa) * Float(sign: .plus, exponent: exponent - 10, significand: 1)
            return bits < 128 ? size : -size
        case .e5m2: return Float(Float16(bitPattern: UInt16(bits) << 8))
        case .int8: return Float(Int8(bitPattern: bits))
        case .uint8, .uint4: return Float(bits)
        case .e2m1: return bits < 8 ? magnitudes[Int(bits)] : -magnitudes[Int(bits) - 8]
        }
    }

    private static let codes: [StoredKernels.Code] = [.e4m3, .e5m2, .int8, .uint8, .e2m1, .uint4]

    @Test("codes are decoded as they are defined", arguments: codes, StoredKernels.available)
    func decoded(code: StoredKernels.Code, kernels: StoredKernels) {
        let hasPairs = code == .e2m1 || code == .uint4
        for (width, block) in [(1, 1), (2, 16), (16, 16), (31, 16), (33, 40), (256, 256), (1030, 128), (2100, 7), (1500, 5000)] {
            let bytes = (0..<width).map { UInt8(truncatingIfNeeded: $0 * 37 + $0 / 256 * 5) }
            let single = bytes.map { hasPairs ? $0 & 15 : $0 }
            let packed =
                hasPairs
                ? stride(from: 0, to: width, by: 2).map { single[$0] | ($0 + 1 < width ? single[$0 + 1] << 4 : 0) } : single
            let groups = (width + block - 1) / block
            let scales = (0..<groups).map { Float($0 % 13 + 1) * 0.0371 }
            let zeros = (0..<groups).map { Float($0 % 5) }
            for (usesZeros, step) in [(false, 1), (true, 1), (false, 0)] {
                var found = [Float](repeating: -99, count: width + 1)
                zeros.withUnsafeBufferPointer { zeros in
                    scales.withUnsafeBufferPointer { scales in
                        guard let scales = scales.baseAddress else { return }
                        kernels.decode(
                            code, packed, width: width,
                            .init(scales: scales, zeros: usesZeros ? zeros.baseAddress : nil, block: block, step: step),
                            into: &found)
                    }
                }
                let expected = (0..<width).map { column in
                    let group = column / block * step
                    return (Self.value(code, single[column]) - (usesZeros ? zeros[group] : 0)) * scales[group]
                }
                let agree = zip(found, expected).allSatisfy { $0 == $1 || $0.isNaN && $1.isNaN }
                #expect(agree, "\(width) \(block) \(usesZeros) \(step)")
                #expect(found[width] == -99)
            }
        }
    }

    @Test("words along K are unpacked row by row", arguments: [2, 4, 8])
    func columns(bits: Int) {
        let (outer, inner, rows) = (24, 64, 3..<20)
        let perWord = 32 / bits
        let words = (0..<inner / perWord * outer).map { UInt32(truncatingIfNeeded: $0 &* 2_654_435_761) }
        var codes = [UInt8](repeating: 0xEE, count: rows.count * UnpackedCodes.stride(inner))
        UnpackedCodes.columns(words, rows: rows, outer: outer, inner: inner, bits: bits, into: &codes)
        for (position, row) in rows.enumerated() {
            for column in 0..<inner {
                let word = words[column / perWord * outer + row]
                let expected = UInt8(word >> UInt32(column % perWord * bits) & (1 << UInt32(bits) - 1))
                #expect(codes[position * UnpackedCodes.stride(inner) + column] == expected)
            }
        }
    }

    @Test("words along N are unpacked row by row", arguments: [1, 7, 8, 40, 43])
    func rowWords(inner: Int) {
        let (outer, rows) = (32, 8..<24)
        let words = (0..<inner * outer / 8).map { UInt32(truncatingIfNeeded: $0 &* 2_654_435_761) }
        var codes = [UInt8](repeating: 0xEE, count: rows.count * UnpackedCodes.stride(inner))
        UnpackedCodes.rowWords(words, rows: rows, outer: outer, inner: inner, into: &codes)
        let places = [0, 4, 1, 5, 2, 6, 3, 7]
        for (position, row) in rows.enumerated() {
            for column in 0..<inner {
                let expected = UInt8(words[column * outer / 8 + row / 8] >> UInt32(4 * places[row % 8]) & 15)
                #expect(codes[position * UnpackedCodes.stride(inner) + column] == expected)
            }
        }
    }

    @Test("columns of any group find their scales", arguments: [(64, 4, 4), (256, 4, 4), (20, 40, 8)])
    func grouped(width: Int, groups: Int, bits: Int) {
        let codes = (0..<width).map { UInt8($0 * 29 % (1 << bits)) }
        let index = (0..<width).map { Int32($0 * 7 % groups) }
        let scales = (0..<groups).map { Float($0 + 1) * 0.0371 }
        let zeros = (0..<groups).map { Float($0 % 5) }
        var found = [Float](repeating: 0, count: width)
        UnpackedCodes.decode(
            codes, groups: index, scales: scales, zeros: zeros, groupCount: groups, bits: bits, into: &found)
        #expect(found == (0..<width).map { (Float(codes[$0]) - zeros[Int(index[$0])]) * scales[Int(index[$0])] })
    }
}
