/// What a program of products is compiled for, besides the plain form.
package struct KernelForm: OptionSet, Hashable, Sendable {
    package let rawValue: Int

    package init(rawValue: Int) { self.rawValue = rawValue }

    /// Products add the sums of adapters.
    package static let adapters = KernelForm(rawValue: 1)
    /// Scales of 4-bit weights are powers of two, as in MXFP4.
    package static let powers = KernelForm(rawValue: 2)

    /// The input of products in one 16-bit type has the other one.
    package static let mixed = KernelForm(rawValue: 4)

    /// All sets of options.
    static let count = 8

    var defines: [String] {
        [(KernelForm.adapters, "-DNIBBLE_ADAPTERS"), (.powers, "-DNIBBLE_POWERS"), (.mixed, "-DNIBBLE_MIXED")]
            .filter { contains($0.0) }.map(\.1)
    }
}

/// Every kernel the host launches.
enum Kernel: Int, CaseIterable {
    // linear_dense.cu
    case gemvSingle, gemv, gemm
    // linear_dense_few.cu
    case denseFew
    // linear_4bit.cu
    case gemv4Bit, dequantize4Bit
    // linear_4bit_tiled.cu, tiling_4bit.cu
    case gemv4BitTiled, gemv4BitTiledFew, stage4Bit, gemm4BitTiled8, gemm4BitTiled16, gemm4BitTiled32, gemm4BitTiled64
    case tile4Bit, untile4Bit, dequantize4BitTiled
    // linear_4bit_single.cu
    case gemv4BitSingle
    // linear_4bit_wide.cu
    case stage4BitWide, gemm4BitWide16, gemm4BitWide32, gemm4BitWide64, gemm4BitWide96, gemm4BitWide128
    // linear_int8.cu
    case gemvInt8, gemmInt8, finishInt8, dequantizeInt8
    // linear_int8_wide.cu
    case gemmInt8Wide8, gemmInt8Wide16, gemmInt8Wide32, gemmInt8Wide64, gemmInt8Wide128
    // linear_int8_single.cu
    case gemvInt8Single
    // quantize_rows.cu
    case markOutliers, quantizeRows
    // low_rank.cu, shrink_wide.cu
    case shrink, shrinkFew, shrinkSingle, shrinkBeside, expand, shrinkWide
    // sum_outliers.cu
    case sumFewOutliers, sumOutliers
    // quantize.cu
    case quantize4Bit, quantizeInt8, nestedMean, nestedQuantize
    // attention.cu, attention_decode.cu, attention_prefill.cu
    case attend, attendSplit, attendCombine, attendPrefill64, attendPrefill96, attendPrefill128, attendPrefill256
    // attention_prefill_wide.cu
    case attendPrefillWide64, attendPrefillWide128
    // attention_step.cu, for heads of up to so many elements
    case attendStep64, attendStep128, attendStep256, attendStepPadded128, attendStepPadded256
    // attention.cu, attention_codes.cu, attention_prefill_codes.cu: quantized caches
    case attendCodes, attendSplitCodes, attendPrefillCodes64, attendPrefillCodes96, attendPrefillCodes128, attendPrefillCodes256
    // recurrence/, for states of up to so many elements
    case convolve, gatedDelta32, gatedDelta64, gatedDelta128, gatedDelta256
    case stateSpace32, stateSpace64, stateSpace128, stateSpace256, gatedNorm
    // rotary.cu, and the untyped kernels of elementwise/
    case rotate, rotateEight
    case embed, normalize, gate, gateEight, multiply, add, convert, gather, finishLinear, copyBlocks, selectLargest, select,
        fillTokens, scores, route, router, spreadWeights
    // mixture.cu, and the kernels of linear layers for the experts of a mixture
    case groupExperts, combineExperts
    case gemvExperts4Bit, gemvExpertsGated4Bit, gemmExpertsFew4Bit, gemmExpertsFewGated4Bit
    case stageExperts, gemmExperts4Bit8, gemmExperts4Bit16, gemmExperts4Bit32,
        gemmExperts4Bit64
    case stageExpertsWide, gemmExpertsWide16, gemmExpertsWide32, gemmExpertsWide64, gemmExpertsWide128
    case gemvExpertsSingle, gemvExperts, gemmExperts
    case gemvExpertsInt8, gemmExpertsInt8, sumExpertsOutliers

