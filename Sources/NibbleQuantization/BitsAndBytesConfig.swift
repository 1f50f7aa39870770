public import NibbleCore

/// How a model's linear layers are quantized, under the names `BitsAndBytesConfig` has in transformers.
///
/// The defaults are the reference's: plain `loadIn4Bit` means FP4 with blocks of 64 and no nested scales.
public struct BitsAndBytesConfig: Sendable, Hashable {
    /// Quantizes to 8 bits (LLM.int8()).
    public var loadIn8Bit: Bool
    /// Quantizes to 4 bits.
    public var loadIn4Bit: Bool
    /// int8: inputs with |x| ≥ threshold are multiplied in floating point; 0 turns that off.
    public var int8Threshold: Double
    /// Modules that stay unquantized. `nil`: the default list (output embedding, tied modules, the last module).
    /// Applies to 4 bits as well, despite its name.
    public var int8SkipModules: [String]?
    /// Whether modules that a device map puts on the CPU or the disk stay unquantized.
    public var int8EnableFP32CPUOffload: Bool
    /// Only affects training in the reference.
    public var int8HasFP16Weight: Bool
    /// 4 bits: the dtype that activations and dequantized weights are rounded to before a product. `nil`: the load dtype.
    public var computeDType: DType?
    /// 4 bits: FP4 or NF4.
    public var quantType: FourBitFormat.Codebook
    /// 4 bits: whether the scales are quantized, too.
    public var useDoubleQuant: Bool
    /// The dtype that packed codes are labelled with in a file. The bytes are the same.
    public var quantStorage: DType
    /// Weights that share a scale. The reference has no such option and always uses 64.
    public var blockSize: Int

    /// The outlier threshold of LLM.int8().
    public static let defaultThreshold = 6.0
    package static let storageDTypes: [DType] = [.float16, .float32, .int8, .uint8, .float64, .bfloat16]

    /// A configuration; exactly one of `loadIn8Bit` and `loadIn4Bit` must be true, see ``validate()``.
    public init(
        loadIn8Bit: Bool = false, loadIn4Bit: Bool = false, int8Threshold: Double = defaultThreshold,
        int8SkipModules: [String]? = nil, int8EnableFP32CPUOffload: Bool = false, int8HasFP16Weight: Bool = false,
        computeDType: DType? = nil, quantType: FourBitFormat.Codebook = .fp4, useDoubleQuant: Bool = false,
        quantStorage: DType = .uint8, blockSize: Int = FourBitFormat.defaultBlockSize
    ) {
        self.loadIn8Bit = loadIn8Bit
        self.loadIn4Bit = loadIn4Bit
        self.int8Threshold = int8Threshold
        self.int8SkipModules = int8SkipModules
        self.int8EnableFP32CPUOffload = int8EnableFP32CPUOffload
        self.int8HasFP16Weight = int8HasFP16Weight
        self.computeDType = computeDType
        self.quantType = quantType
        self.useDoubleQuant = useDoubleQuant
        self.quantStorage = quantStorage
        self.blockSize = blockSize
    }

    /// The format of quantized weights.
    package var format: WeightFormat {
        loadIn8Bit ? .int8 : .fourBit(FourBitFormat(codebook: quantType, blockSize: blockSize, isNested: useDoubleQuant))
    }

    /// The format in words, such as "nf4 with nested scales".
    package var formatName: String { format.name }

    /// The reference's word for the method: `llm_int8`, `fp4` or `nf4`.
    package var method: String { loadIn8Bit ? "llm_int8" : quantType.rawValue }

    /// - Throws: ``QuantizationConfigError``
    public func validate() throws {
        if loadIn4Bit && loadIn8Bit { throw QuantizationConfigError.bothLoads }
        if !loadIn4Bit && !loadIn8Bit { throw QuantizationConfigError.neitherLoad }
        guard int8Threshold >= 0, int8Threshold.isFinite else {
            throw QuantizationConfigError.wrongValue(
                "llm_int8_threshold", expected: "a number of at least 0", found: "\(int8Threshold)")
        }
        if let computeDType, ![.float32, .float16, .bfloat16].contains(computeDType) {
            throw QuantizationConfigError.wrongValue(
                "bnb_4bit_compute_dtype", expected: "float32, float16 or bfloat16", found: computeDType.rawValue)
        }
        guard BitsAndBytesConfig.storageDTypes.contains(quantStorage) else {
            throw QuantizationConfigError.wrongValue(
                "bnb_4bit_quant_storage",
                expected: "one of " + BitsAndBytesConfig.storageDTypes.map(\.rawValue).joined(separator: ", "),
                found: quantStorage.rawValue)
        }
        guard quantType != .mxfp4 else {
            throw QuantizationConfigError.wrongValue("bnb_4bit_quant_type", expected: "fp4 or nf4", found: "\"mxfp4\"")
        }
        guard FourBitFormat.blockSizes.contains(blockSize) else {
            throw QuantizationConfigError.wrongValue(
                "block size", expected: "one of " + FourBitFormat.blockSizes.map(String.init).joined(separator: ", "),
                found: String(blockSize))
        }
    }
}

extension WeightFormat {
    /// In words, such as "nf4 with nested scales".
    package var name: String {
        switch self {
        case .dense(let dtype): return dtype.rawValue
        case .int8: return "int8"
        case .fourBit(let format):
            let blocks = format.blockSize == FourBitFormat.defaultBlockSize ? "" : " in blocks of \(format.blockSize)"
            return format.codebook.rawValue + blocks + (format.isNested ? " with nested scales" : "")
        }
    }
}

/// A quantization config that cannot be used.
public enum QuantizationConfigError: Error, Sendable, Equatable {
    /// Both 4 and 8 bits are asked for.
    case bothLoads
    /// Neither 4 nor 8 bits are asked for.
    case neitherLoad
    /// An option has a value that cannot be used.
    case wrongValue(String, expected: String, found: String)
    /// The checkpoint is quantized by a method that is not read.
    case unknownMethod(String)
}

extension QuantizationConfigError: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .bothLoads:
            "load_in_4bit and load_in_8bit are both True, but only one can be used at the same time"
        case .neitherLoad:
            "a quantization config needs load_in_4bit or load_in_8bit; neither is set, so nothing would be quantized"
        case .wrongValue(let option, let expected, let found):
            "\(option) should be \(expected), found \(found)"
        case .unknownMethod(let method):
            "weights quantized by \"\(method)\" are not read; load the 16-bit model that they were made from, and quantize it while "
                + "it is loaded (--load-in-4bit)"
        }
    }
}
