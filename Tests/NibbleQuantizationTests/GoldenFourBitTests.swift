import NibbleCPU
import NibbleCore
import NibbleQuantization
import NibbleTestSupport
import Testing

@Suite struct GoldenFourBitTests {
    static let backend = CPUBackend()

    @Test("The recorded cases are there")
    func casesExist() {
        #expect(GoldenCase.every.count >= 40)
        for operation in ["quantize_4bit", "dequantize_4bit", "quantize_blockwise", "matmul_4bit", "linear_4bit"] {
            #expect(!GoldenCase.all(operation).isEmpty)
        }
    }

    @Test("Codes and scales are those of the reference library", arguments: GoldenCase.all("quantize_4bit"))
    func quantizes(_ golden: GoldenCase) throws {
        let source = try golden.input("a").aligned
        let format = try golden.format
        let values = source.floats
        guard values.allSatisfy(\.isFinite) else {
            #expect(throws: BackendError.nonFiniteWeight(index: values.firstIndex { !$0.isFinite } ?? 0)) {
                try Self.backend.quantize(source, to: .fourBit(format))
            }
            return
        }
        guard case .fourBit(let weight) = try Self.backend.quantize(source, to: .fourBit(format)) else {
            Issue.record("not a 4-bit weight")
            return
        }
        let reference = PlainFourBit.quantize(values, format.codebook, blockSize: format.blockSize)
        #expect(weight.codes.bytes == reference.packed(format.codebook))
        let agreement = FourBitAgreement(
            codebook: format.codebook, blockSize: format.blockSize, values: values, absmax: reference.absmax)
        let wanted = PlainFourBit.unpack(try golden.expected("packed").bytes, count: values.count)
        #expect(agreement.firstDisagreement(reference.codes, wanted) == nil)
        switch weight.scales {
        case .plain(let absmax): try checkPlain(absmax, reference.absmax, golden)
        case .nested(let scales): try checkNested(scales, reference.absmax, golden)
        case .exponents: Issue.record("nothing is quantized to exponents")
        }
        if golden.expects("dequantized") { try checkDequantized(golden, format, source) }
    }

    private func checkPlain(_ absmax: Tensor, _ reference: [Float], _ golden: GoldenCase) throws {
        #expect(absmax.floats == reference)
        let wanted = try golden.expected("absmax").floats
        #expect(zip(reference, wanted).allSatisfy { $0 == $1 || (abs($0) < 1.2e-38 && abs($1) < 1.2e-38) })
    }

    private func checkNested(_ scales: NestedScales, _ absmax: [Float], _ golden: GoldenCase) throws {
        let reference = PlainNested.quantize(absmax)
        #expect(scales.codes.bytes == reference.codes)
        #expect(scales.absmax.floats == reference.absmax)
        #expect(scales.offset == reference.offset)
        #expect(try golden.expected("nested_quant_map").floats == NestedScales.dynamicMap)

        let offset = try golden.expected("nested_offset").floats[0]
        #expect(abs(scales.offset - offset) <= 4 * offset.ulp)
        let codes = try golden.expected("absmax").bytes
        #expect(zip(reference.codes, codes).allSatisfy { abs(Int($0) - Int($1)) <= 1 })
        let reconstructed = try golden.expected("absmax_reconstructed").floats
        let ours = PlainNested.dequantize(reference)
        for index in codes.indices where reference.codes[index] == codes[index] {
            #expect(abs(ours[index] - reconstructed[index]) <= 1e-6 * abs(reconstructed[index]))
        }
    }

    /// From the recorded codes and scales to the recorded values.
    private func checkDequantized(_ golden: GoldenCase, _ format: FourBitFormat, _ source: Tensor) throws {
        let wanted = try golden.expected("dequantized")
        let weight = try golden.fourBitWeight(
            shape: [source.shape[0], source.count / max(source.shape[0], 1)], sourceDType: source.dtype)
        let got = try Self.backend.dequantize(.fourBit(weight), to: wanted.dtype)
        expectSameValues(got.floats, wanted.floats)
    }

    @Test("Every byte decodes to the recorded values", arguments: GoldenCase.all("dequantize_4bit"))
    func dequantizes(_ golden: GoldenCase) throws {
        let wanted = try golden.expected("dequantized")
        let format = try golden.format
        let codes = try golden.input("packed").aligned
        let absmax = try golden.input("absmax").aligned
        let weight = FourBitWeight(
            format: format, outFeatures: 1, inFeatures: wanted.count, codes: codes, scales: .plain(absmax),
            sourceDType: .float32)
        expectSameValues(try Self.backend.dequantize(.fourBit(weight), to: wanted.dtype).floats, wanted.floats)
    }

    @Test("The 8-bit map quantizes as the reference library does, ties to even", arguments: GoldenCase.all("quantize_blockwise"))
    func quantizesBlockwise(_ golden: GoldenCase) throws {
        let quantized = PlainNested.quantizeBlocks(try golden.input("a").floats)
        #expect(quantized.codes == (try golden.expected("codes").bytes))
        #expect(quantized.absmax == (try golden.expected("absmax").floats))
        let values = PlainNested.dequantize(.init(codes: quantized.codes, absmax: quantized.absmax, offset: 0))
        #expect(values == (try golden.expected("dequantized").floats))
    }

    @Test(
        "4-bit products are within the recorded bounds", arguments: GoldenCase.all("matmul_4bit") + GoldenCase.all("linear_4bit"))
    func multiplies(_ golden: GoldenCase) throws {
        let x = try golden.input("x")
        let w = try golden.input("w")
        let wanted = try golden.expected("y")
        let compute = golden.parameters["compute_dtype"]?.string.flatMap(DType.init(name:)) ?? x.dtype
        let canonical = LinearWeight.fourBit(try golden.fourBitWeight(shape: w.shape, sourceDType: w.dtype))
        for weight in [canonical, try Self.backend.prepare(canonical)] {
            let layer = Linear(
                name: golden.id, weight: weight,
                bias: golden.hasInput("bias") ? .floats(try golden.input("bias").floats, [w.shape[0]]) : nil,
                arithmetic: LinearArithmetic(computeDType: compute))
            let got = try golden.product(x, layer, Self.backend)
            let bound: Float =
                switch (compute, wanted.dtype) {
                case (.bfloat16, _), (_, .bfloat16): 1.5e-2
                case (.float16, _), (_, .float16): 2e-3
                default: 2e-6
                }
            expectClose(got, wanted.floats, bound)
        }
    }
}

