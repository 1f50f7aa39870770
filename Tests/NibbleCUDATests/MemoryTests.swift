import NibbleCUDA
import NibbleConformance
import NibbleCore
import Testing

@Suite(.serialized, .enabled(if: Card.isThere, "there is no GPU"))
struct MemoryTests {
    private func pattern(_ count: Int) -> Tensor {
        .host((0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 11) }, .uint8, [count])
    }

    @Test("bytes come back from the device", arguments: [1, 255, 4096, 65537, (16 << 20) + 3, (90 << 20) + 1])
    func roundTrip(count: Int) throws {
        let backend = try Card.backend()
        let host = pattern(count)
        let there = try backend.upload(host)
        let copy = try backend.allocate(.uint8, [count])
        try backend.copy(there, to: copy)
        #expect(try backend.bytes(copy) == Array(host.hostBytes))
    }

    @Test("many small copies are each intact")
    func manyCopies() throws {
        let backend = try Card.backend()
        let tensors = try (0..<3000).map { try backend.upload(.host([Int32($0), Int32($0 * 2)], .int32, [2])) }
        for (index, tensor) in tensors.enumerated() {
            #expect(try backend.elements(tensor, Int32.self) == [Int32(index), Int32(index * 2)])
        }
    }

    @Test("the budget is hard, and the error names what was asked for and what is left")
    func budget() throws {
        let backend = try Card.backend(budget: 64 << 20)
        let held = try backend.allocate(.uint8, [40 << 20])
        let error = #expect(throws: BackendError.self) { try backend.allocate(.uint8, [40 << 20]) }
        #expect(error == .outOfMemory(device: backend.device, requested: 40 << 20, available: 24 << 20, budget: 64 << 20))
        #expect(backend.memoryUse.held == held.byteCount)
        #expect(backend.availableBytes == 24 << 20)
    }

    @Test("one card under two names: each has its budget, and tensors pass between them")
    func twoNames() throws {
        let first = try Card.backend(as: .cuda(7), budget: 128 << 20)
        let second = try Card.backend(as: .cuda(8), budget: 128 << 20)
        let host = pattern(20 << 20)
        for _ in 0..<5 {
            let there = try first.upload(host)
            let here = try second.allocate(.uint8, there.shape)
            try second.copy(there, to: here)
            let back = try first.allocate(.uint8, there.shape)
            try second.copy(here, to: back)
            #expect(try first.bytes(back) == Array(host.hostBytes))
        }
        #expect(throws: BackendError.self) { try first.allocate(.uint8, [200 << 20]) }
        _ = try second.allocate(.uint8, [64 << 20])
    }

    @Test(
        "a weight from the host, in parts, quantizes to the same bytes as one that lies there",
        arguments: [DType.float32, .bfloat16])
    func quantizingInParts(dtype: DType) throws {
        let backend = try Card.backend()
        // 80 MB and more: several parts.
        let (rows, columns) = (dtype == .float32 ? 5000 : 10000, 4160)
        let few = HostValues.random(1 << 16, seed: 3)
        let values = (0..<rows * columns).map { few[($0 &* 7919 &+ $0 >> 9) & 0xFFFF] }
        let host = HostValues.tensor(values, dtype, [rows, columns])
        let there = try backend.upload(host)
        let formats: [WeightFormat] = [
            .fourBit(FourBitFormat(codebook: .nf4)), .fourBit(FourBitFormat(codebook: .fp4, blockSize: 4096, isNested: true)),
            .int8,
        ]
        for format in formats {
            let (a, b) = (try backend.quantize(host, to: format), try backend.quantize(there, to: format))
            #expect(try stored(a, backend) == stored(b, backend), "\(format)")
        }
    }

    private func stored(_ weight: LinearWeight, _ backend: CUDABackend) throws -> [[UInt8]] {
        switch weight {
        case .int8(let weight): return [try backend.bytes(weight.values), try backend.bytes(weight.scales)]
        case .fourBit(let weight):
            switch weight.scales {
            case .plain(let absmax): return [try backend.bytes(weight.codes), try backend.bytes(absmax)]
            case .exponents(let exponents): return [try backend.bytes(weight.codes), try backend.bytes(exponents)]
            case .nested(let scales):
                return [try backend.bytes(weight.codes), try backend.bytes(scales.codes), try backend.bytes(scales.absmax)]
            }
        default: return []
        }
    }

    @Test("a NaN far into a weight is found at its index")
    func nonFinite() throws {
        let backend = try Card.backend()
        let (rows, columns) = (6000, 4096)
        var values = [Float](repeating: 0.5, count: rows * columns)
        values[22_000_001] = .nan
        values[23_000_000] = .infinity
        let host = Tensor.host(values, .float32, [rows, columns])
        for format in [WeightFormat.fourBit(FourBitFormat(codebook: .nf4)), .int8] {
            #expect(throws: BackendError.nonFiniteWeight(index: 22_000_001)) { try backend.quantize(host, to: format) }
        }
    }

    @Test("once workspace is reserved, calls take no more memory")
    func workspace() throws {
        let backend = try Card.backend()
        let (tokens, features, columns) = (256, 512, 512)
        try backend.reserve(
            WorkspaceRequest(
                tokens: tokens, rows: 4, context: 1024, inFeatures: columns, outFeatures: features, heads: 8, headSize: 64,
                vocabulary: 1000))
        let source = HostValues.tensor(HostValues.random(features * columns, seed: 4), .bfloat16, [features, columns])
        let formats: [WeightFormat] = [
            .dense(.bfloat16), .fourBit(FourBitFormat(codebook: .nf4)), .fourBit(FourBitFormat(codebook: .nf4, blockSize: 32)),
            .int8,
        ]
        let weights = try formats.map { try backend.prepare(try backend.quantize(source, to: $0)) }
        let input = try backend.upload(
            HostValues.tensor(HostValues.random(tokens * columns, seed: 5), .bfloat16, [tokens, columns]))
        let output = try backend.allocate(.bfloat16, [tokens, features])
        let before = backend.memoryUse.held
        for weight in weights {
            for count in [1, 7, 64, 256] {
                let group = LinearGroup([Linear(name: "layer", weight: weight)])
                try backend.linear(
                    input.rows(0..<count), group, epilogue: LinearEpilogue(activation: .gelu), into: output.rows(0..<count))
                #expect(backend.memoryUse.held == before)
            }
        }
        try backend.synchronize()
    }
}
