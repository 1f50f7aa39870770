/// Every kernel the host launches.
enum Kernel: Int, CaseIterable {
    // linear_dense.cu
    case gemvOne, gemv, gemm
    // linear_4bit.cu
    case gemv4, dequantize4
    // linear_4bit_tiled.cu, repack4.cu
    case tiledOne4, tiledOneFew4, stage4, tiledEight4, tiledSixteen4, tiledThirtyTwo4, tiledSixtyFour4
    case repack4, unpack4, dequantizeTiled4
    // linear_int8.cu
    case markOutliers, quantizeRows, gemv8, gemm8, finishInt8, dequantize8
    // linear_int8_outliers.cu
    case sumFewOutliers, sumOutliers
    // quantize.cu
    case quantize4, quantize8, nestedMean, nestedQuantize
    // attention.cu, attention_decode.cu, attention_prefill.cu
    case attend, attendCombine,
        attendSplit8, attendSplit16, attendSplit32, attendSplitGrouped8, attendSplitGrouped16, attendSplitGrouped32,
        attendPrefill64, attendPrefill96, attendPrefill128, attendPrefill256
    // attention.cu, attention_codes.cu, attention_prefill_codes.cu: quantized caches
    case attendCodes, attendSplitCodes, attendPrefillCodes64, attendPrefillCodes96, attendPrefillCodes128, attendPrefillCodes256
    // The others; typed only where it says so.
    case rotate, rotateEight
    case embed, normalize, gate, gateEight, add, convert, gather, finishLinear, copyBlocks, selectLargest, select, advance, route

    /// The file it stands in and its name there, without the type's suffix.
    var place: (program: String, name: String) {
        switch self {
        case .gemv: ("linear_dense.cu", "gemv")
        case .gemvOne: ("linear_dense.cu", "gemv_1")
        case .gemm: ("linear_dense.cu", "gemm")
        case .gemv4: ("linear_4bit.cu", "gemv4")
        case .dequantize4: ("linear_4bit.cu", "dequantize4")
        case .tiledOne4: ("linear_4bit_tiled.cu", "tiled4_1")
        case .tiledOneFew4: ("linear_4bit_tiled.cu", "tiled4_1_few")
        case .stage4: ("linear_4bit_tiled.cu", "stage4")
        case .tiledEight4: ("linear_4bit_tiled.cu", "tiled4_8")
        case .tiledSixteen4: ("linear_4bit_tiled.cu", "tiled4_16")
        case .tiledThirtyTwo4: ("linear_4bit_tiled.cu", "tiled4_32")
        case .tiledSixtyFour4: ("linear_4bit_tiled.cu", "tiled4_64")
        case .repack4: ("repack4.cu", "repack4")
        case .unpack4: ("repack4.cu", "unpack4")
        case .dequantizeTiled4: ("repack4.cu", "dequantize4_tiled")
        case .markOutliers: ("linear_int8.cu", "int8_mark")
        case .quantizeRows: ("linear_int8.cu", "int8_quantize")
        case .gemv8: ("linear_int8.cu", "gemv8")
        case .gemm8: ("linear_int8.cu", "gemm8")
        case .finishInt8: ("linear_int8.cu", "int8_finish")
        case .dequantize8: ("linear_int8.cu", "dequantize8")
        case .sumFewOutliers: ("linear_int8_outliers.cu", "int8_outliers_few")
        case .sumOutliers: ("linear_int8_outliers.cu", "int8_outliers")
        case .quantize4: ("quantize.cu", "quantize4")
        case .quantize8: ("quantize.cu", "quantize8")
        case .nestedMean: ("quantize.cu", "nested_mean")
        case .nestedQuantize: ("quantize.cu", "nested_quantize")
        case .attend: ("attention.cu", "attend")
        case .attendSplit8: ("attention_decode.cu", "attend_split_8")
        case .attendSplit16: ("attention_decode.cu", "attend_split_16")
        case .attendSplit32: ("attention_decode.cu", "attend_split_32")
        case .attendSplitGrouped8: ("attention_decode.cu", "attend_split_8_grouped")
        case .attendSplitGrouped16: ("attention_decode.cu", "attend_split_16_grouped")
        case .attendSplitGrouped32: ("attention_decode.cu", "attend_split_32_grouped")
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
        case .finishLinear: ("elementwise.cu", "linear_finish")
        case .copyBlocks: ("elementwise.cu", "copy_blocks")
        case .selectLargest: ("select.cu", "select_largest")
        case .select: ("select.cu", "select_tokens")
        case .advance: ("select.cu", "advance")
        case .route: ("route.cu", "route")
        }
    }

    /// Whether there is an instance for each element type.
    var isTyped: Bool {
        switch self {
        case .nestedMean, .nestedQuantize, .repack4, .unpack4, .embed, .normalize, .gate, .gateEight, .add, .convert, .gather,
            .finishLinear,
            .copyBlocks, .selectLargest, .select, .advance, .route:
            false
        default: true
        }
    }

    /// Whether there is an instance for `element`: some kernels are for 16-bit floats alone.
    func exists(_ element: KernelElement) -> Bool {
        switch self {
        case .gemvOne, .rotateEight, .tiledOne4, .tiledOneFew4, .tiledSixteen4, .tiledThirtyTwo4, .tiledSixtyFour4,
            .attendPrefill64,
            .attendPrefill96,
            .attendPrefill128, .attendPrefill256, .attendPrefillCodes64, .attendPrefillCodes96, .attendPrefillCodes128,
            .attendPrefillCodes256:
            element != .f32
        default: true
        }
    }

    /// Whether it tells the next kernel to begin early and itself waits for the one before, before it touches anything but
    /// weights. Only kernels of a forward pass do; what makes weights does not.
    var overlaps: Bool {
        switch self {
        case .gemvOne, .gemv, .gemv4, .gemv8, .tiledOne4, .tiledOneFew4, .stage4, .tiledEight4, .quantizeRows, .sumFewOutliers,
            .sumOutliers, .finishInt8, .attend, .attendSplit8, .attendSplit16, .attendSplit32, .attendSplitGrouped8,
            .attendSplitGrouped16, .attendSplitGrouped32, .attendCombine, .attendCodes, .attendSplitCodes, .rotate, .rotateEight,
            .embed, .normalize, .gate, .gateEight, .add, .gather,
            .finishLinear,
            .selectLargest, .select, .advance, .route:
            true
        default: false
        }
    }

    func symbol(_ element: KernelElement) -> String { place.name + (isTyped ? element.suffix : "") }
}
