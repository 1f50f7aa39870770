internal import CNibbleCUDA
package import NibbleCore

/// A 4-bit weight whose codes and scales are permuted into the order of tensor-core fragments (`tiles4.cuh`). The permutation is
/// reversible, so the canonical bytes are not kept.
package struct TensorCoreFourBitWeight: PreparedWeight {
    /// The weight; its codes and first-level scales are in tiled order, padded with zeros.
    let weight: FourBitWeight
    private let backend: CUDABackend

    init(weight: FourBitWeight, backend: CUDABackend) {
        self.weight = weight
        self.backend = backend
    }

    package var format: WeightFormat { .fourBit(weight.format) }
    package var outFeatures: Int { weight.outFeatures }
    package var inFeatures: Int { weight.inFeatures }
    package var byteCount: Int { weight.codes.byteCount + weight.scales.byteCount }

    package func canonical() throws -> LinearWeight { .fourBit(try backend.untile(weight)) }

    /// Whether the tiled kernels support this weight.
    static func supports(_ weight: FourBitWeight) -> Bool {
        guard let rows = Int32(exactly: weight.outFeatures), let columns = Int32(exactly: weight.inFeatures) else { return false }
        // Their kernels are chosen by the codebook.
        guard weight.scales.arePowers == (weight.format.codebook == .mxfp4) else { return false }
        return nibble_tiled_4bit_supports(rows, columns, weight.format.blockSizeLog2, weight.scales.arePowers ? 1 : 0) != 0
    }
}

extension CUDABackend {
    package func prepare(_ weight: LinearWeight) throws -> LinearWeight {
        guard case .fourBit(let fourBit) = weight, fourBit.codes.device == device, TensorCoreFourBitWeight.supports(fourBit)
        else {
            return weight
        }
        let tiled = try perform {
            try permuted(fourBit, .tile4Bit, bytes: fourBit.tiledByteCount, scales: fourBit.tiledScaleCount)
        }
        return .prepared(TensorCoreFourBitWeight(weight: tiled, backend: self))
    }

    func untile(_ weight: FourBitWeight) throws -> FourBitWeight {
        try perform {
            let bytes = (weight.outFeatures * weight.inFeatures + 1) / 2
            return try permuted(weight, .untile4Bit, bytes: bytes, scales: weight.blockCount)
        }
    }

    /// Converts the weight to the other layout, with `bytes` of codes and `count` scales.
    private func permuted(_ weight: FourBitWeight, _ kernel: Kernel, bytes: Int, scales count: Int) throws -> FourBitWeight {
        let codes = try memory.allocate(.uint8, [bytes])
        var arguments = NibbleTileArguments()
        arguments.source = weight.codes.pointer
        arguments.destination = codes.pointer
        arguments.outFeatures = Int32(weight.outFeatures)
        arguments.inFeatures = Int32(weight.inFeatures)
        arguments.scalesPerTile = weight.scales.arePowers ? 2 : 1
        let scales: BlockScales
        switch weight.scales {
        case .plain(let absmax):
            let moved = try memory.allocate(.float32, [count])
            arguments.sourceScales = absmax.pointer
            arguments.destinationScales = moved.pointer
            scales = .plain(moved)
        case .nested(let nested):
            let moved = try memory.allocate(.uint8, [count])
            arguments.sourceNested = nested.codes.pointer
            arguments.destinationNested = moved.pointer
            scales = .nested(NestedScales(codes: moved, absmax: nested.absmax, offset: nested.offset))
        case .exponents(let exponents):
            let moved = try memory.allocate(.uint8, [count])
            arguments.sourceNested = exponents.pointer
            arguments.destinationNested = moved.pointer
            scales = .exponents(moved)
        }
        try launch(kernel, grid: Grid(x: blocks(weight.tiledByteCount / 4, per: 256)), block: 256, arguments)
        return FourBitWeight(
            format: weight.format, outFeatures: weight.outFeatures, inFeatures: weight.inFeatures, codes: codes, scales: scales,
            sourceDType: weight.sourceDType)
    }
}

extension FourBitWeight {
    /// Bytes of the codes in tiled order.
    fileprivate var tiledByteCount: Int { Int(nibble_tiled_4bit_bytes(Int64(outFeatures), Int64(inFeatures))) }
    /// First-level scales in tiled order.
    fileprivate var tiledScaleCount: Int {
        Int(nibble_tiled_4bit_scales(Int64(outFeatures), Int64(inFeatures))) * (scales.arePowers ? 2 : 1)
    }

    /// Tiles of 16 rows by 64 columns across a row of tiles.
    var tilesAcross: Int { (inFeatures + 127) / 128 * 2 }
}

extension BlockScales {
    fileprivate var arePowers: Bool { if case .exponents = self { true } else { false } }
}

extension NibbleLinearLayer {
    /// A tiled weight from row `firstRow` on, a multiple of 16 that begins a block of second-level scales.
    init(tiled weight: FourBitWeight, firstRow: Int = 0) {
        self.init()
        let pairs = UInt64(firstRow / 16 * weight.tilesAcross / 2)
        self.weight = weight.codes.pointer + pairs * 1024
        switch weight.scales {
        case .plain(let absmax): scales = absmax.pointer + pairs * 32 * 4
        case .nested(let nested):
            let firstBlock = firstRow * weight.inFeatures / weight.format.blockSize
            nestedCodes = nested.codes.pointer + pairs * 32
            nestedAbsmax = nested.absmax.pointer + UInt64(firstBlock / FourBitFormat.nestedBlockSize * 4)
            nestedOffset = nested.offset
        case .exponents(let exponents): nestedCodes = exponents.pointer + pairs * 64
        }
        outFeatures = Int32(weight.outFeatures)
    }
}
