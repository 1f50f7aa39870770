import NibbleCUDA
import NibbleCore
import NibbleQuantization
import NibbleTestSupport
import Testing

/// The recorded results of the reference library, made again on the GPU. The rules of comparison are those that are recorded
/// with them.
@Suite(.serialized, .enabled(if: Card.isThere, "there is no GPU"))
struct GoldenTests {
    static let backend = Result { try Card.backend() }

    private func backend() throws -> CUDABackend { try Self.backend.get() }

    @Test("4-bit codes and scales", arguments: GoldenCase.all("quantize_4bit"))
    func quantizesFourBit(_ golden: GoldenCase) throws {
        let backend = try backend()
        let source = try golden.input("a").aligned
        let format = try golden.format
        let values = source.floats
        if let bad = values.firstIndex(where: { !$0.isFinite }) {
            #expect(throws: BackendError.nonFiniteWeight(index: bad)) { try backend.quantize(source, to: .fourBit(format)) }
            return
        }
        guard case .fourBit(let weight) = try backend.quantize(source, to: .fourBit(format)) else {
            Issue.record("not a 4-bit weight")
            return
        }
        let absmax = PlainFourBit.quantize(values, format.codebook, blockSize: format.blockSize).absmax
        let agreement = FourBitAgreement(
            codebook: format.codebook, blockSize: format.blockSize, values: values, absmax: absmax)
        let got = PlainFourBit.unpack(try backend.bytes(weight.codes), count: values.count)
        let wanted = PlainFourBit.unpack(try golden.expected("packed").bytes, count: values.count)
        #expect(agreement.firstDisagreement(got, wanted) == nil)
        switch weight.scales {
        case .plain(let scales):
            let recorded = try golden.expected("absmax").floats
            let same = zip(try backend.elements(scales, Float.self), recorded).allSatisfy {
                $0 == $1 || (abs($0) < 1.2e-38 && abs($1) < 1.2e-38)
            }
            #expect(same && scales.count == recorded.count)
        case .nested(let scales): try checkNested(scales, golden)
        case .exponents: Issue.record("nothing is quantized to exponents")
        }
    }

    private func checkNested(_ scales: NestedScales, _ golden: GoldenCase) throws {
        let offset = try golden.expected("nested_offset").floats[0]
        #expect(abs(scales.offset - offset) <= 4 * offset.ulp)
        let codes = try backend().bytes(scales.codes)
        let recorded = try golden.expected("absmax").bytes
        let areClose = zip(codes, recorded).allSatisfy { abs(Int($0) - Int($1)) <= 1 }
        #expect(areClose && codes.count == recorded.count)
        let ours = PlainNested.dequantize(
            .init(codes: codes, absmax: try backend().elements(scales.absmax, Float.self), offset: scales.offset))
        let reconstructed = try golden.expected("absmax_reconstructed").floats
        let agree = codes.indices.allSatisfy {
            codes[$0] != recorded[$0] || abs(ours[$0] - reconstructed[$0]) <= 1e-6 * abs(reconstructed[$0])
        }
        #expect(agree)
    }

    @Test("4-bit weights as floats", arguments: GoldenCase.all("quantize_4bit").filter { $0.expects("dequantized") })
    func dequantizes(_ golden: GoldenCase) throws {
        let source = try golden.input("a")
        let rows = source.shape[0]
        let weight = try moved(golden.fourBitWeight(shape: [rows, source.count / max(rows, 1)], sourceDType: source.dtype))
        let wanted = try golden.expected("dequantized")
        let got = try values(try backend().dequantize(.fourBit(weight), to: wanted.dtype))
        #expect(areSame(got, wanted.floats))
        let prepared = try backend().prepare(.fourBit(weight))
        #expect(areSame(try values(try backend().dequantize(prepared, to: wanted.dtype)), wanted.floats))
    }

    @Test("every byte decodes to the recorded values", arguments: GoldenCase.all("dequantize_4bit"))
    func dequantizesBytes(_ golden: GoldenCase) throws {
        let wanted = try golden.expected("dequantized")
        let weight = FourBitWeight(
            format: try golden.format, outFeatures: 1, inFeatures: wanted.count,
            codes: try backend().upload(try golden.input("packed").aligned),
            scales: .plain(try backend().upload(try golden.input("absmax").aligned)), sourceDType: .float32)
        #expect(areSame(try values(try backend().dequantize(.fourBit(weight), to: wanted.dtype)), wanted.floats))
    }

    @Test("4-bit products", arguments: GoldenCase.all("matmul_4bit") + GoldenCase.all("linear_4bit"))
    func multipliesFourBit(_ golden: GoldenCase) throws {
        let (x, w, wanted) = (try golden.input("x"), try golden.input("w"), try golden.expected("y"))
        let compute = golden.parameters["compute_dtype"]?.string.flatMap(DType.init(name:)) ?? x.dtype
        let canonical = LinearWeight.fourBit(try moved(golden.fourBitWeight(shape: w.shape, sourceDType: w.dtype)))
        let bound: Float =
            switch (compute, wanted.dtype) {
            case (.bfloat16, _), (_, .bfloat16): 1.5e-2
            case (.float16, _), (_, .float16): 2e-3
            default: 2e-6
            }
        for weight in [canonical, try backend().prepare(canonical)] {
            let layer = try layer(golden, weight, LinearArithmetic(computeDType: compute))
            #expect(areClose(try product(x, layer), wanted.floats, bound))
        }
    }

