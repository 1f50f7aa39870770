/// The weight [N, K] of a linear layer, in any stored form. ``Backend/linear(_:_:epilogue:into:)`` takes all of them.
///
/// The first three cases are the canonical layouts, byte for byte as in a checkpoint. ``prepared(_:)`` is a backend's own
/// layout of one of them.
package enum LinearWeight: Sendable {
    /// float32, float16 or bfloat16, row-major [N, K].
    case dense(Tensor)
    case fourBit(FourBitWeight)
    case int8(Int8Weight)
    case prepared(any PreparedWeight)
}

/// A weight in a backend's own layout (rows interleaved, scales beside codes …).
package protocol PreparedWeight: Sendable {
    var format: WeightFormat { get }
    /// N
    var outFeatures: Int { get }
    /// K
    var inFeatures: Int { get }
    /// Bytes it occupies, padding included.
    var byteCount: Int { get }
    /// The exact canonical bytes it was made from.
    func canonical() throws -> LinearWeight
}

/// How a linear weight is stored.
public enum WeightFormat: Sendable, Hashable {
    /// Unquantized, in float32, float16 or bfloat16.
    case dense(DType)
    /// Quantized to 4 bits.
    case fourBit(FourBitFormat)
    /// Quantized to 8 bits, with a scale for each row.
    case int8
}

/// The 4-bit formats of bitsandbytes (QLoRA, arXiv 2305.14314), and MXFP4.
public struct FourBitFormat: Sendable, Hashable {
    /// The sixteen values that codes stand for.
    public enum Codebook: String, Sendable, Hashable, CaseIterable {
        /// FP4 is 4-bit floating point; the values of NF4 are quantiles of a normal distribution. MXFP4 (0, ±0.5 … ±6) is read and
        /// computed with, but nothing is quantized to it.
        case fp4, nf4, mxfp4
    }

    /// The values that codes stand for.
    public var codebook: Codebook
    /// Consecutive elements of the flattened weight that share a scale. Blocks ignore rows.
    public var blockSize: Int
    /// Whether the scales are themselves quantized to 8 bits ("double quantization").
    public var isNested: Bool

    /// The block size of bitsandbytes.
    public static let defaultBlockSize = 64
    /// Scales that share a second-level scale.
    package static let nestedBlockSize = 256
    /// MXFP4: scales are powers of two, of which weights hold the exponents.
    package static let mxfp4 = FourBitFormat(codebook: .mxfp4, blockSize: 32)
    /// Block sizes that can be quantized.
    package static let blockSizes = [32, 64, 128, 256, 512, 1024, 2048, 4096]

    /// A 4-bit format. Block sizes are powers of two from 32 to 4,096.
    public init(codebook: Codebook, blockSize: Int = defaultBlockSize, isNested: Bool = false) {
        self.codebook = codebook
        self.blockSize = blockSize
        self.isNested = isNested
    }
}

/// FP4 or NF4 codes with their scales, in the canonical layout.
package struct FourBitWeight: Sendable {
    package let format: FourBitFormat
    /// N
    package let outFeatures: Int
    /// K
    package let inFeatures: Int
    /// uint8 [⌈NK/2⌉]: two codes a byte over the flattened weight, the first in the high nibble.
    package let codes: Tensor
    package let scales: BlockScales
    /// The dtype the weight had before it was quantized; a checkpoint records it.
    package let sourceDType: DType

    package init(
        format: FourBitFormat, outFeatures: Int, inFeatures: Int, codes: Tensor, scales: BlockScales, sourceDType: DType
    ) {
        self.format = format
        self.outFeatures = outFeatures
        self.inFeatures = inFeatures
        self.codes = codes
        self.scales = scales
        self.sourceDType = sourceDType
    }

    /// Blocks of the flattened weight: ⌈NK / blockSize⌉.
    package var blockCount: Int { (outFeatures * inFeatures + format.blockSize - 1) / format.blockSize }
}

