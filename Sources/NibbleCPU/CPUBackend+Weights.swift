internal import CNibbleCPU
package import NibbleCore
internal import Synchronization

extension CPUBackend {
    package func quantize(_ source: Tensor, to format: WeightFormat) throws -> LinearWeight {
        guard source.storage.isHostMemory else {
            throw unsupported("quantize", "the weight lies on \(source.device)")
        }
        switch format {
        case .dense(let dtype):
            let tensor = try allocate(dtype, source.shape)
            try convert(source, to: tensor)
            return .dense(tensor)
        case .fourBit(let format):
            return .fourBit(try quantizeFourBit(source, format))
        case .int8:
            return .int8(try quantizeInt8(source))
        }
    }

    package func dequantize(_ weight: LinearWeight, to dtype: DType) throws -> Tensor {
        let output = try allocate(dtype, [weight.outFeatures, weight.inFeatures])
        switch try weight.canonical() {
        case .dense(let tensor): try convert(tensor, to: output)
        case .fourBit(let weight): try dequantize(weight, into: output)
        case .int8(let weight): try dequantize(weight, into: output)
        case .prepared: throw unsupported("dequantize", "the weight was prepared for another device")
        }
        return output
    }

    func unsupported(_ operation: String, _ reason: String) -> BackendError {
        .unsupported(device: device, operation: operation, reason: reason)
    }

    func kernelDType(_ dtype: DType, for operation: String) throws -> Int32 {
        switch dtype {
        case .float32: Int32(nibble_float32)
        case .float16: Int32(nibble_float16)
        case .bfloat16: Int32(nibble_bfloat16)
        default: throw unsupported(operation, "its kernels know float32, float16 and bfloat16, not \(dtype)")
        }
    }

    // MARK: 4 bits

    /// The least number of elements that a thread takes at a time.
    private static let grainElements = 1 << 16

    private func quantizeFourBit(_ source: Tensor, _ format: FourBitFormat) throws -> FourBitWeight {
        guard FourBitFormat.blockSizes.contains(format.blockSize) else {
            throw unsupported("quantize", "block size \(format.blockSize) is none of \(FourBitFormat.blockSizes)")
        }
        guard format.codebook != .mxfp4 else { throw unsupported("quantize", "nothing is quantized to mxfp4") }
        let type = try kernelDType(source.dtype, for: "quantize")
        let count = source.count
        let blocks = (count + format.blockSize - 1) / format.blockSize
        let codes = try allocate(.uint8, [(count + 1) / 2])
        let absmax = try allocate(.float32, [blocks])
        let input = source.pointer
        let kernels = pool.kernels
        let packed = codes.mutablePointer.assumingMemoryBound(to: UInt8.self)
        let scales = absmax.mutableFloats
        let firstBad = Atomic<Int>(Int.max)
        pool.parallel(count: blocks, grain: max(CPUBackend.grainElements / format.blockSize, 1)) { range, _ in
            let first = range.lowerBound * format.blockSize
            let end = min(range.upperBound * format.blockSize, count)
            let bad = nibble_quantize_4bit(
                kernels, input, type, first, end - first, format.blockSize, format.codebook.kernel, packed, scales)
            if bad >= 0 { firstBad.min(bad, ordering: .relaxed) }
        }
        try CPUBackend.check(firstBad.load(ordering: .relaxed))
        return FourBitWeight(
            format: format, outFeatures: source.shape.rank < 2 ? 1 : source.shape[0],
            inFeatures: source.shape.rank < 2 ? count : count / max(source.shape[0], 1), codes: codes,
            scales: format.isNested ? .nested(try nest(absmax)) : .plain(absmax), sourceDType: source.dtype)
    }

    private static func check(_ firstBad: Int) throws {
        if firstBad != Int.max { throw BackendError.nonFiniteWeight(index: firstBad) }
    }