    @Test("int8 weights and products", arguments: GoldenCase.all("linear_8bit"))
    func multipliesInt8(_ golden: GoldenCase) throws {
        let (x, w, wanted) = (try golden.input("x"), try golden.input("w").aligned, try golden.expected("y"))
        guard case .int8(let quantized) = try backend().quantize(w, to: .int8) else {
            Issue.record("not an int8 weight")
            return
        }
        let (codes, scales) = (try golden.expected("weight").aligned, try golden.expected("SCB").aligned)
        #expect(try backend().elements(quantized.scales, Float.self) == scales.floats)
        let got = try backend().elements(quantized.values, Int8.self)
        #expect(areCodes(got, codes.signedBytes, w.floats, scales.floats, columns: w.shape[1]))

        let weight = Int8Weight(values: try backend().upload(codes), scales: try backend().upload(scales))
        let arithmetic = LinearArithmetic(
            outlierThreshold: Float(golden.parameters["threshold"]?.double ?? 0), outlierScope: .call,
            roundsActivationsToHalf: true)
        let bound: Float =
            switch x.dtype {
            case .float32: 1e-5
            case .float16: 1e-3
            default: 1e-2
            }
        #expect(areClose(try product(x, try layer(golden, .int8(weight), arithmetic)), wanted.floats, bound))
    }

    // MARK: Moving things to the GPU

    private func moved(_ weight: FourBitWeight) throws -> FourBitWeight {
        let scales: BlockScales
        switch weight.scales {
        case .plain(let absmax): scales = .plain(try backend().upload(absmax))
        case .exponents(let exponents): scales = .exponents(try backend().upload(exponents))
        case .nested(let nested):
            scales = .nested(
                NestedScales(
                    codes: try backend().upload(nested.codes), absmax: try backend().upload(nested.absmax),
                    offset: nested.offset))
        }
        return FourBitWeight(
            format: weight.format, outFeatures: weight.outFeatures, inFeatures: weight.inFeatures,
            codes: try backend().upload(weight.codes), scales: scales, sourceDType: weight.sourceDType)
    }

    private func layer(_ golden: GoldenCase, _ weight: LinearWeight, _ arithmetic: LinearArithmetic) throws -> Linear {
        let bias =
            golden.hasInput("bias")
            ? try backend().upload(.floats(try golden.input("bias").floats, [weight.outFeatures])) : nil
        return Linear(name: golden.id, weight: weight, bias: bias, arithmetic: arithmetic)
    }

    /// The layer's output, in the input's dtype.
    private func product(_ x: Tensor, _ layer: Linear) throws -> [Float] {
        let rows = x.count / layer.inFeatures
        let output = try backend().allocate(x.dtype, [rows, layer.outFeatures])
        try backend().linear(
            try backend().upload(x.aligned.viewed(as: [rows, layer.inFeatures])), LinearGroup([layer]), epilogue: .init(),
            into: output)
        return try values(output)
    }

    private func values(_ tensor: Tensor) throws -> [Float] {
        let host = Tensor.host(tensor.dtype, tensor.shape)
        try backend().read(tensor, into: host.mutableHostBytes)
        return host.floats
    }

    // MARK: Comparing

    /// Equal numbers; the sign of zero and the kind of NaN do not matter.
    private func areSame(_ got: [Float], _ wanted: [Float]) -> Bool {
        got.count == wanted.count && zip(got, wanted).allSatisfy { $0 == $1 || ($0.isNaN && $1.isNaN) }
    }

    /// max |difference| ≤ bound × max |wanted|.
    private func areClose(_ got: [Float], _ wanted: [Float], _ bound: Float) -> Bool {
        let largest = wanted.reduce(0) { max($0, abs($1)) }
        return got.count == wanted.count && zip(got, wanted).allSatisfy { abs($0 - $1) <= bound * largest }
    }

    /// Equal, except one step apart where the scaled value lies within 1e-4 of a half-integer.
    private func areCodes(_ got: [Int8], _ wanted: [Int8], _ values: [Float], _ absmax: [Float], columns: Int) -> Bool {
        got.count == wanted.count
            && got.indices.allSatisfy { index in
                if got[index] == wanted[index] { return true }
                let scaled = Float(Float16(values[index])) * 127 / absmax[index / columns]
                let fraction = abs(scaled - scaled.rounded(.down) - 0.5)
                return abs(Int(got[index]) - Int(wanted[index])) == 1 && fraction <= 1e-4
            }
    }
}
