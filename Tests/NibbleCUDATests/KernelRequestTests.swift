import NibbleCUDA
import NibbleCore
import Testing

/// Which kernels are made ready ahead of a model's first step.
struct KernelRequestTests {
    struct Case: CustomTestStringConvertible, Sendable {
        var testDescription: String
        var request: KernelRequest
        var level = 90
        /// Programs that are compiled; " powers" stands behind those in that form.
        var programs: Set<String>
        var some: Set<String> = []
        var none: Set<String> = []
    }

    private static let nf4 = WeightFormat.fourBit(FourBitFormat(codebook: .nf4))
    private static func request(
        _ formats: [WeightFormat], _ headSizes: [Int], _ change: (inout KernelRequest) -> Void = { _ in }
    ) -> KernelRequest {
        var request = KernelRequest(
            dtypes: [.float16], formats: Set([.dense(.float16)] + formats), headSizes: Set(headSizes))
        change(&request)
        return request
    }

    /// What every model calls.
    private static let always: Set<String> = [
        "linear_dense.cu", "linear_dense_few.cu", "attention.cu", "rotary.cu", "elementwise.cu", "embed.cu", "norm.cu",
        "scores.cu", "select.cu", "attention_step.cu", "attention_prefill.cu",
    ]
    private static let fourBit: Set<String> = ["linear_4bit.cu", "linear_4bit_tiled.cu", "tiling_4bit.cu", "quantize.cu"]

    private static let cases = [
        Case(
            testDescription: "16 bits, heads of 128", request: request([], [128]),
            programs: always.union(["attention_prefill_wide.cu"]),
            some: ["attend_step_128_f16", "attend_prefill_128_f16", "attend_prefill_wide_128_f16"],
            none: ["attend_step_64_f16", "attend_prefill_64_f16"]),
        Case(
            testDescription: "nf4 with warpgroups", request: request([nf4], [64]),
            programs: always.union(fourBit).union(["linear_4bit_wide.cu", "linear_4bit_single.cu", "attention_prefill_wide.cu"]),
            some: ["attend_step_64_f16", "gemm_4bit_tiled_8_f16"], none: ["gemm_4bit_tiled_16_f16", "gemm_4bit_tiled_64_f16"]),
        Case(
            testDescription: "nf4 without", request: request([nf4], [80]), level: 80, programs: always.union(fourBit),
            some: ["attend_step_padded_128_f16", "gemm_4bit_tiled_64_f16"], none: ["attend_step_128_f16"]),
        Case(
            testDescription: "int8", request: request([.int8], [128]),
            programs: always.union([
                "linear_int8.cu", "linear_int8_wide.cu", "linear_int8_single.cu", "quantize_rows.cu", "sum_outliers.cu",
                "quantize.cu", "attention_prefill_wide.cu",
            ])),
        Case(
            testDescription: "T5 in int8 on an older card",
            request: request([.int8], [128]) { $0.hasRelativeBiases = true }, level: 75,
            programs: always.union([
                "linear_int8.cu", "quantize_rows.cu", "sum_outliers.cu", "quantize.cu", "attention_decode.cu",
            ])),
        Case(
            testDescription: "a quantized cache", request: request([], [128]) { $0.hasQuantizedCache = true },
            programs: always.union(["attention_codes.cu", "attention_prefill_codes.cu", "attention_prefill_wide.cu"]),
            some: ["attend_prefill_codes_128_f16"], none: ["attend_prefill_codes_64_f16"]),
        Case(
            testDescription: "MXFP4 experts", request: request([.fourBit(.mxfp4)], [64]) { $0.hasExperts = true },
            programs: always.union([
                "linear_4bit.cu", "linear_4bit_tiled.cu powers", "tiling_4bit.cu", "quantize.cu", "linear_4bit_wide.cu powers",
                "router.cu", "route.cu", "mixture.cu", "experts_4bit.cu powers", "experts_few.cu powers",
                "experts_wide.cu powers", "attention_prefill_wide.cu",
            ])),
        Case(
            testDescription: "gated delta nets",
            request: request([], [256]) {
                $0.hasRecurrences = true
                $0.stateSizes = [100]
            }, programs: always.union(["convolve.cu", "gated_norm.cu", "gated_delta.cu", "state_space.cu"]),
            some: ["gated_delta_128", "attend_step_256_f16"], none: ["gated_delta_64", "gated_delta_256"]),
    ]

    @Test("a model's kernels are made ready, and no others", arguments: cases)
    func wanted(_ test: Case) {
        let wanted = Kernels.wanted(by: test.request, .f16, level: test.level)
        #expect(Set(wanted.keys) == test.programs)
        let symbols = wanted.values.reduce(into: Set<String>()) { $0.formUnion($1) }
        #expect(symbols.isSuperset(of: test.some))
        #expect(symbols.isDisjoint(with: test.none))
    }
}
