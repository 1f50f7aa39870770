import Foundation
import NibbleCPU
import NibbleCore
import Testing

/// The errors of quantizing standard normal values and back, as the reference library's tests expect them.
@Suite struct RoundTripTests {
    struct Expectation: Sendable, CustomStringConvertible {
        let blockSize: Int
        let codebook: FourBitFormat.Codebook
        let absolute: Double
        let relative: Double
        var description: String { "\(codebook.rawValue) in blocks of \(blockSize)" }
    }

    static let table: [Expectation] = [
        (32, 0.088925, 0.242443, 0.067746, 0.189726), (64, 0.096543, 0.260125, 0.072798, 0.203339),
        (128, 0.102969, 0.275817, 0.076831, 0.215237), (256, 0.108684, 0.289831, 0.080337, 0.226105),
        (512, 0.114115, 0.302881, 0.083547, 0.236079), (1024, 0.119333, 0.315000, 0.086610, 0.245370),
        (2048, 0.124556, 0.326607, 0.089592, 0.254163), (4096, 0.129536, 0.337169, 0.092547, 0.262473),
    ].flatMap { size, fp4, fp4Relative, nf4, nf4Relative in
        [
            Expectation(blockSize: size, codebook: .fp4, absolute: fp4, relative: fp4Relative),
            Expectation(blockSize: size, codebook: .nf4, absolute: nf4, relative: nf4Relative),
        ]
    }

    static let backend = CPUBackend()

    /// 512 × 512 values by Box and Muller's method.
    static let normal: [Float] = (0..<512 * 256).flatMap { index in
        let counter = UInt64(index)
        let radius = (-2 * log(1 - RandomStream.uniform(seed: 8, stream: 0, counter: counter))).squareRoot()
        let angle = 2 * Float.pi * RandomStream.uniform(seed: 8, stream: 1, counter: counter)
        return [radius * cos(angle), radius * sin(angle)]
    }

    private func errors(_ format: FourBitFormat, _ dtype: DType) throws -> (absolute: Double, relative: Double) {
        let exact = Tensor.floats(Self.normal, [512, 512])
        let source = try Self.backend.allocate(dtype, [512, 512])
        try Self.backend.convert(exact, to: source)
        let weight = try Self.backend.quantize(source, to: .fourBit(format))
        let back = try Self.backend.dequantize(weight, to: .float32)
        let rounded = try Self.backend.dequantize(.dense(source), to: .float32)
        var absolute = 0.0
        var relative = 0.0
        let (got, wanted) = (back.hostElements(Float.self), rounded.hostElements(Float.self))
        for index in got.indices {
            let error = Double(abs(got[index] - wanted[index]))
            absolute += error
            relative += error / (Double(abs(wanted[index])) + 1e-8)
        }
        withExtendedLifetime((back, rounded)) {}
        return (absolute / Double(got.count), relative / Double(got.count))
    }

    @Test("Mean errors are those of the formats", arguments: table)
    func roundTrip(_ expectation: Expectation) throws {
        let format = FourBitFormat(codebook: expectation.codebook, blockSize: expectation.blockSize)
        for dtype in [DType.float32, .float16, .bfloat16] {
            let error = try errors(format, dtype)
            #expect(abs(error.absolute / expectation.absolute - 1) < 0.01, "\(dtype): \(error)")
            #expect(abs(error.relative / expectation.relative - 1) < 0.015, "\(dtype): \(error)")
        }
    }

    @Test("Nested scales add little", arguments: [FourBitFormat.Codebook.fp4, .nf4], [32, 64, 128])
    func nested(_ codebook: FourBitFormat.Codebook, _ blockSize: Int) throws {
        let error = try errors(FourBitFormat(codebook: codebook, blockSize: blockSize, isNested: true), .float16)
        #expect(error.absolute < 0.11 && error.relative < 0.28)
    }
}
