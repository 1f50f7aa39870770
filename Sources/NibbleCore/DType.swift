/// The element type of a tensor, with the names safetensors and `torch` give it.
public enum DType: String, Sendable, Hashable, CaseIterable {
    /// Floating-point numbers.
    case float64, float32, float16, bfloat16
    /// Signed integers.
    case int64, int32, int16, int8
    /// Unsigned integers.
    case uint64, uint32, uint16, uint8
    /// One byte, 0 or 1.
    case bool
    /// 8-bit floating point with 4 exponent bits, without infinities.
    case float8E4M3 = "float8_e4m3fn"
    /// 8-bit floating point with 5 exponent bits.
    case float8E5M2 = "float8_e5m2"

    /// Bytes of one element.
    public var byteCount: Int {
        switch self {
        case .float64, .int64, .uint64: 8
        case .float32, .int32, .uint32: 4
        case .float16, .bfloat16, .int16, .uint16: 2
        case .int8, .uint8, .bool, .float8E4M3, .float8E5M2: 1
        }
    }

    /// Whether the elements are floating-point numbers, the 8-bit formats included.
    public var isFloatingPoint: Bool {
        switch self {
        case .float64, .float32, .float16, .bfloat16, .float8E4M3, .float8E5M2: true
        default: false
        }
    }

    /// Reads the words used in `config.json` and on the command line: `float16`, `torch.float16`, and the short forms
    /// `fp16`, `half`, `bf16`, `fp32`, `float`.
    public init?(name: String) {
        let word = name.hasPrefix("torch.") ? String(name.dropFirst("torch.".count)) : name
        switch word {
        case "fp32", "float": self = .float32
        case "fp16", "half": self = .float16
        case "bf16": self = .bfloat16
        case "double": self = .float64
        default:
            guard let exact = DType(rawValue: word) else { return nil }
            self = exact
        }
    }
}

extension DType: CustomStringConvertible {
    /// The name that safetensors and `torch` use.
    public var description: String { rawValue }
}
