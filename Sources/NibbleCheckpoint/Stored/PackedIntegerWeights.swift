import NibbleCore

/// Integers packed into 32-bit words along each row (compressed-tensors `pack-quantized`): w = (q − z)·s by groups along the row.
struct PackedRowsWeight: StoredWeight {
    let shape: Shape
    /// int32 [N, ⌈K·bits/32⌉], the first code in the lowest bits.
    let codes: String
    /// [N, groups]
    let scales: String
    let grid: ScaleGrid
    /// 4 or 8
    let bits: Int
    /// int32 [⌈N·bits/32⌉, groups], packed along the rows, or int8 [N, groups]. `nil`: z is the middle of the codes.
    var zeroPoints: String?
    /// int32 [K]: the group of each column.
    var groupIndex: String?

    var tensors: [String] { [codes, scales] + [zeroPoints, groupIndex].compactMap { $0 } }

    func decoder(_ checkpoint: any Checkpoint, _ kernels: StoredKernels, matrices: Range<Int>) throws -> any RowDecoder {
        let scales = try StoredScales(self.scales, checkpoint, kernels).values
        let groups = grid.step == 0 ? 1 : scales.count / max(shape[0], 1)
        let zeroPoints = try self.zeroPoints.map { try zeros(of: try checkpoint.tensor($0), groups: groups) }
        // A scale may serve several rows, but a zero point has its own row and group.
        let rows = GridDecoder(
            kernels: kernels, code: bits == 4 ? .uint4 : .uint8, codes: try checkpoint.tensor(codes),
            rowBytes: (shape[1] * bits + 31) / 32 * 4, width: shape[1],
            scales: expanded(scales, groups: groups),
            zeroPoints: zeroPoints ?? Array(repeating: Float(1 << (bits - 1)), count: shape[0] * groups),
            grid: ScaleGrid(rows: shape[0], of: shape[1], block: grid.step == 0 ? max(shape[1], 1) : grid.columnBlock))
        guard let index = try groupIndex.flatMap({ try GroupIndex.read($0, groups: groups, checkpoint) }) else { return rows }
        return SortedDecoder(rows: rows, groupOfColumn: index, groups: groups, bits: bits)
    }

    /// [N, groups]
    private func expanded(_ scales: [Float], groups: Int) -> [Float] {
        guard scales.count != shape[0] * groups else { return scales }
        return (0..<shape[0]).flatMap { row in (0..<groups).map { scales[grid.start(ofRow: row) + $0 * grid.step] } }
    }

    /// [N, groups]
    private func zeros(of tensor: Tensor, groups: Int) throws -> [Float] {
        if tensor.dtype == .int8 {
            let middle = Float(1 << (bits - 1))
            return tensor.hostElements(Int8.self).map { middle + Float($0) }
        }
        let (perWord, mask, words) = (32 / bits, UInt32(1) << UInt32(bits) - 1, tensor.hostElements(UInt32.self))
        var zeros = [Float](repeating: 0, count: shape[0] * groups)
        for row in 0..<shape[0] {
            let (first, shift) = (row / perWord * groups, UInt32(row % perWord * bits))
            for group in 0..<groups { zeros[row * groups + group] = Float(words[first + group] >> shift & mask) }
        }
        return zeros
    }

    /// Rows whose columns belong to groups in any order.
    private struct SortedDecoder: RowDecoder {
        let rows: GridDecoder
        let groupOfColumn: [Int32]
        let groups: Int
        let bits: Int

        var kernels: StoredKernels { rows.kernels }

        func decode(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
            guard let bytes = rows.codes.hostBytes.assumingMemoryBound(to: UInt8.self).baseAddress else { return }
            let width = rows.width
            withUnsafeTemporaryAllocation(of: UInt8.self, capacity: max(width, 1)) { codes in
                guard let codes = codes.baseAddress else { return }
                for (position, row) in range.enumerated() {
                    let source = bytes + row * rows.rowBytes
                    if bits == 4 {
                        for column in 0..<width { codes[column] = source[column / 2] >> UInt8(column % 2 * 4) & 15 }
                    } else {
                        codes.update(from: source, count: width)
                    }
                    let (first, output) = (row * groups, target + position * width)
                    rows.scales.withUnsafeBufferPointer { scales in
                        (rows.zeroPoints ?? []).withUnsafeBufferPointer { zeros in
                            guard let scales = scales.baseAddress, let zeros = zeros.baseAddress else { return }
                            UnpackedCodes.decode(
                                codes, groups: groupOfColumn, scales: scales + first, zeros: zeros + first, groupCount: groups,
                                bits: bits, into: output)
                        }
                    }
                }
            }
        }
    }
}

