package import NibbleCore

/// How a GGUF file stores the elements of a tensor. Raw values are the format's own numbers.
package enum GGUFTensorType: UInt32, Sendable, CaseIterable {
    case f32 = 0
    case f16 = 1
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case q4_0 = 2
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case q4_1 = 3
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case q5_0 = 6
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case q5_1 = 7
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case q8_0 = 8
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case q4_K = 12
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case q5_K = 13
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case q6_K = 14
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case q2_K = 10
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case q3_K = 11
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case iq4_NL = 20
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case iq4_XS = 23
    case mxfp4 = 39
    case i8 = 24
    case i16 = 25
    case i32 = 26
    case i64 = 27
    case f64 = 28
    case bf16 = 30

    /// The names of types that are not read, by their numbers.
    static let otherTypes: [UInt32: String] = [
        9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
        21: "IQ3_S", 22: "IQ2_S", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 40: "NVFP4",
    ]

    /// The dtype of elements that are stored one by one; `nil` for blocks.
    package var dtype: DType? {
        switch self {
        case .f32: .float32
        case .f16: .float16
        case .bf16: .bfloat16
        case .f64: .float64
        case .i8: .int8
        case .i16: .int16
        case .i32: .int32
        case .i64: .int64
        case .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q2_K, .q3_K, .q4_K, .q5_K, .q6_K, .iq4_NL, .iq4_XS, .mxfp4: nil
        }
    }

    /// Elements that share a block: a row holds a whole number of blocks.
    package var blockSize: Int {
        switch self {
        case .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .iq4_NL, .mxfp4: 32
        case .q2_K, .q3_K, .q4_K, .q5_K, .q6_K, .iq4_XS: 256
        default: 1
        }
    }

    /// Bytes of one block.
    package var blockByteCount: Int {
        switch self {
        case .q4_0: 2 + 16
        case .q4_1: 2 + 2 + 16
        case .q5_0: 2 + 4 + 16
        case .q5_1: 2 + 2 + 4 + 16
        case .q8_0: 2 + 32
        case .q2_K: 16 + 64 + 2 + 2
        case .q3_K: 32 + 64 + 12 + 2
        case .iq4_NL: 2 + 16
        case .iq4_XS: 2 + 2 + 4 + 128
        case .mxfp4: 1 + 16
        case .q4_K: 2 + 2 + 12 + 128
        case .q5_K: 2 + 2 + 12 + 32 + 128
        case .q6_K: 128 + 64 + 16 + 2
        default: dtype?.byteCount ?? 1
        }
    }

    /// Bytes of `shape`, whose last extent is a whole number of blocks. `nil` on overflow.
    func byteCount(_ shape: Shape) -> Int? {
        let (bytes, overflow) = (shape.count / blockSize).multipliedReportingOverflow(by: blockByteCount)
        return overflow ? nil : bytes
    }
}