    /// Its program and its name there, without the type suffix.
    var place: (program: String, name: String) {
        switch self {
        case .gemv: ("linear_dense.cu", "gemv")
        case .gemvSingle: ("linear_dense.cu", "gemv_single")
        case .gemm: ("linear_dense.cu", "gemm")
        case .denseFew: ("linear_dense_few.cu", "dense_few")
        case .gemv4Bit: ("linear_4bit.cu", "gemv_4bit")
        case .dequantize4Bit: ("linear_4bit.cu", "dequantize_4bit")
        case .gemv4BitTiled: ("linear_4bit_tiled.cu", "gemv_4bit_tiled")
        case .gemv4BitTiledFew: ("linear_4bit_tiled.cu", "gemv_4bit_tiled_few")
        case .stage4Bit: ("linear_4bit_tiled.cu", "stage_4bit")
        case .gemm4BitTiled8: ("linear_4bit_tiled.cu", "gemm_4bit_tiled_8")
        case .gemm4BitTiled16: ("linear_4bit_tiled.cu", "gemm_4bit_tiled_16")
        case .gemm4BitTiled32: ("linear_4bit_tiled.cu", "gemm_4bit_tiled_32")
        case .gemm4BitTiled64: ("linear_4bit_tiled.cu", "gemm_4bit_tiled_64")
        case .gemv4BitSingle: ("linear_4bit_single.cu", "gemv_4bit_single")
        case .stage4BitWide: ("linear_4bit_wide.cu", "stage_4bit_wide")
        case .gemm4BitWide16: ("linear_4bit_wide.cu", "gemm_4bit_wide_16")
        case .gemm4BitWide32: ("linear_4bit_wide.cu", "gemm_4bit_wide_32")
        case .gemm4BitWide64: ("linear_4bit_wide.cu", "gemm_4bit_wide_64")
        case .gemm4BitWide96: ("linear_4bit_wide.cu", "gemm_4bit_wide_96")
        case .gemm4BitWide128: ("linear_4bit_wide.cu", "gemm_4bit_wide_128")
        case .tile4Bit: ("tiling_4bit.cu", "tile_4bit")
        case .untile4Bit: ("tiling_4bit.cu", "untile_4bit")
        case .dequantize4BitTiled: ("tiling_4bit.cu", "dequantize_4bit_tiled")
        case .shrink: ("low_rank.cu", "shrink")
        case .shrinkFew: ("low_rank.cu", "shrink_few")
        case .shrinkSingle: ("low_rank.cu", "shrink_single")
        case .shrinkBeside: ("low_rank.cu", "shrink_beside")
        case .expand: ("low_rank.cu", "expand")
        case .shrinkWide: ("shrink_wide.cu", "shrink_wide")
        case .markOutliers: ("quantize_rows.cu", "mark_outliers")
        case .quantizeRows: ("quantize_rows.cu", "quantize_rows")
        case .gemvInt8: ("linear_int8.cu", "gemv_int8")
        case .gemmInt8: ("linear_int8.cu", "gemm_int8")
        case .finishInt8: ("linear_int8.cu", "finish_int8")
        case .dequantizeInt8: ("linear_int8.cu", "dequantize_int8")
        case .gemmInt8Wide8: ("linear_int8_wide.cu", "gemm_int8_wide_8")
        case .gemmInt8Wide16: ("linear_int8_wide.cu", "gemm_int8_wide_16")
        case .gemmInt8Wide32: ("linear_int8_wide.cu", "gemm_int8_wide_32")
        case .gemmInt8Wide64: ("linear_int8_wide.cu", "gemm_int8_wide_64")
        case .gemmInt8Wide128: ("linear_int8_wide.cu", "gemm_int8_wide_128")
        case .gemvInt8Single: ("linear_int8_single.cu", "gemv_int8_single")
        case .sumFewOutliers: ("sum_outliers.cu", "sum_outliers_few")
        case .sumOutliers: ("sum_outliers.cu", "sum_outliers")
        case .quantize4Bit: ("quantize.cu", "quantize_4bit")
        case .quantizeInt8: ("quantize.cu", "quantize_int8")
        case .nestedMean: ("quantize.cu", "nested_mean")
        case .nestedQuantize: ("quantize.cu", "nested_quantize")
        case .attend: ("attention.cu", "attend")
        case .attendSplit: ("attention_decode.cu", "attend_split")
        case .attendCombine: ("attention_decode.cu", "attend_combine")
        case .attendStep64: ("attention_step.cu", "attend_step_64")
        case .attendStep128: ("attention_step.cu", "attend_step_128")
        case .attendStep256: ("attention_step.cu", "attend_step_256")
        case .attendStepPadded128: ("attention_step.cu", "attend_step_padded_128")
        case .attendStepPadded256: ("attention_step.cu", "attend_step_padded_256")
        case .attendPrefill64: ("attention_prefill.cu", "attend_prefill_64")
        case .attendPrefill96: ("attention_prefill.cu", "attend_prefill_96")
        case .attendPrefill128: ("attention_prefill.cu", "attend_prefill_128")
        case .attendPrefill256: ("attention_prefill.cu", "attend_prefill_256")
        case .attendPrefillWide64: ("attention_prefill_wide.cu", "attend_prefill_wide_64")
        case .attendPrefillWide128: ("attention_prefill_wide.cu", "attend_prefill_wide_128")
        case .attendCodes: ("attention.cu", "attend_codes")
        case .attendSplitCodes: ("attention_codes.cu", "attend_split_codes")
        case .attendPrefillCodes64: ("attention_prefill_codes.cu", "attend_prefill_codes_64")
        case .attendPrefillCodes96: ("attention_prefill_codes.cu", "attend_prefill_codes_96")
        case .attendPrefillCodes128: ("attention_prefill_codes.cu", "attend_prefill_codes_128")
        case .attendPrefillCodes256: ("attention_prefill_codes.cu", "attend_prefill_codes_256")
        case .convolve: ("convolve.cu", "convolve")
        case .gatedNorm: ("gated_norm.cu", "gated_norm")
        case .gatedDelta32: ("gated_delta.cu", "gated_delta_32")
        case .gatedDelta64: ("gated_delta.cu", "gated_delta_64")
        case .gatedDelta128: ("gated_delta.cu", "gated_delta_128")
        case .gatedDelta256: ("gated_delta.cu", "gated_delta_256")
        case .stateSpace32: ("state_space.cu", "state_space_32")
        case .stateSpace64: ("state_space.cu", "state_space_64")
        case .stateSpace128: ("state_space.cu", "state_space_128")
        case .stateSpace256: ("state_space.cu", "state_space_256")
        case .rotate: ("rotary.cu", "rotate")
        case .rotateEight: ("rotary.cu", "rotate_eight")
        case .embed: ("embed.cu", "embed")
        case .normalize: ("norm.cu", "normalize")
        case .gate: ("elementwise.cu", "gate")
        case .gateEight: ("elementwise.cu", "gate_eight")
        case .multiply: ("elementwise.cu", "multiply")
        case .add: ("elementwise.cu", "add")
        case .convert: ("elementwise.cu", "convert")
        case .gather: ("elementwise.cu", "gather")
        case .finishLinear: ("elementwise.cu", "finish_linear")
        case .copyBlocks: ("elementwise.cu", "copy_blocks")
        case .selectLargest: ("select.cu", "select_largest")
        case .select: ("select.cu", "select_tokens")
        case .fillTokens: ("select.cu", "fill_tokens")
        case .scores: ("scores.cu", "scores")
        case .route: ("route.cu", "route")
        case .router: ("router.cu", "router")
        case .spreadWeights: ("route.cu", "spread_weights")
        case .groupExperts: ("mixture.cu", "group_experts")
        case .combineExperts: ("mixture.cu", "combine_experts")
        case .stageExperts: ("experts_4bit.cu", "stage_experts")
        case .gemvExperts4Bit: ("experts_few.cu", "gemv_experts_4bit")
        case .gemvExpertsGated4Bit: ("experts_few.cu", "gemv_experts_4bit_gated")
        case .gemmExpertsFew4Bit: ("experts_few.cu", "gemm_experts_4bit_few")
        case .gemmExpertsFewGated4Bit: ("experts_few.cu", "gemm_experts_4bit_few_gated")
        case .gemmExperts4Bit8: ("experts_4bit.cu", "gemm_experts_4bit_8")
        case .gemmExperts4Bit16: ("experts_4bit.cu", "gemm_experts_4bit_16")
        case .gemmExperts4Bit32: ("experts_4bit.cu", "gemm_experts_4bit_32")
        case .gemmExperts4Bit64: ("experts_4bit.cu", "gemm_experts_4bit_64")
        case .stageExpertsWide: ("experts_wide.cu", "stage_experts_wide")
        case .gemmExpertsWide16: ("experts_wide.cu", "gemm_experts_wide_16")
        case .gemmExpertsWide32: ("experts_wide.cu", "gemm_experts_wide_32")
        case .gemmExpertsWide64: ("experts_wide.cu", "gemm_experts_wide_64")
        case .gemmExpertsWide128: ("experts_wide.cu", "gemm_experts_wide_128")
        case .gemvExpertsSingle: ("experts_dense.cu", "gemv_experts_single")
        case .gemvExperts: ("experts_dense.cu", "gemv_experts")
        case .gemmExperts: ("experts_dense.cu", "gemm_experts")
        case .gemvExpertsInt8: ("experts_int8.cu", "gemv_experts_int8")
        case .gemmExpertsInt8: ("experts_int8.cu", "gemm_experts_int8")
        case .sumExpertsOutliers: ("experts_outliers.cu", "sum_experts_outliers")
        }
    }

