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

    func decoder(_ checkpoint: any Checkpoint) throws -> any RowDecoder {
        let scales = try StoredScales(self.scales, checkpoint)
        let groups = grid.step == 0 ? 1 : scales.count / max(shape[0], 1)
        return Decoder(
            codes: try checkpoint.tensor(codes), scales: scales, grid: grid, width: shape[1], bits: bits, groups: groups,
            zeroPoints: try zeroPoints.map { try checkpoint.tensor($0) },
            groupOfColumn: try groupIndex.flatMap { try GroupIndex.read($0, groups: groups, checkpoint) })
    }

    private struct Decoder: RowDecoder {
        let codes: Tensor
        let scales: StoredScales
        let grid: ScaleGrid
        let width: Int
        let bits: Int
        let groups: Int
        let zeroPoints: Tensor?
        let groupOfColumn: [Int32]?

        func decode(_ rows: Range<Int>, into target: UnsafeMutablePointer<Float>) {
            let perWord = 32 / bits
            let words = codes.hostElements(UInt32.self)
            let wordsPerRow = (width + perWord - 1) / perWord
            let mask = UInt32(1) << UInt32(bits) - 1
            for (position, row) in rows.enumerated() {
                let output = target + position * width
                let first = grid.start(ofRow: row)
                let parameters = (0..<groups).map { group in
                    (zero: zeroPoint(row, group), scale: scales[first + group * grid.step])
                }
                for column in 0..<width {
                    let word = words[row * wordsPerRow + column / perWord]
                    let code = word >> UInt32(column % perWord * bits) & mask
                    let (zero, scale) = parameters[groupOfColumn.map { Int($0[column]) } ?? column / grid.columnBlock]
                    output[column] = (Float(code) - zero) * scale
                }
            }
        }

        private func zeroPoint(_ row: Int, _ group: Int) -> Float {
            let middle = Float(1 << (bits - 1))
            guard let zeroPoints else { return middle }
            if zeroPoints.dtype == .int8 { return middle + Float(zeroPoints.hostElements(Int8.self)[row * groups + group]) }
            let perWord = 32 / bits
            let word = zeroPoints.hostElements(UInt32.self)[row / perWord * groups + group]
            return Float(word >> UInt32(row % perWord * bits) & (1 << UInt32(bits) - 1))
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

    func decoder(_ checkpoint: any Checkpoint) throws -> any RowDecoder {
        Decoder(
            codes: try checkpoint.tensor(codes), zeroPoints: try checkpoint.tensor(zeroPoints),
            scales: try StoredScales(scales, checkpoint), outer: shape[0], inner: shape[1], groupSize: groupSize)
    }

    private struct Decoder: RowDecoder {
        let codes: Tensor
        let zeroPoints: Tensor
        let scales: StoredScales
        /// N
        let outer: Int
        /// K
        let inner: Int
        let groupSize: Int

        /// Where in a word the code of each of its eight elements begins.
        private static let shifts: [UInt32] = [0, 16, 4, 20, 8, 24, 12, 28]
        /// Columns that are written at a time, so that their cache lines are filled.
        private static let tile = 16

        var rowUnit: Int { 8 }

        func decode(_ rows: Range<Int>, into target: UnsafeMutablePointer<Float>) {
            let (codes, zeros) = (codes.hostElements(UInt32.self), zeroPoints.hostElements(UInt32.self))
            let perRow = outer / 8
            for group in 0..<(inner + groupSize - 1) / groupSize {
                let end = min((group + 1) * groupSize, inner)
                for start in stride(from: group * groupSize, to: end, by: Decoder.tile) {
                    for row in rows {
                        let (word, shift) = (row / 8, Decoder.shifts[row % 8])
                        let zero = Float(zeros[group * perRow + word] >> shift & 15)
                        let scale = scales[group * outer + row]
                        let output = target + (row - rows.lowerBound) * inner
                        for column in start..<min(start + Decoder.tile, end) {
                            output[column] = (Float(codes[column * perRow + word] >> shift & 15) - zero) * scale
                        }
                    }
                }
            }
        }
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

    func decoder(_ checkpoint: any Checkpoint) throws -> any RowDecoder {
        let scales = try StoredScales(self.scales, checkpoint)
        let groups = scales.count / max(shape[0], 1)
        let inOrder = (0..<shape[1]).map { Int32($0 / groupSize) }
        return Decoder(
            codes: try checkpoint.tensor(codes), zeroPoints: try checkpoint.tensor(zeroPoints), scales: scales,
            groupOfColumn: try groupIndex.flatMap { try GroupIndex.read($0, groups: groups, checkpoint) } ?? inOrder,
            groups: groups, outer: shape[0], inner: shape[1], bits: bits, zeroOffset: zeroOffset)
    }

    private struct Decoder: RowDecoder {
        let codes: Tensor
        let zeroPoints: Tensor
        let scales: StoredScales
        let groupOfColumn: [Int32]
        let groups: Int
        /// N
        let outer: Int
        /// K
        let inner: Int
        let bits: Int
        let zeroOffset: UInt32

        /// Rows whose words share a cache line.
        var rowUnit: Int { 16 }

        func decode(_ rows: Range<Int>, into target: UnsafeMutablePointer<Float>) {
            let (perWord, mask) = (32 / bits, UInt32(1) << UInt32(bits) - 1)
            let (codes, zeros) = (codes.hostElements(UInt32.self), zeroPoints.hostElements(UInt32.self))
            let zeroWords = outer / perWord
            let count = rows.count
            var parameters = [(zero: Float, scale: Float)](repeating: (0, 0), count: groups * count)
            for group in 0..<groups {
                for row in rows {
                    let stored = zeros[group * zeroWords + row / perWord] >> UInt32(row % perWord * bits)
                    // A stored zero point of all ones stands for 0, which was decremented.
                    let zero = Float((stored &+ zeroOffset) & mask)
                    parameters[group * count + row - rows.lowerBound] = (zero, scales[group * outer + row])
                }
            }
            for word in 0..<inner / perWord {
                for row in rows {
                    let position = row - rows.lowerBound
                    let packed = codes[word * outer + row]
                    for element in 0..<perWord {
                        let column = word * perWord + element
                        let (zero, scale) = parameters[Int(groupOfColumn[column]) * count + position]
                        let code = packed >> UInt32(element * bits) & mask
                        target[position * inner + column] = (Float(code) - zero) * scale
                    }
                }
            }
        }
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
