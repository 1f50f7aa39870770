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

    func decoder(_ checkpoint: any Checkpoint) throws -> any RowDecoder {
        var decoder = Decoder(
            codes: try checkpoint.tensor(codes), width: shape.last,
            scales: try StoredScales(scales, checkpoint, arePowers: arePowers), grid: grid)
        if let globalScale {
            decoder.global = try StoredScales(globalScale.name, checkpoint)[0]
            decoder.divides = globalScale.divides
        }
        return decoder
    }

    private struct Decoder: RowDecoder {
        let codes: Tensor
        let width: Int
        let scales: StoredScales
        let grid: ScaleGrid
        var global: Float = 1
        var divides = false

        func decode(_ rows: Range<Int>, into target: UnsafeMutablePointer<Float>) {
            let codes = codes.hostBytes.assumingMemoryBound(to: UInt8.self)
            CodeTables.e2m1.withUnsafeBufferPointer { values in
                for (position, row) in rows.enumerated() {
                    let (bytes, output) = (row * (width / 2), target + position * width)
                    var (start, index) = (0, grid.start(ofRow: row))
                    while start < width {
                        let end = min(start + grid.columnBlock, width)
                        let scale = divides ? scales[index] / global : scales[index] * global
                        for pair in start / 2..<end / 2 {
                            let byte = codes[bytes + pair]
                            output[2 * pair] = values[Int(byte & 15)] * scale
                            output[2 * pair + 1] = values[Int(byte >> 4)] * scale
                        }
                        (start, index) = (end, index + grid.step)
                    }
                }
            }
        }
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

    func decoder(_ checkpoint: any Checkpoint) throws -> any RowDecoder {
        Decoder(
            blocks: try checkpoint.tensor(blocks), scales: try StoredScales(scales, checkpoint, arePowers: true),
            inner: shape[1], outer: shape[2])
    }

    private struct Decoder: RowDecoder {
        let blocks: Tensor
        let scales: StoredScales
        /// K
        let inner: Int
        /// N
        let outer: Int

        var rowUnit: Int { MXFP4BlocksWeight.blockSize }

        func decode(_ rows: Range<Int>, into target: UnsafeMutablePointer<Float>) {
            let bytes = blocks.hostBytes.assumingMemoryBound(to: UInt8.self)
            let size = MXFP4BlocksWeight.blockSize
            CodeTables.e2m1.withUnsafeBufferPointer { values in
                for first in stride(from: rows.lowerBound, to: rows.upperBound, by: size) {
                    let (expert, row) = first.quotientAndRemainder(dividingBy: inner)
                    let output = target + (first - rows.lowerBound) * outer
                    for column in 0..<outer {
                        let block = (expert * outer + column) * (inner / size) + row / size
                        let scale = scales[block]
                        for pair in 0..<size / 2 {
                            let byte = bytes[block * (size / 2) + pair]
                            output[2 * pair * outer + column] = values[Int(byte & 15)] * scale
                            output[(2 * pair + 1) * outer + column] = values[Int(byte >> 4)] * scale
                        }
                    }
                }
            }
        }
    }
}