    private func nest(_ absmax: Tensor) throws -> NestedScales {
        let codes = try allocate(.uint8, absmax.shape)
        let size = FourBitFormat.nestedBlockSize
        let nested = try allocate(.float32, [(absmax.count + size - 1) / size])
        let offset = nibble_quantize_scales(
            absmax.floats, absmax.count, codes.mutablePointer.assumingMemoryBound(to: UInt8.self),
            nested.mutableFloats)
        return NestedScales(codes: codes, absmax: nested, offset: offset)
    }

    /// One float32 scale per block.
    func plainScales(_ weight: FourBitWeight) throws -> Tensor {
        switch weight.scales {
        case .plain(let absmax): return absmax
        case .exponents(let exponents):
            let powers = try allocate(.float32, [weight.blockCount])
            nibble_dequantize_scales(
                exponents.pointer.assumingMemoryBound(to: UInt8.self), nil, 0, 0, powers.count, powers.mutableFloats)
            return powers
        case .nested(let nested):
            let absmax = try allocate(.float32, [weight.blockCount])
            nibble_dequantize_scales(
                nested.codes.pointer.assumingMemoryBound(to: UInt8.self), nested.absmax.floats,
                nested.offset, 0, absmax.count, absmax.mutableFloats)
            return absmax
        }
    }

    private func dequantize(_ weight: FourBitWeight, into output: Tensor) throws {
        let type = try kernelDType(output.dtype, for: "dequantize")
        let scales = try plainScales(weight)
        let codes = weight.codes.pointer.assumingMemoryBound(to: UInt8.self)
        let absmax = scales.floats
        let kernels = pool.kernels
        let destination = output.mutablePointer
        pool.parallel(count: output.count, grain: CPUBackend.grainElements) { range, _ in
            nibble_dequantize_4bit(
                kernels, codes, absmax, range.lowerBound, range.count, weight.format.blockSize, weight.format.codebook.kernel,
                type,
                destination + range.lowerBound * output.dtype.byteCount)
        }
        withExtendedLifetime((weight, scales, output)) {}
    }

    // MARK: int8

    private func quantizeInt8(_ source: Tensor) throws -> Int8Weight {
        guard source.shape.rank == 2 else { throw unsupported("quantize", "an int8 weight has two axes, not \(source.shape)") }
        let type = try kernelDType(source.dtype, for: "quantize")
        let inFeatures = source.shape[1]
        let values = try allocate(.int8, source.shape)
        let scales = try allocate(.float32, [source.shape[0]])
        let input = source.pointer
        let codes = values.mutablePointer.assumingMemoryBound(to: Int8.self)
        let rowScales = scales.mutableFloats
        let kernels = pool.kernels
        let firstBad = Atomic<Int>(Int.max)
        pool.parallel(count: source.shape[0]) { range, _ in
            let first = range.lowerBound * inFeatures
            let bad = nibble_quantize_int8(
                kernels, input + first * source.dtype.byteCount, type, range.count, inFeatures, codes + first,
                rowScales + range.lowerBound)
            if bad >= 0 { firstBad.min(first + bad, ordering: .relaxed) }
        }
        try CPUBackend.check(firstBad.load(ordering: .relaxed))
        return Int8Weight(values: values, scales: scales)
    }

    private func dequantize(_ weight: Int8Weight, into output: Tensor) throws {
        let type = try kernelDType(output.dtype, for: "dequantize")
        let inFeatures = weight.values.shape[1]
        let codes = weight.values.pointer.assumingMemoryBound(to: Int8.self)
        let scales = weight.scales.floats
        let kernels = pool.kernels
        let destination = output.mutablePointer
        pool.parallel(count: weight.values.shape[0]) { range, _ in
            let first = range.lowerBound * inFeatures
            nibble_dequantize_int8(
                kernels, codes + first, scales + range.lowerBound, range.count, inFeatures, type,
                destination + first * output.dtype.byteCount)
        }
    }
}

extension FourBitFormat.Codebook {
    var kernel: nibble_codebook {
        switch self {
        case .fp4: NIBBLE_FP4
        case .nf4: NIBBLE_NF4
        case .mxfp4: NIBBLE_MXFP4
        }
    }
}
