import NibbleCUDA
import NibbleConformance
import NibbleCore
import Testing

@Suite(.serialized, .enabled(if: Card.isThere, "there is no GPU"))
struct OperationTests {
    @Test(
        "every operation agrees with the reference, with the library's products and with Nibble's own", arguments: [true, false])
    func agrees(usesLibraryProducts: Bool) throws {
        var options = CUDAOptions()
        options.usesLibraryProducts = usesLibraryProducts
        let backend = try Card.backend(options: options)
        for operation in OperationCases.distinct(on: backend) {
            let result = try operation.run(on: backend)
            #expect(result.passed, "\(operation): \(result)")
        }
    }

    @Test("a token's result does not depend on the others, where that is asked for", arguments: [DType.float16, .bfloat16])
    func batchInvariance(dtype: DType) throws {
        var options = CUDAOptions()
        options.isBatchInvariant = true
        let backend = try Card.backend(options: options)
        let (features, columns, most) = (96, 320, 300)
        let source = HostValues.tensor(HostValues.random(features * columns, seed: 1, scale: 0.05), dtype, [features, columns])
        let input = try backend.upload(
            HostValues.tensor(HostValues.random(most * columns, seed: 2, scale: 4), dtype, [most, columns]))
        let formats: [WeightFormat] = [
            .dense(dtype), .fourBit(FourBitFormat(codebook: .nf4)), .fourBit(FourBitFormat(codebook: .fp4, blockSize: 32)), .int8,
        ]
        for format in formats {
            let weight = try backend.prepare(try backend.quantize(source, to: format))
            let group = LinearGroup([Linear(name: "layer", weight: weight)])
            func rows(_ count: Int) throws -> [UInt8] {
                let output = try backend.allocate(dtype, [count, features])
                try backend.linear(input.rows(0..<count), group, epilogue: .init(), into: output)
                return Array(try backend.bytes(output).prefix(features * dtype.byteCount))
            }
            let alone = try rows(1)
            for count in [2, 8, 9, 16, 17, 33, 64, 65, 129, 300] {
                #expect(try rows(count) == alone, "\(format) with \(count) tokens")
            }
        }
    }

    @Test("decoding in 4 bits and 8 bits is batch invariant without asking", arguments: [DType.float16, .bfloat16])
    func decodeInvariance(dtype: DType) throws {
        let backend = try Card.backend()
        let (features, columns, most) = (64, 256, 64)
        let source = HostValues.tensor(HostValues.random(features * columns, seed: 1, scale: 0.05), dtype, [features, columns])
        let input = try backend.upload(
            HostValues.tensor(HostValues.random(most * columns, seed: 2, scale: 4), dtype, [most, columns]))
        for format in [WeightFormat.fourBit(FourBitFormat(codebook: .nf4)), .int8] {
            let weight = try backend.prepare(try backend.quantize(source, to: format))
            let group = LinearGroup([Linear(name: "layer", weight: weight)])
            var alone: [UInt8]?
            for count in [1, 2, 8, 9, 16, 17, 33, 64] {
                let output = try backend.allocate(dtype, [count, features])
                try backend.linear(input.rows(0..<count), group, epilogue: .init(), into: output)
                let first = Array(try backend.bytes(output).prefix(features * dtype.byteCount))
                #expect(first == alone ?? first, "\(format) with \(count) tokens")
                alone = first
            }
        }
    }
}
