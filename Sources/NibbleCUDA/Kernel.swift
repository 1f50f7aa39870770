/// Every kernel the host launches.
enum Kernel: Int, CaseIterable {
    // linear_dense.cu
    case gemvSingle, gemv, gemm
    // linear_4bit.cu
    case gemv4Bit, dequantize4Bit
    // linear_4bit_tiled.cu, tiling_4bit.cu
    case gemv4BitTiled, gemv4BitTiledFew, stage4Bit, gemm4BitTiled8, gemm4BitTiled16, gemm4BitTiled32, gemm4BitTiled64
    case tile4Bit, untile4Bit, dequantize4BitTiled
    // linear_4bit_wide.cu
    case stage4BitWide, gemm4BitWide16, gemm4BitWide32, gemm4BitWide64, gemm4BitWide96, gemm4BitWide128
    // linear_int8.cu
    case markOutliers, quantizeRows, gemvInt8, gemmInt8, finishInt8, dequantizeInt8
    // sum_outliers.cu
    case sumFewOutliers, sumOutliers
    // quantize.cu
    case quantize4Bit, quantizeInt8, nestedMean, nestedQuantize
    // attention.cu, attention_decode.cu, attention_prefill.cu
    case attend, attendSplit, attendCombine, attendPrefill64, attendPrefill96, attendPrefill128, attendPrefill256
    // attention.cu, attention_codes.cu, attention_prefill_codes.cu: quantized caches
    case attendCodes, attendSplitCodes, attendPrefillCodes64, attendPrefillCodes96, attendPrefillCodes128, attendPrefillCodes256
    // rotary.cu, and the untyped kernels of elementwise/
    case rotate, rotateEight
    case embed, normalize, gate, gateEight, add, convert, gather, finishLinear, copyBlocks, selectLargest, select, fillTokens,
        scores, route

    /// Its program and its name there, without the type suffix.
    var place: (program: String, name: String) {
        switch self {
        case .gemv: ("linear_dense.cu", "gemv")
        case .gemvSingle: ("linear_dense.cu", "gemv_single")
        case .gemm: ("linear_dense.cu", "gemm")
        case .gemv4Bit: ("linear_4bit.cu", "gemv_4bit")
        case .dequantize4Bit: ("linear_4bit.cu", "dequantize_4bit")
        case .gemv4BitTiled: ("linear_4bit_tiled.cu", "gemv_4bit_tiled")
        case .gemv4BitTiledFew: ("linear_4bit_tiled.cu", "gemv_4bit_tiled_few")
        case .stage4Bit: ("linear_4bit_tiled.cu", "stage_4bit")
        case .gemm4BitTiled8: ("linear_4bit_tiled.cu", "gemm_4bit_tiled_8")
        case .gemm4BitTiled16: ("linear_4bit_tiled.cu", "gemm_4bit_tiled_16")
        case .gemm4BitTiled32: ("linear_4bit_tiled.cu", "gemm_4bit_tiled_32")
        case .gemm4BitTiled64: ("linear_4bit_tiled.cu", "gemm_4bit_tiled_64")
        case .stage4BitWide: ("linear_4bit_wide.cu", "stage_4bit_wide")
        case .gemm4BitWide16: ("linear_4bit_wide.cu", "gemm_4bit_wide_16")
        case .gemm4BitWide32: ("linear_4bit_wide.cu", "gemm_4bit_wide_32")
        case .gemm4BitWide64: ("linear_4bit_wide.cu", "gemm_4bit_wide_64")
        case .gemm4BitWide96: ("linear_4bit_wide.cu", "gemm_4bit_wide_96")
        case .gemm4BitWide128: ("linear_4bit_wide.cu", "gemm_4bit_wide_128")
        case .tile4Bit: ("tiling_4bit.cu", "tile_4bit")
        case .untile4Bit: ("tiling_4bit.cu", "untile_4bit")
        case .dequantize4BitTiled: ("tiling_4bit.cu", "dequantize_4bit_tiled")
        case .markOutliers: ("linear_int8.cu", "mark_outliers")
        case .quantizeRows: ("linear_int8.cu", "quantize_rows")
        case .gemvInt8: ("linear_int8.cu", "gemv_int8")
        case .gemmInt8: ("linear_int8.cu", "gemm_int8")
        case .finishInt8: ("linear_int8.cu", "finish_int8")
        case .dequantizeInt8: ("linear_int8.cu", "dequantize_int8")
        case .sumFewOutliers: ("sum_outliers.cu", "sum_outliers_few")
        case .sumOutliers: ("sum_outliers.cu", "sum_outliers")
        case .quantize4Bit: ("quantize.cu", "quantize_4bit")
        case .quantizeInt8: ("quantize.cu", "quantize_int8")
        case .nestedMean: ("quantize.cu", "nested_mean")
        case .nestedQuantize: ("quantize.cu", "nested_quantize")
        case .attend: ("attention.cu", "attend")
        case .attendSplit: ("attention_decode.cu", "attend_split")
        case .attendCombine: ("attention_decode.cu", "attend_combine")
        case .attendPrefill64: ("attention_prefill.cu", "attend_prefill_64")
        case .attendPrefill96: ("attention_prefill.cu", "attend_prefill_96")
        case .attendPrefill128: ("attention_prefill.cu", "attend_prefill_128")
        case .attendPrefill256: ("attention_prefill.cu", "attend_prefill_256")
        case .attendCodes: ("attention.cu", "attend_codes")
        case .attendSplitCodes: ("attention_codes.cu", "attend_split_codes")
        case .attendPrefillCodes64: ("attention_prefill_codes.cu", "attend_prefill_codes_64")
        case .attendPrefillCodes96: ("attention_prefill_codes.cu", "attend_prefill_codes_96")
        case .attendPrefillCodes128: ("attention_prefill_codes.cu", "attend_prefill_codes_128")
        case .attendPrefillCodes256: ("attention_prefill_codes.cu", "attend_prefill_codes_256")
        case .rotate: ("rotary.cu", "rotate")
        case .rotateEight: ("rotary.cu", "rotate_eight")
        case .embed: ("embed.cu", "embed")
        case .normalize: ("norm.cu", "normalize")
        case .gate: ("elementwise.cu", "gate")
        case .gateEight: ("elementwise.cu", "gate_eight")
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
        }
    }

