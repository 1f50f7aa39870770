import NibbleCore

/// Scales and zero points [groups, N] of a transposed weight, by groups of columns.
struct ColumnGroups: Sendable {
    let scales: [Float]
    let outer: Int
    /// Columns of a group, where they are in order.
    let size: Int
    let zeros: [Float]
    /// `nil`: by their order.
    var ofColumn: [Int32]?

    var count: Int { scales.count / max(outer, 1) }

    /// Those of some rows as [rows, groups]: scales, then zero points.
    func gather(_ rows: Range<Int>, into target: UnsafeMutablePointer<Float>) {
        let (groups, zeroStart) = (count, rows.count * count)
        for group in 0..<groups {
            for (position, row) in rows.enumerated() {
                target[position * groups + group] = scales[group * outer + row]
                target[zeroStart + position * groups + group] = zeros[group * outer + row]
            }
        }
    }
}

/// Rows of a weight that is stored transposed, in words along K (GPTQ) or along N (AWQ): w = (q − z)·s.
struct ColumnDecoder: RowDecoder {
    let kernels: StoredKernels
    /// int32 [K·bits/32, N] or [K, N/8]
    let codes: Tensor
    let parameters: ColumnGroups
    /// N
    let outer: Int
    /// K
    let inner: Int
    let bits: Int
    /// Eight rows a word, in AWQ's order.
    let packsRows: Bool

    /// Rows whose words share a cache line, as far as that leaves them in the cache.
    var rowUnit: Int { packsRows ? 32 : 16 }

    func decode(_ rows: Range<Int>, into target: UnsafeMutablePointer<Float>) {
        let (groups, stride) = (parameters.count, UnpackedCodes.stride(inner))
        withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * rowUnit * groups + 1) { scratch in
            withUnsafeTemporaryAllocation(of: UInt8.self, capacity: rowUnit * stride) { bytes in
                guard let scales = scratch.baseAddress, let bytes = bytes.baseAddress else { return }
                for first in Swift.stride(from: rows.lowerBound, to: rows.upperBound, by: rowUnit) {
                    let part = first..<min(first + rowUnit, rows.upperBound)
                    unpack(part, into: bytes)
                    parameters.gather(part, into: scales)
                    for row in 0..<part.count {
                        decode(
                            bytes + row * stride, scales + row * groups, zeros: scales + (part.count + row) * groups,
                            into: target + (first - rows.lowerBound + row) * inner)
                    }
                }
            }
        }
    }

    private func unpack(_ rows: Range<Int>, into bytes: UnsafeMutablePointer<UInt8>) {
        guard let words = codes.hostElements(UInt32.self).baseAddress else { return }
        if packsRows {
            UnpackedCodes.rowWords(words, rows: rows, outer: outer, inner: inner, into: bytes)
        } else {
            UnpackedCodes.columns(words, rows: rows, outer: outer, inner: inner, bits: bits, into: bytes)
        }
    }

    private func decode(
        _ codes: UnsafePointer<UInt8>, _ scales: UnsafePointer<Float>, zeros: UnsafePointer<Float>,
        into target: UnsafeMutablePointer<Float>
    ) {
        if let groups = parameters.ofColumn {
            UnpackedCodes.decode(
                codes, groups: groups, scales: scales, zeros: zeros, groupCount: parameters.count, bits: bits, into: target)
        } else {
            kernels.decode(
                .uint8, codes, width: inner, .init(scales: scales, zeros: zeros, block: parameters.size, step: 1), into: target)
        }
    }
}
