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

    package func quantize(_ rows: any WeightRows, to format: WeightFormat) throws -> LinearWeight? {
        switch format {
        case .dense: nil
        case .fourBit(let format): .fourBit(try quantizeFourBit(rows, format))
        case .int8: .int8(try quantizeInt8(rows))
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
        let output = try FourBitOutput(self, count: source.count, source.dtype, format)
        let blocks = (source.count + format.blockSize - 1) / format.blockSize
        let input = source.pointer
        pool.parallel(count: blocks, grain: max(CPUBackend.grainElements / format.blockSize, 1)) { range, _ in
            let first = range.lowerBound * format.blockSize
            let count = min(range.upperBound * format.blockSize, source.count) - first
            output.quantize(input + first * source.dtype.byteCount, first: first, count: count)
        }
        let outFeatures = source.shape.rank < 2 ? 1 : source.shape[0]
        return try weight(
            output, [outFeatures, source.shape.rank < 2 ? source.count : source.count / max(outFeatures, 1)], source.dtype)
    }

    private func quantizeFourBit(_ rows: any WeightRows, _ format: FourBitFormat) throws -> FourBitWeight {
        let output = try FourBitOutput(self, count: rows.shape.count, rows.dtype, format)
        slabs(rows, multipleOf: format.blockSize) { slab, first, count in
            output.quantize(slab, first: first, count: count)
        }
        return try weight(output, rows.shape, rows.dtype)
    }

    private func weight(_ output: FourBitOutput, _ shape: Shape, _ dtype: DType) throws -> FourBitWeight {
        try CPUBackend.check(output.firstBad.load(ordering: .relaxed))
        return FourBitWeight(
            format: output.format, outFeatures: shape[0], inFeatures: shape[1], codes: output.codes,
            scales: output.format.isNested ? .nested(try nest(output.absmax)) : .plain(output.absmax), sourceDType: dtype)
    }

    /// Computes rows slab by slab, each of which stays in the cache of its core while `body` reads it.
    /// - Parameters:
    ///   - step: what the number of elements before a slab is a multiple of.
    ///   - body: gets a slab, its first element, and its number of elements.
    private func slabs(
        _ rows: any WeightRows, multipleOf step: Int, _ body: (UnsafeRawPointer, _ first: Int, _ count: Int) -> Void
    ) {
        let (count, width) = (rows.shape[0], rows.shape[1])
        guard rows.shape.count > 0 else { return }
        let slab = rows.slabRows(elements: CPUBackend.grainElements, multipleOf: step)
        pool.parallel(count: (count + slab - 1) / slab) { range, _ in
            let byteCount = min(slab, count) * width * rows.dtype.byteCount
            withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: 64) { scratch in
                for index in range {
                    let part = index * slab..<min((index + 1) * slab, count)
                    rows.write(part, to: scratch)
                    guard let start = scratch.baseAddress else { return }
                    body(start, part.lowerBound * width, part.count * width)
                }
            }
        }
    }

    /// What a 4-bit weight is quantized into, block by block.
    private final class FourBitOutput {
        let format: FourBitFormat
        let codes: Tensor
        let absmax: Tensor
        let firstBad = Atomic<Int>(Int.max)
        private let kernels: OpaquePointer
        private let dtype: Int32

        init(_ backend: CPUBackend, count: Int, _ dtype: DType, _ format: FourBitFormat) throws {
            guard FourBitFormat.blockSizes.contains(format.blockSize) else {
                throw backend.unsupported(
                    "quantize", "block size \(format.blockSize) is none of \(FourBitFormat.blockSizes)")
            }
            guard format.codebook != .mxfp4 else {
                throw backend.unsupported("quantize", "nothing is quantized to mxfp4")
            }
            self.format = format
            self.dtype = try backend.kernelDType(dtype, for: "quantize")
            kernels = backend.pool.kernels
            codes = try backend.allocate(.uint8, [(count + 1) / 2])
            absmax = try backend.allocate(.float32, [(count + format.blockSize - 1) / format.blockSize])
        }

        /// - Parameter first: the index of the first element, which begins a block.
        func quantize(_ source: UnsafeRawPointer, first: Int, count: Int) {
            let bad = nibble_quantize_4bit(
                kernels, source, dtype, 0, count, format.blockSize, format.codebook.kernel,
                codes.mutablePointer.assumingMemoryBound(to: UInt8.self) + first / 2,
                absmax.mutableFloats + first / format.blockSize)
            if bad >= 0 { firstBad.min(first + bad, ordering: .relaxed) }
        }
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
        let input = source.pointer
        let (rows, width) = (source.shape[0], source.shape[1])
        return try int8Weight(source.shape, source.dtype) { quantize in
            pool.parallel(count: rows) { range, _ in
                let first = range.lowerBound * width
                quantize(input + first * source.dtype.byteCount, first, range.count * width)
            }
        }
    }

    private func quantizeInt8(_ rows: any WeightRows) throws -> Int8Weight {
        try int8Weight(rows.shape, rows.dtype) { slabs(rows, multipleOf: 1, $0) }
    }

    /// - Parameter eachPart: calls its argument for parts of whole rows, with the first element and the number of elements.
    private func int8Weight(
        _ shape: Shape, _ dtype: DType, eachPart: ((UnsafeRawPointer, _ first: Int, _ count: Int) -> Void) -> Void
    ) throws -> Int8Weight {
        let type = try kernelDType(dtype, for: "quantize")
        let width = max(shape[1], 1)
        let values = try allocate(.int8, shape)
        let scales = try allocate(.float32, [shape[0]])
        let codes = values.mutablePointer.assumingMemoryBound(to: Int8.self)
        let rowScales = scales.mutableFloats
        let kernels = pool.kernels
        let firstBad = Atomic<Int>(Int.max)
        eachPart { source, first, count in
            let bad = nibble_quantize_int8(
                kernels, source, type, count / width, shape[1], codes + first, rowScales + first / width)
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
