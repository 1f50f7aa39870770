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

extension LinearWeight {
    /// A copy on the host with rows 0, 2, 4 … first, then rows 1, 3, 5 …. `nil` where 4-bit rows do not begin and end with a block.
    func separatingAlternateRows(_ host: HostTensors) throws -> LinearWeight? {
        func separated(_ tensor: Tensor, rows: Int) throws -> Tensor {
            try host.separatingAlternateRows(tensor.viewed(as: [rows, tensor.count / max(rows, 1)])).viewed(as: tensor.shape)
        }
        switch self {
        case .dense(let tensor): return .dense(try host.separatingAlternateRows(tensor))
        case .int8(let weight):
            return .int8(
                Int8Weight(
                    values: try host.separatingAlternateRows(weight.values),
                    scales: try separated(weight.scales, rows: weight.values.shape[0])))
        case .fourBit(let weight):
            guard weight.inFeatures % weight.format.blockSize == 0 else { return nil }
            let scales: BlockScales =
                switch weight.scales.multipliedOut() {
                case .plain(let absmax): .plain(try separated(absmax, rows: weight.outFeatures))
                case .exponents(let exponents): .exponents(try separated(exponents, rows: weight.outFeatures))
                case .nested(let nested): .nested(nested)
                }
            var format = weight.format
            format.isNested = false
            return .fourBit(
                FourBitWeight(
                    format: format, outFeatures: weight.outFeatures, inFeatures: weight.inFeatures,
                    codes: try separated(weight.codes, rows: weight.outFeatures), scales: scales,
                    sourceDType: weight.sourceDType))
        case .prepared: return nil
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
            return .plain(scales.multipliedOut(range))
        }
    }

    /// Nested scales as plain ones.
    fileprivate func multipliedOut() -> BlockScales {
        guard case .nested(let scales) = self else { return self }
        return .plain(scales.multipliedOut(0..<scales.codes.count))
    }
}

extension NestedScales {
    /// float32 scales of some blocks.
    fileprivate func multipliedOut(_ range: Range<Int>) -> Tensor {
        let size = FourBitFormat.nestedBlockSize
        let (first, last) = (range.lowerBound / size, (range.upperBound - 1) / size)
        let values = PlainNested.dequantize(
            .init(
                codes: Array(codes.hostElements(UInt8.self)[first * size..<range.upperBound]),
                absmax: Array(absmax.hostElements(Float.self)[first...last]), offset: offset)
        ).dropFirst(range.lowerBound - first * size)
        return .host(Array(values), .float32, [values.count])
    }
}
