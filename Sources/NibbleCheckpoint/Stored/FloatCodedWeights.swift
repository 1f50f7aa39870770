import NibbleCore

/// Two codes of FP4 (E2M1) a byte, the first in the low nibble, with a scale for each group along the row: NVFP4 (groups of 16, FP8
/// scales and a global scale) and MXFP4 as compressed-tensors writes it (groups of 32, powers of two).
struct PackedFloat4Weight: StoredWeight {
    let shape: Shape
    /// uint8 [N, K/2]
    let codes: String
    /// [N, K/group]
    let scales: String
    let grid: ScaleGrid
    /// Bytes of the scales are exponents.
    var arePowers = false
    /// One number that all scales are multiplied by, or divided by.
    var globalScale: (name: String, divides: Bool)?

    var tensors: [String] { [codes, scales] + [globalScale?.name].compactMap { $0 } }

    func decoder(_ checkpoint: any Checkpoint, _ kernels: StoredKernels, matrices: Range<Int>) throws -> any RowDecoder {
        var scales = try StoredScales(self.scales, checkpoint, kernels, arePowers: arePowers).values
        if let globalScale {
            let global = try StoredScales(globalScale.name, checkpoint, kernels).values[0]
            scales.withUnsafeMutableBufferPointer { scales in
                for index in scales.indices {
                    scales[index] = globalScale.divides ? scales[index] / global : scales[index] * global
                }
            }
            // A global scale of 0, or one that is too small, makes infinities of finite scales.
            if let index = kernels.firstNonFinite(scales) {
                throw CheckpointError.malformed(
                    file: checkpoint.path(of: globalScale.name), tensor: globalScale.name, expected: "finite scales",
                    found: "\(scales[index]) for group \(index) by \(global)")
            }
        }
        return GridDecoder(
            kernels: kernels, code: .e2m1, codes: try checkpoint.tensor(codes), rowBytes: shape.last / 2, width: shape.last,
            scales: scales, grid: grid)
    }
}

/// MXFP4 as gpt-oss stores experts: blocks of 32 along K, 16 bytes each. The dense parameter is transposed, [E, K, N].
struct MXFP4BlocksWeight: StoredWeight {
    /// [E, K, N]
    let shape: Shape
    /// uint8 [E, N, K/32, 16]
    let blocks: String
    /// uint8 [E, N, K/32]
    let scales: String

    static let blockSize = 32
    /// The exponent that stands for NaN.
    private static let notANumber: UInt8 = 255

    var tensors: [String] { [blocks, scales] }

    /// One matrix in the layout of 4-bit weights, without rounding.
    func matrix(
        _ index: Int, separatesAlternateRows: Bool, _ checkpoint: any Checkpoint
    ) throws -> DequantizedCheckpoint.MXFP4Matrix {
        let (inner, outer) = (shape[1], shape[2])
        let blocksPerRow = inner / MXFP4BlocksWeight.blockSize
        let bytesPerRow = inner / 2
        let bytes = try checkpoint.tensor(blocks).rows(index..<index + 1)
        let own = try checkpoint.tensor(scales).rows(index..<index + 1)
        let powers = own.hostElements(UInt8.self)
        if let place = powers.firstIndex(of: MXFP4BlocksWeight.notANumber) {
            throw CheckpointError.malformed(
                file: checkpoint.path(of: scales), tensor: scales, expected: "finite scales",
                found: "nan at \(index * outer * blocksPerRow + place)")
        }
        let codes = Tensor.host(.uint8, [outer * bytesPerRow])
        let exponents = Tensor.host(.uint8, [outer * blocksPerRow])
        let (source, target) = (bytes.hostElements(UInt8.self), codes.mutableHostElements(UInt8.self))
        let moved = exponents.mutableHostElements(UInt8.self)
        for row in 0..<outer {
            let place = separatesAlternateRows ? row % 2 * (outer / 2) + row / 2 : row
            for byte in 0..<bytesPerRow {
                let pair = source[row * bytesPerRow + byte]
                target[place * bytesPerRow + byte] = pair << 4 | pair >> 4
            }
            for block in 0..<blocksPerRow {
                moved[place * blocksPerRow + block] = powers[row * blocksPerRow + block]
            }
        }
        return .init(outFeatures: outer, inFeatures: inner, codes: codes, exponents: exponents)
    }

    /// Rows [N, K] as they are stored.
    private func storedRows(
        _ checkpoint: any Checkpoint, _ kernels: StoredKernels, matrices: Range<Int>
    ) throws -> GridDecoder {
        let (inner, outer) = (shape[1], shape[2])
        let rows = matrices.count * outer
        return GridDecoder(
            kernels: kernels, code: .e2m1, codes: try checkpoint.tensor(blocks).rows(matrices), rowBytes: inner / 2, width: inner,
            scales: try StoredScales(scales, rows: matrices, checkpoint, kernels, arePowers: true).values,
            grid: ScaleGrid(rows: rows, of: inner, block: MXFP4BlocksWeight.blockSize))
    }

    /// The rows [N, K] of one matrix.
    /// - Parameter separatesAlternateRows: rows 0, 2, 4 … come first, then rows 1, 3, 5 ….
    func orientedRows(
        _ index: Int, separatesAlternateRows: Bool, _ checkpoint: any Checkpoint, _ kernels: StoredKernels
    ) throws -> any RowDecoder {
        let rows = try storedRows(checkpoint, kernels, matrices: index..<index + 1)
        return separatesAlternateRows ? AlternateRows(rows: rows, count: shape[2]) : rows
    }

    func decoder(
        _ checkpoint: any Checkpoint, _ kernels: StoredKernels, matrices: Range<Int>
    ) throws -> any RowDecoder {
        TransposedDecoder(
            rows: try storedRows(checkpoint, kernels, matrices: matrices), inner: shape[1], outer: shape[2])
    }

    private struct AlternateRows: RowDecoder {
        let rows: GridDecoder
        let count: Int

        var kernels: StoredKernels { rows.kernels }

        func decode(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
            let half = count / 2
            for (position, row) in range.enumerated() {
                let stored = row < half ? 2 * row : 2 * (row - half) + 1
                rows.decode(stored..<stored + 1, into: target + position * rows.width)
            }
        }
    }

    private struct TransposedDecoder: RowDecoder {
        let rows: GridDecoder
        /// K
        let inner: Int
        /// N
        let outer: Int

        var kernels: StoredKernels { rows.kernels }
        var rowUnit: Int { MXFP4BlocksWeight.blockSize }

        func decode(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
            let size = MXFP4BlocksWeight.blockSize
            withUnsafeTemporaryAllocation(of: Float.self, capacity: size) { block in
                guard let values = block.baseAddress else { return }
                for first in stride(from: range.lowerBound, to: range.upperBound, by: size) {
                    let (matrix, row) = first.quotientAndRemainder(dividingBy: inner)
                    let output = target + (first - range.lowerBound) * outer
                    for column in 0..<outer {
                        rows.decodeBlock(row: matrix * outer + column, column: row, into: values)
                        for index in 0..<size { output[index * outer + column] = values[index] }
                    }
                }
            }
        }
    }
}
