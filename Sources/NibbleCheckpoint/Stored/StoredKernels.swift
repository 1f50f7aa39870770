internal import CNibbleCPU
import NibbleCore

/// The C kernels of one instruction level that turn codes into float32.
package struct StoredKernels: Sendable, CustomStringConvertible {
    /// Of the level's table, which is never freed.
    private let address: UInt

    /// The level that this process computes with.
    package static let standard: StoredKernels = {
        guard let kernels = nibble_standard_level() else { preconditionFailure("no instruction level") }
        return StoredKernels(kernels)
    }()

    /// Every level this machine runs. The first is the plain one.
    package static let available: [StoredKernels] = (0..<nibble_level_count()).compactMap { nibble_level($0) }
        .filter { nibble_level_is_supported($0) }.map(StoredKernels.init)

    private init(_ kernels: OpaquePointer) { address = UInt(bitPattern: kernels) }

    private var kernels: OpaquePointer {
        guard let kernels = OpaquePointer(bitPattern: address) else { preconditionFailure("no kernels") }
        return kernels
    }

    package var description: String { String(cString: nibble_level_name(kernels)) }

    /// What a code stands for. Of the last two there are two a byte, the first in the low nibble.
    package enum Code: Sendable {
        case e4m3, e5m2, int8, uint8, e2m1, uint4

        /// `nil` for a dtype that holds no codes.
        init?(_ dtype: DType) {
            switch dtype {
            case .float8E4M3: self = .e4m3
            case .float8E5M2: self = .e5m2
            case .int8: self = .int8
            default: return nil
            }
        }

        fileprivate var kernel: nibble_code {
            switch self {
            case .e4m3: NIBBLE_CODE_E4M3
            case .e5m2: NIBBLE_CODE_E5M2
            case .int8: NIBBLE_CODE_INT8
            case .uint8: NIBBLE_CODE_UINT8
            case .e2m1: NIBBLE_CODE_E2M1
            case .uint4: NIBBLE_CODE_UINT4
            }
        }
    }

    /// The scales of one row: column k has `scales[k / block × step]`, and the zero point of the same index.
    package struct RowScales {
        package var scales: UnsafePointer<Float>
        package var zeros: UnsafePointer<Float>?
        package var block: Int
        package var step: Int

        package init(scales: UnsafePointer<Float>, zeros: UnsafePointer<Float>?, block: Int, step: Int) {
            (self.scales, self.zeros, self.block, self.step) = (scales, zeros, block, step)
        }
    }

    /// w = (value − zero) × scale
    package func decode(
        _ code: Code, _ codes: UnsafePointer<UInt8>, width: Int, _ row: RowScales, into target: UnsafeMutablePointer<Float>
    ) {
        var scales = nibble_row_scales(scales: row.scales, zeros: row.zeros, block: row.block, step: row.step)
        nibble_decode_row(kernels, code.kernel, codes, width, &scales, target)
    }

    /// Rounds float32 to `dtype`, which has 16 bits.
    func narrow(_ source: UnsafePointer<Float>, to dtype: DType, _ target: UnsafeMutableRawPointer, count: Int) {
        nibble_narrow(kernels, Int32(dtype == .float16 ? nibble_float16 : nibble_bfloat16), source, target, count)
    }

    /// The elements of a tensor of scales as float32; `nil` for a dtype that scales do not have.
    /// - Parameter arePowers: bytes are exponents (E8M0).
    func scales(_ tensor: Tensor, arePowers: Bool) -> [Float]? {
        let bytes = tensor.hostBytes
        guard let source = bytes.baseAddress, tensor.count > 0 else { return [] }
        let dtype: Int32
        switch tensor.dtype {
        case .uint8 where arePowers: dtype = -1
        case .float32: dtype = Int32(nibble_float32)
        case .float16: dtype = Int32(nibble_float16)
        case .bfloat16: dtype = Int32(nibble_bfloat16)
        case .float8E4M3: dtype = Int32(nibble_float8_e4m3)
        default: return nil
        }
        return [Float](unsafeUninitializedCapacity: tensor.count) { buffer, count in
            guard let target = buffer.baseAddress else { return }
            if arePowers {
                nibble_dequantize_scales(source.assumingMemoryBound(to: UInt8.self), nil, 0, 0, tensor.count, target)
            } else {
                nibble_widen(kernels, dtype, source, target, tensor.count)
            }
            count = tensor.count
        }
    }

    func firstNonFinite(_ values: [Float]) -> Int? {
        let index = nibble_first_non_finite(kernels, values, values.count)
        return index < 0 ? nil : index
    }
}

/// Codes of words along N, unpacked to a byte each, row by row.
package enum UnpackedCodes {
    /// The distance of two rows: not a power of two, which would map all rows to one set of a cache.
    package static func stride(_ width: Int) -> Int { (width + 63) / 64 * 64 + 64 }

    /// GPTQ: words [K·bits/32, N]
    package static func columns(
        _ words: UnsafePointer<UInt32>, rows: Range<Int>, outer: Int, inner: Int, bits: Int,
        into codes: UnsafeMutablePointer<UInt8>
    ) {
        nibble_unpack_columns(
            words + rows.lowerBound, outer, inner * bits / 32, rows.count, Int32(bits), codes, stride(inner))
    }

    /// AWQ: words [K, N/8]
    package static func rowWords(
        _ words: UnsafePointer<UInt32>, rows: Range<Int>, outer: Int, inner: Int, into codes: UnsafeMutablePointer<UInt8>
    ) {
        nibble_unpack_row_words(words + rows.lowerBound / 8, outer / 8, rows.count / 8, inner, codes, stride(inner))
    }

    /// A row whose columns belong to groups in any order.
    package static func decode(
        _ codes: UnsafePointer<UInt8>, groups: [Int32], scales: UnsafePointer<Float>, zeros: UnsafePointer<Float>,
        groupCount: Int, bits: Int, into target: UnsafeMutablePointer<Float>
    ) {
        nibble_decode_grouped_row(codes, groups.count, groups, groupCount, scales, zeros, Int32(bits), target)
    }
}