extension GoldenCase {
    func product(_ x: Tensor, _ layer: Linear, _ backend: any Backend) throws -> [Float] {
        let rows = x.count / layer.inFeatures
        let output = try backend.allocate(.float32, [rows, layer.outFeatures])
        let input = Tensor.floats(x.floats, [rows, layer.inFeatures])
        try backend.linear(input, LinearGroup([layer]), epilogue: LinearEpilogue(), into: output)
        return output.floats
    }
}

/// Equal numbers; the sign of zero and the kind of NaN do not matter.
func expectSameValues(_ got: [Float], _ wanted: [Float], sourceLocation: SourceLocation = #_sourceLocation) {
    let place = zip(got, wanted).enumerated().first {
        $0.element.0 != $0.element.1 && !($0.element.0.isNaN && $0.element.1.isNaN)
    }
    #expect(place == nil && got.count == wanted.count, sourceLocation: sourceLocation)
}

/// max |difference| ≤ bound × max |wanted|.
func expectClose(_ got: [Float], _ wanted: [Float], _ bound: Float, sourceLocation: SourceLocation = #_sourceLocation) {
    let largest = wanted.reduce(0) { max($0, abs($1)) }
    let differences = zip(got, wanted).map { abs($0 - $1) }
    #expect(got.count == wanted.count && differences.allSatisfy { $0 <= bound * largest }, sourceLocation: sourceLocation)
}
