/// How a cache stores keys and values.
package enum KeyValueFormat: Sendable, Hashable {
    /// float32, float16 or bfloat16
    case dense(DType)
    case quantized(KeyValueQuantization)
}

/// Keys and values as integer codes, quantized when they are stored.
///
/// Each vector of D elements is divided into groups of ``groupSize`` (the last one may be shorter). A group has a float16 scale
/// and a float16 minimum: x ≈ minimum + code × scale, code in 0 ..< 2^``bits``. An element that is not finite makes its group
/// NaN.
///
/// Bytes of one head in one block: the 32 positions' codes, then their (scale, minimum) pairs, [32, groups, 2]. With
/// `perByte` = 8 / ``bits`` codes a byte, a group of n elements takes s = ⌈n / perByte⌉ bytes; element i lies in byte i mod s,
/// shifted left by (i / s) × ``bits``.
public struct KeyValueQuantization: Sendable, Hashable {
    /// Bits that codes may have.
    package static let allowedBits = [8, 4, 2]
    package static let allowedGroupSizes = [16, 32, 64, 128]
    /// The group size where none is given.
    public static let defaultGroupSize = 64

    /// 8, 4 or 2
    public let bits: Int
    /// Elements that share a scale and a minimum.
    public let groupSize: Int

    /// `nil` unless both are among those allowed.
    public init?(bits: Int, groupSize: Int = defaultGroupSize) {
        guard Self.allowedBits.contains(bits), Self.allowedGroupSizes.contains(groupSize) else { return nil }
        self.bits = bits
        self.groupSize = groupSize
    }

    /// Groups of a vector of `size` elements.
    package func groups(_ size: Int) -> Int { (size + groupSize - 1) / groupSize }

    /// Bytes of a vector's codes.
    package func codeBytes(_ size: Int) -> Int {
        let perByte = 8 / bits
        let rest = size % groupSize
        return size / groupSize * (groupSize / perByte) + (rest + perByte - 1) / perByte
    }

    /// Bytes of a vector of `size` elements.
    package func byteCount(_ size: Int) -> Int { codeBytes(size) + groups(size) * 2 * DType.float16.byteCount }
}

extension KeyValueFormat {
    /// Bytes of a vector of `size` elements.
    package func byteCount(_ size: Int) -> Int {
        switch self {
        case .dense(let dtype): size * dtype.byteCount
        case .quantized(let quantization): quantization.byteCount(size)
        }
    }
}

extension KeyValueFormat: CustomStringConvertible {
    package var description: String {
        switch self {
        case .dense(let dtype): "\(dtype)"
        case .quantized(let quantization): "\(quantization.bits)-bit, groups of \(quantization.groupSize)"
        }
    }
}