    /// Whether there is an instance for each element type.
    var isTyped: Bool {
        switch self {
        case .nestedMean, .nestedQuantize, .tile4Bit, .untile4Bit, .embed, .normalize, .gate, .gateEight, .add, .convert, .gather,
            .finishLinear,
            .copyBlocks, .selectLargest, .select, .fillTokens, .scores, .route,
            .gemm4BitWide16, .gemm4BitWide32, .gemm4BitWide64, .gemm4BitWide96, .gemm4BitWide128:
            false
        default: true
        }
    }

    /// Whether there is an instance for `element`: some kernels are for 16-bit floats alone.
    func exists(_ element: KernelElement) -> Bool {
        switch self {
        case .gemvSingle, .rotateEight, .gemv4BitTiled, .gemv4BitTiledFew, .gemm4BitTiled16, .gemm4BitTiled32, .gemm4BitTiled64,
            .stage4BitWide, .attendPrefill64,
            .attendPrefill96,
            .attendPrefill128, .attendPrefill256, .attendPrefillCodes64, .attendPrefillCodes96, .attendPrefillCodes128,
            .attendPrefillCodes256:
            element != .f32
        default: true
        }
    }

    /// Whether it may overlap its neighbours: it lets the next kernel begin early, and waits for the one before it before it reads
    /// anything but weights. Only kernels of a forward pass do; kernels that create weights do not.
    var overlaps: Bool {
        switch self {
        case .gemvSingle, .gemv, .gemv4Bit, .gemvInt8, .gemv4BitTiled, .gemv4BitTiledFew, .stage4Bit, .gemm4BitTiled8,
            .stage4BitWide, .gemm4BitWide16, .gemm4BitWide32, .gemm4BitWide64, .gemm4BitWide96, .gemm4BitWide128, .quantizeRows,
            .sumFewOutliers,
            .sumOutliers, .finishInt8, .attend, .attendSplit, .attendCombine, .attendCodes, .attendSplitCodes, .rotate,
            .rotateEight,
            .embed, .normalize, .gate, .gateEight, .add, .gather,
            .finishLinear,
            .selectLargest, .select, .fillTokens, .scores, .route:
            true
        default: false
        }
    }

    func symbol(_ element: KernelElement) -> String { place.name + (isTyped ? element.suffix : "") }
}
