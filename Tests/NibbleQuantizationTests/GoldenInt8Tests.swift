import NibbleCPU
import NibbleCore
import NibbleQuantization
import NibbleTestSupport
import Testing

@Suite struct GoldenInt8Tests {
    static let backend = CPUBackend()

    @Test("The recorded cases are there")
    func casesExist() {
        for operation in ["int8_vectorwise_quant", "int8_matmul", "linear_8bit"] {
            #expect(!GoldenCase.all(operation).isEmpty)
        }
    }

    @Test("Rows are quantized as recorded", arguments: GoldenCase.all("int8_vectorwise_quant"))
    func quantizes(_ golden: GoldenCase) throws {
        let source = try golden.input("a").aligned
        let threshold = Float(golden.parameters["threshold"]?.double ?? 0)
        let reference = PlainInt8.quantize(source.floats, columns: source.shape[1], threshold: threshold)
        let codes = try golden.expected("codes").signedBytes
        expectCodes(reference.codes, codes, source.floats, reference.absmax, columns: source.shape[1])
        #expect(reference.absmax == (try golden.expected("row_absmax").floats))
        if golden.expects("outlier_columns") {
            #expect(reference.outlierColumns == (try golden.expected("outlier_columns").integers(Int64.self).map(Int.init)))
        }
        // Weights are quantized without a threshold.
        if threshold == 0 {
            guard case .int8(let weight) = try Self.backend.quantize(source, to: .int8) else {
                Issue.record("not an int8 weight")
                return
            }
            #expect(weight.values.signedBytes == reference.codes)
            #expect(weight.scales.floats == reference.absmax)
        }
    }

    @Test("Integer products and their scaling are as recorded", arguments: GoldenCase.all("int8_matmul"))
    func multipliesIntegers(_ golden: GoldenCase) throws {
        let a = try golden.input("a")
        let b = try golden.input("b").aligned
        let columns = a.shape[1]
        let features = b.shape[0]
        let sums = PlainInt8.product(a.signedBytes, b.signedBytes, columns: columns)
        #expect(sums == (try golden.expected("int32").integers(Int32.self)))
        let rows = try golden.input("row_absmax").floats
        let scales = try golden.input("scb").floats
        let bias = golden.hasInput("bias") ? try golden.input("bias").floats : [Float](repeating: 0, count: features)
        let y = sums.indices.map { index in
            let feature = index % features
            return Float(
                Float16(
                    PlainInt8.scaled(
                        sums[index], row: rows[index / features], feature: scales[feature], bias: bias[feature])))
        }
        let wanted = try golden.expected("y").floats
        #expect(zip(y, wanted).allSatisfy { abs($0 - $1) <= Float(Float16($1).ulp) })
        let weight = Int8Weight(values: b, scales: .floats(scales, [features]))
        let dequantized = try Self.backend.dequantize(.int8(weight), to: .float32).floats
        #expect(dequantized == (try golden.expected("b_dequantized").floats))
        #expect(dequantized == PlainInt8.dequantize(codes: b.signedBytes, absmax: scales, columns: columns))
    }

    @Test("Weights and products of LLM.int8() layers are as recorded", arguments: GoldenCase.all("linear_8bit"))
    func multiplies(_ golden: GoldenCase) throws {
        let x = try golden.input("x")
        let w = try golden.input("w").aligned
        guard case .int8(let quantized) = try Self.backend.quantize(w, to: .int8) else {
            Issue.record("not an int8 weight")
            return
        }
        let codes = try golden.expected("weight").aligned
        let scales = try golden.expected("SCB").aligned
        #expect(quantized.scales.floats == scales.floats)
        expectCodes(
            quantized.values.signedBytes, codes.signedBytes, w.floats, scales.floats, columns: w.shape[1])

        let wanted = try golden.expected("y")
        let layer = Linear(
            name: golden.id, weight: .int8(Int8Weight(values: codes, scales: scales)),
            bias: golden.hasInput("bias") ? .floats(try golden.input("bias").floats, [w.shape[0]]) : nil,
            arithmetic: LinearArithmetic(
                outlierThreshold: Float(golden.parameters["threshold"]?.double ?? 0), outlierScope: .call,
                roundsActivationsToHalf: true))
        let bound: Float =
            switch x.dtype {
            case .float32: 1e-5
            case .float16: 1e-3
            default: 1e-2
            }
        expectClose(try golden.product(x, layer, Self.backend), wanted.floats, bound)
    }

    /// Equal, except one step apart where the scaled value lies within 1e-4 of a half-integer.
    private func expectCodes(
        _ got: [Int8], _ wanted: [Int8], _ values: [Float], _ absmax: [Float], columns: Int,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let place = got.indices.first { index in
            if got[index] == wanted[index] { return false }
            let scaled = Float(Float16(values[index])) * 127 / absmax[index / columns]
            let fraction = abs(scaled - scaled.rounded(.down) - 0.5)
            return abs(Int(got[index]) - Int(wanted[index])) > 1 || fraction > 1e-4
        }
        #expect(place == nil && got.count == wanted.count, sourceLocation: sourceLocation)
    }
}
