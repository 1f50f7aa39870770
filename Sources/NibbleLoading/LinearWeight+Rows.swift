import NibbleCore
import NibbleQuantization

extension LinearWeight {
    /// Rows of a weight in its canonical layout on the host, as views of it. `nil` where 4-bit rows do not begin and end with a
    /// block.
    func rows(_ range: Range<Int>) -> LinearWeight? {
        switch self {
        case .dense(let tensor): .dense(tensor.rows(range))
        case .int8(let weight): .int8(Int8Weight(values: weight.values.rows(range), scales: weight.scales.rows(range)))
        case .fourBit(let weight): weight.rows(range).map(LinearWeight.fourBit)
        case .prepared: nil
        }
    }
}

extension FourBitWeight {
    fileprivate func rows(_ range: Range<Int>) -> FourBitWeight? {
        let (first, count) = (range.lowerBound * inFeatures, range.count * inFeatures)
        guard first % format.blockSize == 0, count % format.blockSize == 0 else { return nil }
        let scales = scales.blocks(first / format.blockSize..<(first + count) / format.blockSize)
        var format = format
        if case .plain = scales { format.isNested = false }
        return FourBitWeight(
            format: format, outFeatures: range.count, inFeatures: inFeatures,
            codes: codes.rows(first / 2..<(first + count) / 2), scales: scales, sourceDType: sourceDType)
    }
}

extension BlockScales {
    /// The scales of some blocks. Nested ones are multiplied out unless pieces of this length have second-level scales of their own.
    fileprivate func blocks(_ range: Range<Int>) -> BlockScales {
        switch self {
        case .plain(let absmax): return .plain(absmax.rows(range))
        case .exponents(let exponents): return .exponents(exponents.rows(range))
        case .nested(let scales):
            let size = FourBitFormat.nestedBlockSize
            if range.lowerBound % size == 0, range.count % size == 0 {
                let groups = range.lowerBound / size..<range.upperBound / size
                return .nested(
                    NestedScales(codes: scales.codes.rows(range), absmax: scales.absmax.rows(groups), offset: scales.offset))
            }
            let (first, last) = (range.lowerBound / size, (range.upperBound - 1) / size)
            let values = PlainNested.dequantize(
                .init(
                    codes: Array(scales.codes.hostElements(UInt8.self)[first * size..<range.upperBound]),
                    absmax: Array(scales.absmax.hostElements(Float.self)[first...last]), offset: scales.offset)
            ).dropFirst(range.lowerBound - first * size)
            return .plain(.host(Array(values), .float32, [values.count]))
        }
    }
}
