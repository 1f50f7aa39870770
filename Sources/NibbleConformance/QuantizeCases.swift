internal import NibbleCore
internal import NibbleQuantization

extension OperationCases {
    /// Quantization, dequantization, and lossless preparation.
    package static let quantization: [OperationCase] = quantizing + dequantizing + preparing + refusing

    private static let fourBitFormats: [FourBitFormat] = [FourBitFormat.Codebook.fp4, .nf4].flatMap { codebook in
        [false, true].flatMap { isNested in
            FourBitFormat.blockSizes.map { FourBitFormat(codebook: codebook, blockSize: $0, isNested: isNested) }
        }
    }

    /// Even and odd numbers of elements, short last blocks, less than a block.
    private static let sizes = [(16, 128), (7, 33), (1, 1), (50, 96)]

    private static let quantizing: [OperationCase] = loadDTypes.flatMap { dtype in
        sizes.flatMap { size in
            fourBitFormats.map { format in
                OperationCase("quantize \(dtype) [\(size.0), \(size.1)] to \(WeightFormat.fourBit(format).label)") { context in
                    let source = try context.random(dtype, [size.0, size.1], seed: 5)
                    return try quantizeFourBit(context, source, format)
                }
            } + [
                OperationCase("quantize \(dtype) [\(size.0), \(size.1)] to int8") { context in
                    try quantizeInt8(context, try context.random(dtype, [size.0, size.1], seed: 6), columns: size.1)
                }
            ]
        }
    }

    private static func quantizeFourBit(
        _ context: OperationContext, _ source: OperationContext.Operand, _ format: FourBitFormat
    ) throws -> OperationResult {
        let wanted = PlainFourBit.quantize(
            source.values.map { Float($0) }, format.codebook, blockSize: format.blockSize)
        guard case .fourBit(let weight) = try context.backend.quantize(source.tensor, to: .fourBit(format)) else {
            return OperationResult(worstError: .infinity, tolerance: 0, detail: "not a 4-bit weight")
        }
        let codes = try context.bytes(of: weight.codes)
        let result = differing(codes, wanted.packed(format.codebook))
        switch weight.scales {
        case .plain(let absmax):
            return result.and(OperationResult(got: try context.values(of: absmax), exactly: wanted.absmax.map(Double.init)))
        case .exponents:
            return OperationResult(worstError: .infinity, tolerance: 0, detail: "exponents, to which nothing is quantized")
        case .nested(let scales):
            let plain = PlainNested.quantize(wanted.absmax)
            return result.and(differing(try context.bytes(of: scales.codes), plain.codes)).and(
                OperationResult(
                    got: try context.values(of: scales.absmax) + [Double(scales.offset)],
                    wanted: (plain.absmax + [plain.offset]).map(Double.init), tolerance: 1e-5))
        }
    }

    private static func quantizeInt8(
        _ context: OperationContext, _ source: OperationContext.Operand, columns: Int
    ) throws -> OperationResult {
        let wanted = PlainInt8.quantize(source.values.map { Float($0) }, columns: columns)
        guard case .int8(let weight) = try context.backend.quantize(source.tensor, to: .int8) else {
            return OperationResult(worstError: .infinity, tolerance: 0, detail: "not an int8 weight")
        }
        let codes = try context.bytes(of: weight.values).map { Int8(bitPattern: $0) }
        return differing(codes, wanted.codes).and(
            OperationResult(got: try context.values(of: weight.scales), exactly: wanted.absmax.map(Double.init)))
    }

    /// Compares the share of bytes that differ with 0.2 %: a device's approximate reciprocal may move values on a threshold.
    private static func differing<Byte: Equatable>(_ got: [Byte], _ wanted: [Byte]) -> OperationResult {
        guard got.count == wanted.count else { return OperationResult(got: got, exactly: wanted) }
        let places = got.indices.filter { got[$0] != wanted[$0] }
        let detail = places.first.map { "byte \($0): \(got[$0]), expected \(wanted[$0])" } ?? ""
        return OperationResult(
            worstError: Double(places.count) / Double(max(got.count, 1)), tolerance: 2e-3, detail: detail)
    }

    private static let dequantizing: [OperationCase] = loadDTypes.flatMap { dtype in
        [(16, 128), (7, 33), (37, 320)].flatMap { size in
            (fourBitFormats.map { WeightFormat.fourBit($0) } + [.fourBit(.mxfp4), .int8, .dense(.float32)]).map { format in
                OperationCase("dequantize \(format.label) [\(size.0), \(size.1)] to \(dtype)") { context in
                    let plain = try PlainWeight(
                        context, format, outFeatures: size.0, inFeatures: size.1, seed: 7)
                    let wanted = HostValues.tensor(plain.values.map { Float($0) }, dtype, [size.0, size.1])
                    let direct = try context.backend.dequantize(plain.weight, to: dtype)
                    let prepared = try context.backend.dequantize(try context.backend.prepare(plain.weight), to: dtype)
                    return OperationResult(got: try context.values(of: direct), exactly: HostValues.values(wanted)).and(
                        OperationResult(got: try context.values(of: prepared), exactly: HostValues.values(wanted)))
                }
            }
        }
    }

    private static let preparing: [OperationCase] = [(16, 64), (1, 64), (33, 128), (40, 80), (7, 33), (19, 576)].flatMap { size in
        (fourBitFormats.map { WeightFormat.fourBit($0) } + [.fourBit(.mxfp4), .int8, .dense(.bfloat16)]).map { format in
            OperationCase("prepare \(format.label) [\(size.0), \(size.1)] and back") { context in
                let weight = try PlainWeight(context, format, outFeatures: size.0, inFeatures: size.1, seed: 8).weight
                let back = try context.backend.prepare(weight).canonical()
                return OperationResult(got: try bytes(context, back), exactly: try bytes(context, weight))
            }
        }
    }

    /// All bytes of a canonical weight.
    private static func bytes(_ context: OperationContext, _ weight: LinearWeight) throws -> [[UInt8]] {
        switch weight {
        case .dense(let tensor): [try context.bytes(of: tensor)]
        case .int8(let weight): [try context.bytes(of: weight.values), try context.bytes(of: weight.scales)]
        case .fourBit(let weight):
            switch weight.scales {
            case .plain(let absmax): [try context.bytes(of: weight.codes), try context.bytes(of: absmax)]
            case .exponents(let exponents): [try context.bytes(of: weight.codes), try context.bytes(of: exponents)]
            case .nested(let scales):
                [
                    try context.bytes(of: weight.codes), try context.bytes(of: scales.codes),
                    try context.bytes(of: scales.absmax), withUnsafeBytes(of: scales.offset) { Array($0) },
                ]
            }
        case .prepared: []
        }
    }

    private static let refusing: [OperationCase] = [WeightFormat.fourBit(FourBitFormat(codebook: .nf4)), .int8].flatMap {
        format in
        [Float.nan, .infinity, -.infinity].map { value in
            OperationCase("quantize \(value) to \(format.label) is refused") { context in
                var values = HostValues.random(40 * 64, seed: 9)
                values[1777] = value
                values[2000] = .nan
                let source = try context.operand(values, .float32, [40, 64])
                do {
                    _ = try context.backend.quantize(source.tensor, to: format)
                } catch BackendError.nonFiniteWeight(let index) {
                    return OperationResult(got: [index], exactly: [1777])
                }
                return OperationResult(worstError: .infinity, tolerance: 0, detail: "accepted")
            }
        }
    }
}