/// AWQ's `gemm` layout, transposed: eight codes of 4 bits a word along N, in the order 0, 2, 4, 6, 1, 3, 5, 7.
struct AWQWeight: StoredWeight {
    let shape: Shape
    /// int32 [K, N/8]
    let codes: String
    /// int32 [K/g, N/8]
    let zeroPoints: String
    /// [K/g, N]
    let scales: String
    let groupSize: Int

    var tensors: [String] { [codes, zeroPoints, scales] }

    func decoder(_ checkpoint: any Checkpoint, _ kernels: StoredKernels, matrices: Range<Int>) throws -> any RowDecoder {
        let (outer, inner) = (shape[0], shape[1])
        let zeros = try checkpoint.tensor(zeroPoints)
        let parameters = ColumnGroups(
            scales: try StoredScales(scales, checkpoint, kernels).values, outer: outer, size: groupSize,
            zeros: withExtendedLifetime(zeros) { AWQWeight.zeros(zeros.hostElements(UInt32.self)) })
        return ColumnDecoder(
            kernels: kernels, codes: try checkpoint.tensor(codes), parameters: parameters, outer: outer, inner: inner, bits: 4,
            packsRows: true)
    }

    /// Where in a word the code of each of its eight elements begins.
    private static let shifts: [UInt32] = [0, 16, 4, 20, 8, 24, 12, 28]

    private static func zeros(_ words: UnsafeBufferPointer<UInt32>) -> [Float] {
        words.flatMap { word in shifts.map { Float(word >> $0 & 15) } }
    }
}

/// GPTQ's layout, transposed: codes packed into words along K. Columns may belong to groups in any order.
struct GPTQWeight: StoredWeight {
    let shape: Shape
    /// int32 [K·bits/32, N]
    let codes: String
    /// int32 [groups, N·bits/32]
    let zeroPoints: String
    /// [groups, N]
    let scales: String
    /// int32 [K]: the group of each column. `nil`: by their order.
    var groupIndex: String?
    /// 2, 4 or 8
    let bits: Int
    let groupSize: Int
    /// Added to stored zero points: 1 in the first version of the format.
    let zeroOffset: UInt32

    var tensors: [String] { [codes, zeroPoints, scales] + [groupIndex].compactMap { $0 } }

    func decoder(_ checkpoint: any Checkpoint, _ kernels: StoredKernels, matrices: Range<Int>) throws -> any RowDecoder {
        let (outer, inner) = (shape[0], shape[1])
        let scales = try StoredScales(self.scales, checkpoint, kernels).values
        let zeros = try checkpoint.tensor(zeroPoints)
        let groups = scales.count / max(outer, 1)
        let index = try groupIndex.flatMap { try GroupIndex.read($0, groups: groups, checkpoint) }
        // Columns in order need as many groups as their number says.
        guard index != nil || groups * groupSize >= inner else {
            throw CheckpointError.malformed(
                file: checkpoint.path(of: self.scales), tensor: self.scales,
                expected: "scales of \((inner + groupSize - 1) / groupSize) groups of \(groupSize)", found: "\(groups)")
        }
        let parameters = ColumnGroups(
            scales: scales, outer: outer, size: groupSize,
            zeros: withExtendedLifetime(zeros) { self.zeros(zeros.hostElements(UInt32.self)) },
            ofColumn: index)
        return ColumnDecoder(
            kernels: kernels, codes: try checkpoint.tensor(codes), parameters: parameters, outer: outer, inner: inner, bits: bits,
            packsRows: false)
    }

    private func zeros(_ words: UnsafeBufferPointer<UInt32>) -> [Float] {
        let mask = UInt32(1) << UInt32(bits) - 1
        var zeros = [Float](repeating: 0, count: words.count * (32 / bits))
        for (index, word) in words.enumerated() {
            for element in 0..<32 / bits {
                // A stored zero point of all ones stands for 0, which was decremented.
                zeros[index * (32 / bits) + element] = Float((word >> UInt32(element * bits) &+ zeroOffset) & mask)
            }
        }
        return zeros
    }
}

/// The group of each column, where a quantizer sorted columns by their activations (`desc_act`, `actorder`).
enum GroupIndex {
    /// `nil` where all entries are −1: columns are in order then.
    /// - Throws: ``CheckpointError/malformed(file:tensor:expected:found:)`` for an index that is no group's.
    static func read(_ name: String, groups: Int, _ checkpoint: any Checkpoint) throws -> [Int32]? {
        let tensor = try checkpoint.tensor(name)
        let index = withExtendedLifetime(tensor) { Array(tensor.hostElements(Int32.self)) }
        if index.allSatisfy({ $0 == -1 }) { return nil }
        if let wrong = index.firstIndex(where: { !(0..<groups).contains(Int($0)) }) {
            throw CheckpointError.malformed(
                file: checkpoint.path(of: name), tensor: name, expected: "indices from 0 to \(groups - 1)",
                found: "\(index[wrong]) at \(wrong)")
        }
        return index
    }
}