/// One scale (absmax) for each block.
package enum BlockScales: Sendable {
    /// float32 [blocks]
    case plain(Tensor)
    case nested(NestedScales)
    /// uint8 [blocks]: 2^(exponent − 127), as in MXFP4.
    case exponents(Tensor)

    /// 2^(exponent − 127)
    package static func power(_ exponent: UInt8) -> Float {
        Float(bitPattern: exponent == 0 ? 0x0040_0000 : UInt32(exponent) << 23)
    }
}

/// Scales quantized to 8 bits: `map[codes[b]] × absmax[b / 256] + offset`, multiply, then add, in float32.
package struct NestedScales: Sendable {
    /// uint8 [blocks]: indices into the signed dynamic map.
    package let codes: Tensor
    /// float32 [⌈blocks / 256⌉]
    package let absmax: Tensor
    package let offset: Float

    package init(codes: Tensor, absmax: Tensor, offset: Float) {
        self.codes = codes
        self.absmax = absmax
        self.offset = offset
    }
}

/// Row-wise absmax int8 (LLM.int8(), arXiv 2208.07339): `w ≈ values × scales / 127`.
package struct Int8Weight: Sendable {
    /// int8 [N, K]
    package let values: Tensor
    /// float32 [N]: each row's absmax, not divided by 127 ("SCB").
    package let scales: Tensor

    package init(values: Tensor, scales: Tensor) {
        self.values = values
        self.scales = scales
    }
}

extension LinearWeight {
    package var format: WeightFormat {
        switch self {
        case .dense(let tensor): .dense(tensor.dtype)
        case .fourBit(let weight): .fourBit(weight.format)
        case .int8: .int8
        case .prepared(let weight): weight.format
        }
    }

    /// N
    package var outFeatures: Int {
        switch self {
        case .dense(let tensor): tensor.shape[0]
        case .fourBit(let weight): weight.outFeatures
        case .int8(let weight): weight.values.shape[0]
        case .prepared(let weight): weight.outFeatures
        }
    }

    /// K
    package var inFeatures: Int {
        switch self {
        case .dense(let tensor): tensor.shape[1]
        case .fourBit(let weight): weight.inFeatures
        case .int8(let weight): weight.values.shape[1]
        case .prepared(let weight): weight.inFeatures
        }
    }

    /// Bytes of codes and scales together.
    package var byteCount: Int {
        switch self {
        case .dense(let tensor): tensor.byteCount
        case .fourBit(let weight): weight.codes.byteCount + weight.scales.byteCount
        case .int8(let weight): weight.values.byteCount + weight.scales.byteCount
        case .prepared(let weight): weight.byteCount
        }
    }

    /// The same weight with each tensor replaced by `transform` of it. A prepared weight is returned unchanged.
    package func mapTensors(_ transform: (Tensor) throws -> Tensor) rethrows -> LinearWeight {
        switch self {
        case .dense(let tensor): return .dense(try transform(tensor))
        case .int8(let weight):
            return .int8(Int8Weight(values: try transform(weight.values), scales: try transform(weight.scales)))
        case .fourBit(let weight):
            let codes = try transform(weight.codes)
            let scales: BlockScales =
                switch weight.scales {
                case .plain(let absmax): .plain(try transform(absmax))
                case .nested(let nested):
                    .nested(
                        NestedScales(
                            codes: try transform(nested.codes), absmax: try transform(nested.absmax), offset: nested.offset))
                case .exponents(let exponents): .exponents(try transform(exponents))
                }
            return .fourBit(
                FourBitWeight(
                    format: weight.format, outFeatures: weight.outFeatures, inFeatures: weight.inFeatures, codes: codes,
                    scales: scales, sourceDType: weight.sourceDType))
        case .prepared: return self
        }
    }

    /// The weight in its canonical layout.
    package func canonical() throws -> LinearWeight {
        if case .prepared(let weight) = self { try weight.canonical() } else { self }
    }
}

extension BlockScales {
    package var byteCount: Int {
        switch self {
        case .plain(let absmax): absmax.byteCount
        case .nested(let scales): scales.codes.byteCount + scales.absmax.byteCount
        case .exponents(let exponents): exponents.byteCount
        }
    }
}
