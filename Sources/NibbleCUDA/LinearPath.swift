internal import NibbleCore

/// How a weight is stored, as far as kernels are chosen by it. Layers of a group that agree go through one launch.
enum LinearKind: Hashable {
    case dense(DType)
    case canonical4(FourBitFormat, compute: DType)
    case tiled4(FourBitFormat, compute: DType)
    case int8(threshold: Float, scope: LinearArithmetic.OutlierScope, roundsToHalf: Bool)
    /// Another backend's layout: made canonical for the call.
    case foreign

    init(_ layer: Linear, input: DType) {
        let compute = layer.arithmetic.computeDType ?? input
        switch layer.weight {
        case .dense(let tensor): self = .dense(tensor.dtype)
        case .fourBit(let weight): self = .canonical4(weight.format, compute: compute)
        case .int8:
            self = .int8(
                threshold: layer.arithmetic.outlierThreshold, scope: layer.arithmetic.outlierScope,
                roundsToHalf: layer.arithmetic.roundsActivationsToHalf)
        case .prepared(let tiled as TiledFourBitWeight): self = .tiled4(tiled.weight.format, compute: compute)
        case .prepared: self = .foreign
        }
    }
}

/// The ways to compute a product.
enum LinearPath {
    /// A warp for each row of the weight, a few tokens at a time: reads the weight once for each handful of tokens.
    case rows
    /// Tensor cores on the weight as it is stored.
    case tiles
    /// A matrix product, for quantized weights of the dequantized weight; int8 as int8.
    case matrix

    /// Which way serves up to how many tokens; the first line that fits is taken. Measured on one H200 (N × K 4096 × 4096 to
    /// 32000 × 4096): tiles beat dequantizing up to 64 tokens, the library's dense product beats rows from 3.
    static func choose(_ kind: LinearKind, tokens: Int, hasLibrary: Bool, isBatchInvariant: Bool) -> LinearPath {
        let limits: [(tokens: Int, path: LinearPath)] =
            switch kind {
            case .dense: [(hasLibrary ? 2 : 8, .rows)]
            case .canonical4: [(32, .rows)]
            case .tiled4(_, compute: .float32): [(32, .tiles)]
            case .tiled4: [(64, .tiles)]
            case .int8: [(8, .rows)]
            case .foreign: []
            }
        guard isBatchInvariant else { return limits.first { tokens <= $0.tokens }?.path ?? .matrix }
        // Integer products are exact, whichever way they are computed.
        if case .int8 = kind, tokens > 8 { return .matrix }
        return limits.first?.path ?? .matrix
    }
}