    /// The forms besides the plain one that its program is also compiled in.
    var forms: KernelForm {
        switch self {
        case .gemv4BitTiled, .gemv4BitTiledFew, .stage4Bit, .stage4BitWide: return [.adapters, .powers, .mixed]
        default: break
        }
        return switch place.program {
        case "linear_4bit_tiled.cu", "linear_4bit_wide.cu": [.adapters, .powers]
        case "linear_dense.cu", "linear_dense_few.cu", "linear_4bit.cu", "linear_int8.cu", "linear_int8_wide.cu",
            "linear_int8_single.cu":
            .adapters
        case "experts_4bit.cu", "experts_wide.cu", "experts_few.cu": .powers
        default: []
        }
    }

    /// Whether there is an instance for each element type.
    var isTyped: Bool {
        switch self {
        case .nestedMean, .nestedQuantize, .tile4Bit, .untile4Bit, .embed, .normalize, .gate, .gateEight, .multiply, .add,
            .convert, .gather,
            .finishLinear, .expand, .shrinkWide, .copyBlocks, .selectLargest, .select, .fillTokens, .scores, .route,
            .spreadWeights,
            .convolve, .gatedDelta32, .gatedDelta64, .gatedDelta128, .gatedDelta256, .stateSpace32, .stateSpace64, .stateSpace128,
            .stateSpace256, .gatedNorm,
            .gemm4BitWide16, .gemm4BitWide32, .gemm4BitWide64, .gemm4BitWide96, .gemm4BitWide128, .groupExperts, .combineExperts,
            .gemmExpertsWide16, .gemmExpertsWide32, .gemmExpertsWide64, .gemmExpertsWide128:
            false
        default: true
        }
    }

