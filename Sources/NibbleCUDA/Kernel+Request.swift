internal import CNibbleCUDA
internal import NibbleCore

extension Kernel {
    /// Whether steps of the model that `request` describes may call it on a card of compute capability `level` (90 for 9.0).
    func isWanted(by request: KernelRequest, level: Int) -> Bool {
        let hasFourBit = request.formats.contains(where: \.isFourBit)
        let hasInt8 = request.formats.contains(.int8)
        return switch place.program {
        case "linear_4bit.cu", "tiling_4bit.cu": hasFourBit
        case "linear_4bit_tiled.cu": hasFourBit && (level < 90 || !isReplacedByWide)
        case "linear_4bit_wide.cu": hasFourBit && level >= 90
        case "linear_4bit_single.cu": level >= 90 && request.formats.contains(where: \.hasFloatScales)
        case "linear_int8.cu", "quantize_rows.cu", "sum_outliers.cu": hasInt8
        case "linear_int8_wide.cu", "linear_int8_single.cu": hasInt8 && level >= 90
        case "quantize.cu": hasFourBit || hasInt8
        // Adapters arrive after the model.
        case "low_rank.cu", "shrink_wide.cu": false
        case "attention_step.cu": request.headSizes.contains { Kernel.attendStep(headSize: $0).kernel == self }
        case "attention_prefill.cu": request.headSizes.contains { Kernel.attendPrefill(headSize: $0, isDense: true) == self }
        case "attention_prefill_wide.cu":
            level >= 90 && request.headSizes.contains { Kernel.attendPrefillWide(headSize: $0) == self }
        case "attention_prefill_codes.cu":
            request.hasQuantizedCache && request.headSizes.contains { Kernel.attendPrefill(headSize: $0, isDense: false) == self }
        case "attention_codes.cu": request.hasQuantizedCache
        case "attention_decode.cu":
            request.hasRelativeBiases || request.dtypes.contains(.float32)
                || !request.headSizes.allSatisfy { nibble_step_supports(Int32($0), Int32($0)) != 0 }
        case "convolve.cu", "gated_norm.cu": request.hasRecurrences
        case "gated_delta.cu": request.stateSizes.contains { Kernel.gatedDelta(stateSize: $0) == self }
        case "state_space.cu": request.stateSizes.contains { Kernel.stateSpace(stateSize: $0) == self }
        case "router.cu", "route.cu", "mixture.cu": request.hasExperts
        case "experts_4bit.cu", "experts_few.cu": request.hasExperts && hasFourBit
        case "experts_wide.cu": request.hasExperts && hasFourBit && level >= 90
        case "experts_dense.cu": request.hasExperts && !hasFourBit && !hasInt8
        case "experts_int8.cu", "experts_outliers.cu": request.hasExperts && hasInt8
        default: true
        }
    }

    /// The forms in which such steps call it: for MXFP4 and for others, for inputs of another dtype and of its own.
    func forms(for request: KernelRequest) -> [KernelForm] {
        let formats = request.formats.filter(\.isFourBit)
        let hasPowers = formats.contains(.fourBit(.mxfp4))
        let scales: [KernelForm] = (hasPowers ? [.powers] : []) + (formats.count > 1 || !hasPowers ? [[]] : [])
        let inputs: [KernelForm] = request.dtypes.isSuperset(of: [.float16, .bfloat16]) ? [.mixed, []] : [[]]
        let wanted = scales.flatMap { form in inputs.map { form.union($0).intersection(forms) } }
        return Array(Set(wanted))
    }

    /// Whether its program is compiled for it alone, so that several are compiled at a time, and no instance for other sizes.
    var isCompiledAlone: Bool {
        switch place.program {
        case "linear_dense.cu", "linear_4bit.cu", "linear_4bit_tiled.cu", "linear_4bit_wide.cu", "linear_int8.cu",
            "linear_int8_wide.cu", "experts_4bit.cu", "experts_few.cu", "experts_wide.cu", "attention_step.cu",
            "attention_prefill.cu", "attention_prefill_wide.cu", "attention_prefill_codes.cu", "rotary.cu", "gated_delta.cu",
            "state_space.cu":
            true
        default: false
        }
    }

    private var isReplacedByWide: Bool {
        switch self {
        case .gemm4BitTiled16, .gemm4BitTiled32, .gemm4BitTiled64: true
        default: false
        }
    }
}

// MARK: Instances for sizes

extension Kernel {
    /// The instance of attention of one token, and the elements of a head that it is compiled for.
    static func attendStep(headSize: Int) -> (kernel: Kernel, width: Int) {
        switch headSize {
        case 64: (.attendStep64, 64)
        case 128: (.attendStep128, 128)
        case 256: (.attendStep256, 256)
        case ...128: (.attendStepPadded128, 128)
        default: (.attendStepPadded256, 256)
        }
    }

    /// - Parameter isDense: whether the cache is not quantized.
    static func attendPrefill(headSize: Int, isDense: Bool) -> Kernel {
        switch nibble_prefill_width(Int32(headSize)) {
        case 64: isDense ? .attendPrefill64 : .attendPrefillCodes64
        case 96: isDense ? .attendPrefill96 : .attendPrefillCodes96
        case 128: isDense ? .attendPrefill128 : .attendPrefillCodes128
        default: isDense ? .attendPrefill256 : .attendPrefillCodes256
        }
    }

    /// `nil` for other heads than those of 64 and 128 elements.
    static func attendPrefillWide(headSize: Int) -> Kernel? {
        headSize == 64 ? .attendPrefillWide64 : headSize == 128 ? .attendPrefillWide128 : nil
    }

    /// `nil` above 256 elements.
    static func gatedDelta(stateSize: Int) -> Kernel? {
        instance(for: stateSize, [.gatedDelta32, .gatedDelta64, .gatedDelta128, .gatedDelta256])
    }

    /// `nil` above 256 elements.
    static func stateSpace(stateSize: Int) -> Kernel? {
        instance(for: stateSize, [.stateSpace32, .stateSpace64, .stateSpace128, .stateSpace256])
    }

    private static func instance(for size: Int, _ kernels: [Kernel]) -> Kernel? {
        zip([32, 64, 128, Int(NIBBLE_STATE_MAX_SIZE)], kernels).first { size <= $0.0 }?.1
    }
}

extension WeightFormat {
    fileprivate var isFourBit: Bool { if case .fourBit = self { true } else { false } }
    /// Whether it is a 4-bit format whose blocks have float32 scales.
    fileprivate var hasFloatScales: Bool {
        if case .fourBit(let format) = self { !format.isNested && format.codebook != .mxfp4 } else { false }
    }
}
