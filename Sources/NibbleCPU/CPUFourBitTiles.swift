internal import CNibbleCPU
package import NibbleCore

/// A 4-bit weight in the CPU's layout: tiles of 16 rows, so that a load of 64 bytes brings eight columns of sixteen rows.
///
/// Codes: [⌈N / 16⌉, K / 8, 16, 4 bytes], the canonical bytes in another order. Plain scales: [⌈N / 16⌉, K / block, 16]; others
/// stay canonical. Rows beyond N are zeros.
struct CPUFourBitTiles: PreparedWeight {
    /// The same weight with tiled codes and scales in place of the canonical ones.
    let tiled: FourBitWeight

    var format: WeightFormat { .fourBit(tiled.format) }
    var outFeatures: Int { tiled.outFeatures }
    var inFeatures: Int { tiled.inFeatures }
    var byteCount: Int { tiled.codes.byteCount + tiled.scales.byteCount }

    func canonical() throws -> LinearWeight {
        let codes = Tensor.host(.uint8, [outFeatures * inFeatures / 2])
        var scales = tiled.scales
        var tiledScales: UnsafePointer<Float>?
        var plainScales: UnsafeMutablePointer<Float>?
        if case .plain(let absmax) = tiled.scales {
            let plain = Tensor.host(.float32, [tiled.blockCount])
            tiledScales = absmax.floats
            plainScales = plain.mutableFloats
            scales = .plain(plain)
        }
        nibble_untile_4bit(
            tiled.codes.pointer.assumingMemoryBound(to: UInt8.self), tiledScales, outFeatures, inFeatures, tiled.format.blockSize,
            0,
            CPUFourBitTiles.tiles(outFeatures), codes.mutablePointer.assumingMemoryBound(to: UInt8.self), plainScales)
        return .fourBit(
            FourBitWeight(
                format: tiled.format, outFeatures: outFeatures, inFeatures: inFeatures, codes: codes, scales: scales,
                sourceDType: tiled.sourceDType))
    }

    static func tiles(_ outFeatures: Int) -> Int { (outFeatures + NIBBLE_TILE - 1) / NIBBLE_TILE }
}

extension CPUBackend {
    package func prepare(_ weight: LinearWeight) throws -> LinearWeight {
        guard case .fourBit(let weight) = weight, nibble_can_tile_4bit(weight.inFeatures, weight.format.blockSize) else {
            return weight
        }
        return .prepared(try tile(weight))
    }

    /// Each thread fills the tiles that it will read.
    private func tile(_ weight: FourBitWeight) throws -> CPUFourBitTiles {
        let rows = weight.outFeatures
        let columns = weight.inFeatures
        let tiles = CPUFourBitTiles.tiles(rows)
        let paddedRows = tiles * NIBBLE_TILE
        let codes = try allocate(.uint8, [paddedRows * columns / 2])
        var scales = weight.scales
        var plainScales: UnsafePointer<Float>?
        var tiledScales: UnsafeMutablePointer<Float>?
        if case .plain(let absmax) = weight.scales {
            let tiled = try allocate(.float32, [paddedRows * columns / weight.format.blockSize])
            plainScales = absmax.floats
            tiledScales = tiled.mutableFloats
            scales = .plain(tiled)
        }
        let source = weight.codes.pointer.assumingMemoryBound(to: UInt8.self)
        let destination = codes.mutablePointer.assumingMemoryBound(to: UInt8.self)
        pool.parallel(count: tiles) { range, _ in
            nibble_tile_4bit(
                source, plainScales, rows, columns, weight.format.blockSize, range.lowerBound, range.upperBound, destination,
                tiledScales)
        }
        return CPUFourBitTiles(
            tiled: FourBitWeight(
                format: weight.format, outFeatures: rows, inFeatures: columns, codes: codes, scales: scales,
                sourceDType: weight.sourceDType))
    }
}