    /// Whether there is an instance for `element`: some kernels are for 16-bit floats alone.
    func exists(_ element: KernelElement) -> Bool {
        switch self {
        case .attendStepPadded128, .attendStepPadded256, .attendStep64, .attendStep128, .attendStep256, .gemvSingle, .denseFew,
            .shrinkSingle, .shrinkBeside, .rotateEight,
            .gemv4BitTiled, .gemv4BitTiledFew, .gemv4BitSingle,
            .gemm4BitTiled16,
            .gemm4BitTiled32,
            .gemm4BitTiled64, .gemmInt8Wide8, .gemmInt8Wide16, .gemmInt8Wide32, .gemmInt8Wide64, .gemmInt8Wide128,
            .gemvInt8Single, .stage4BitWide, .attendPrefill64,
            .attendPrefill96,
            .attendPrefill128, .attendPrefill256, .attendPrefillWide64, .attendPrefillWide128,
            .attendPrefillCodes64, .attendPrefillCodes96, .attendPrefillCodes128,
            .attendPrefillCodes256, .router, .gemvExperts4Bit, .gemvExpertsGated4Bit, .gemmExpertsFew4Bit,
            .gemmExpertsFewGated4Bit, .gemmExperts4Bit16, .gemmExperts4Bit32,
            .gemmExperts4Bit64,
            .stageExpertsWide, .gemvExpertsSingle:
            element != .f32
        default: true
        }
    }

