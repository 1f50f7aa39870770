import NibbleCPU
import NibbleCore
import Testing

/// Weights that are computed row by row are quantized as the same weights in memory.
@Suite struct WeightRowsTests {
    private struct Rows: WeightRows {
        let tensor: Tensor
        let rowUnit: Int

        var shape: Shape { tensor.shape }
        var dtype: DType { tensor.dtype }

        func write(_ rows: Range<Int>, to target: UnsafeMutableRawBufferPointer) {
            precondition(rows.lowerBound % rowUnit == 0 && (rows.upperBound % rowUnit == 0 || rows.upperBound == shape[0]))
            target.copyMemory(from: UnsafeRawBufferPointer(tensor.rows(rows).hostBytes))
        }
    }

    private static func tensor(_ shape: Shape, _ dtype: DType) -> Tensor {
        let values = (0..<shape.count).map { Float($0 * 37 % 1001 - 500) / 250 }
        switch dtype {
        case .float16: return .host(values.map(Float16.init), dtype, shape)
        case .bfloat16: return .host(values.map { BFloat16($0) }, dtype, shape)
        default: return .host(values, dtype, shape)
        }
    }

    private func bytes(_ weight: LinearWeight?) throws -> [[UInt8]] {
        switch try #require(weight) {
        case .fourBit(let weight):
            switch weight.scales {
            case .plain(let absmax): return [Array(weight.codes.hostBytes), Array(absmax.hostBytes)]
            case .nested(let nested):
                return [Array(weight.codes.hostBytes), Array(nested.codes.hostBytes), Array(nested.absmax.hostBytes)]
            case .exponents: return []
            }
        case .int8(let weight): return [Array(weight.values.hostBytes), Array(weight.scales.hostBytes)]
        default: return []
        }
    }

    @Test(
        "bytes are the same",
        arguments: [
            WeightFormat.fourBit(.init(codebook: .nf4, blockSize: 64)),
            .fourBit(.init(codebook: .fp4, blockSize: 128, isNested: true)), .int8,
        ], [DType.float32, .float16, .bfloat16])
    func quantized(format: WeightFormat, dtype: DType) throws {
        let cpu = CPUBackend(threads: 3)
        for (shape, unit) in [([1, 7], 1), ([300, 500], 1), ([333, 51], 16), ([130, 1024], 32), ([3, 70_001], 1)]
            as [(Shape, Int)]
        {
            let tensor = Self.tensor(shape, dtype)
            let rows = try cpu.quantize(Rows(tensor: tensor, rowUnit: unit), to: format)
            let expected = try cpu.quantize(tensor, to: format)
            #expect(try bytes(rows) == bytes(expected), "\(shape)")
            #expect(rows?.outFeatures == shape[0] && rows?.inFeatures == shape[1])
        }
    }

    @Test("the first NaN of all rows is named", arguments: [WeightFormat.fourBit(.init(codebook: .nf4, blockSize: 64)), .int8])
    func nonFinite(format: WeightFormat) throws {
        let tensor = Self.tensor([500, 300], .float32)
        tensor.mutableHostElements(Float.self)[149_000] = .nan
        tensor.mutableHostElements(Float.self)[88_123] = .infinity
        #expect(throws: BackendError.nonFiniteWeight(index: 88_123)) {
            try CPUBackend(threads: 2).quantize(Rows(tensor: tensor, rowUnit: 1), to: format)
        }
    }

    @Test("floats are left to tensors")
    func dense() throws {
        #expect(
            try CPUBackend(threads: 1).quantize(Rows(tensor: Self.tensor([2, 2], .float32), rowUnit: 1), to: .dense(.float16))
                == nil)
    }
}
