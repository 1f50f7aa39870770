internal import CNibbleCUDA
public import NibbleCore

/// A 4-bit weight whose codes are permuted into the order in which tensor cores take them (`tiles4.cuh`). Scales stay as they
/// are, and the permutation can be undone, so the canonical bytes are never kept beside it.
public struct TiledFourBitWeight: PreparedWeight {
    /// The weight; its codes are in tiled order, rows padded to 16.
    let weight: FourBitWeight
    private let backend: CUDABackend

    init(weight: FourBitWeight, backend: CUDABackend) {
        self.weight = weight
        self.backend = backend
    }

    public var format: WeightFormat { .fourBit(weight.format) }
    public var outFeatures: Int { weight.outFeatures }
    public var inFeatures: Int { weight.inFeatures }
    public var byteCount: Int { weight.codes.byteCount + weight.scales.byteCount }

    public func canonical() throws -> LinearWeight { .fourBit(try backend.untile(weight)) }

    /// Whether the tiled kernels take such a weight.
    static func supports(_ weight: FourBitWeight) -> Bool {
        guard let rows = Int32(exactly: weight.outFeatures), let columns = Int32(exactly: weight.inFeatures) else { return false }
        return nibble_tiled4_supports(rows, columns, weight.format.blockSizeLog2) != 0
    }
}

extension FourBitWeight {
    func replacing(codes: Tensor) -> FourBitWeight {
        FourBitWeight(
            format: format, outFeatures: outFeatures, inFeatures: inFeatures, codes: codes, scales: scales,
            sourceDType: sourceDType)
    }

    /// Bytes of the codes in tiled order.
    var tiledByteCount: Int { Int(nibble_tiled4_bytes(Int64(outFeatures), Int64(inFeatures))) }
}

extension CUDABackend {
    public func prepare(_ weight: LinearWeight) throws -> LinearWeight {
        guard case .fourBit(let fourBit) = weight, fourBit.codes.device == device, TiledFourBitWeight.supports(fourBit) else {
            return weight
        }
        return .prepared(TiledFourBitWeight(weight: try tile(fourBit), backend: self))
    }

    private func tile(_ weight: FourBitWeight) throws -> FourBitWeight {
        try perform {
            let codes = try memory.allocate(.uint8, [weight.tiledByteCount])
            try permute(weight, .repack4, to: codes)
            return weight.replacing(codes: codes)
        }
    }

    func untile(_ weight: FourBitWeight) throws -> FourBitWeight {
        try perform {
            let codes = try memory.allocate(.uint8, [(weight.outFeatures * weight.inFeatures + 1) / 2])
            try permute(weight, .unpack4, to: codes)
            return weight.replacing(codes: codes)
        }
    }

    private func permute(_ weight: FourBitWeight, _ kernel: Kernel, to codes: Tensor) throws {
        let arguments = NibbleRepack4Arguments(
            source: weight.codes.pointer, destination: codes.pointer, outFeatures: Int32(weight.outFeatures),
            inFeatures: Int32(weight.inFeatures))
        try launch(kernel, grid: Grid(x: blocks(weight.tiledByteCount / 4, per: 256)), block: 256, arguments)
    }
}