    /// Whether it may overlap its neighbours: it lets the next kernel begin early, and waits for the one before it before it reads
    /// anything but weights. Only kernels of a forward pass do; kernels that create weights do not.
    var overlaps: Bool {
        switch self {
        case .gemvSingle, .denseFew, .shrink, .shrinkFew, .shrinkSingle, .shrinkBeside, .expand, .shrinkWide, .gemv, .gemv4Bit,
            .gemvInt8, .gemv4BitTiled,
            .gemv4BitTiledFew, .gemv4BitSingle, .stage4Bit,
            .gemm4BitTiled8,
            .stage4BitWide, .gemm4BitWide16, .gemm4BitWide32, .gemm4BitWide64, .gemm4BitWide96, .gemm4BitWide128, .quantizeRows,
            .attendStep64, .attendStep128, .attendStep256, .sumFewOutliers, .gemmInt8Wide8, .gemmInt8Wide16, .gemmInt8Wide32,
            .gemmInt8Wide64, .gemmInt8Wide128,
            .gemvInt8Single, .sumOutliers, .finishInt8, .attend, .attendSplit, .attendCombine, .attendCodes,
            .attendSplitCodes, .rotate,
            .rotateEight,
            .embed, .normalize, .gate, .gateEight, .multiply, .add, .gather,
            .finishLinear, .convolve, .gatedDelta32, .gatedDelta64, .gatedDelta128, .gatedDelta256, .stateSpace32, .stateSpace64,
            .stateSpace128,
            .stateSpace256, .gatedNorm,
            .selectLargest, .select, .fillTokens, .scores, .route, .router, .spreadWeights,
            .groupExperts, .combineExperts, .gemvExperts4Bit, .gemvExpertsGated4Bit, .gemmExpertsFew4Bit,
            .gemmExpertsFewGated4Bit, .stageExperts, .gemmExperts4Bit8,
            .gemmExperts4Bit16,
            .gemmExperts4Bit32, .gemmExperts4Bit64, .stageExpertsWide, .gemmExpertsWide16, .gemmExpertsWide32,
            .gemmExpertsWide64, .gemmExpertsWide128, .gemvExpertsSingle, .gemvExperts, .gemmExperts, .gemvExpertsInt8,
            .gemmExpertsInt8, .sumExpertsOutliers, .dequantize4BitTiled, .attendPrefillWide64, .attendPrefillWide128:
            true
        default: false
        }
    }

    /// Whether it runs between products of one token, whose blocks take most of a multiprocessor's memory.
    var precedesLargeBlocks: Bool {
        switch self {
        case .gemv4BitSingle, .attendStep64, .attendStep128, .attendStep256, .attendStepPadded128, .attendStepPadded256, .gate,
            .rotate, .normalize, .gemvSingle, .embed, .selectLargest, .select, .fillTokens:
            true
        default: false
        }
    }

    func symbol(_ element: KernelElement) -> String { place.name + (isTyped ? element.suffix : "") }
}
