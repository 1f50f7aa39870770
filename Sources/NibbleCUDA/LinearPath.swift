internal import NibbleCore

/// The storage of a weight, as far as it decides the kernel. Layers of a group with the same kind share a launch.
enum LinearKind: Hashable {
    case dense(DType)
    case canonicalFourBit(FourBitFormat, compute: DType)
    case tiledFourBit(FourBitFormat, compute: DType)
    case int8(threshold: Float, scope: LinearArithmetic.OutlierScope, roundsToHalf: Bool)
    /// Another backend's layout, converted to the canonical one for the call.
    case foreign

    init(_ layer: Linear, input: DType) {
        let compute = layer.arithmetic.computeDType ?? input
        switch layer.weight {
        case .dense(let tensor): self = .dense(tensor.dtype)
        case .fourBit(let weight): self = .canonicalFourBit(weight.format, compute: compute)
        case .int8:
            self = .int8(
                threshold: layer.arithmetic.outlierThreshold, scope: layer.arithmetic.outlierScope,
                roundsToHalf: layer.arithmetic.roundsActivationsToHalf)
        case .prepared(let tiled as TensorCoreFourBitWeight): self = .tiledFourBit(tiled.weight.format, compute: compute)
        case .prepared: self = .foreign
        }
    }
}

extension LinearKind {
    /// The form in which kernels of these products are wanted, but for adapters.
    var form: KernelForm {
        if case .tiledFourBit(let format, _) = self, format.hasPowersOfTwo { .powers } else { [] }
    }
}

extension FourBitFormat {
    /// Whether its tiles have exponents for scales.
    fileprivate var hasPowersOfTwo: Bool { codebook == .mxfp4 }
}

/// The kinds of kernels that compute a product.
enum LinearPath {
    /// GEMV: warps take rows of the weight, which is read once for every few tokens.
    case gemv
    /// Tensor cores on the weight in its tiled layout.
    case tiled
    /// Warpgroups, on 4-bit weights in their tiled layout: compute capability 9.0.
    case wide
    /// GEMM: 4-bit weights are dequantized first, int8 weights multiplied as they are.
    case gemm

    /// Chooses by the number of tokens. Measured on one H200 (N × K 4096 × 4096 to 32000 × 4096): tiled kernels beat dequantizing
    /// up to 64 tokens, those for warpgroups up to 128; cuBLASLt's dense product beats GEMV from 3.
    static func choose(
        _ kind: LinearKind, tokens: Int, hasLibrary: Bool, hasWarpgroups: Bool, isBatchInvariant: Bool
    ) -> LinearPath {
        let limits: [(tokens: Int, path: LinearPath)] =
            switch kind {
            case .dense: [(hasLibrary ? 2 : 8, .gemv)]
            case .canonicalFourBit: [(32, .gemv)]
            case .tiledFourBit(_, compute: .float32): [(32, .tiled)]
            case .tiledFourBit: hasWarpgroups ? [(8, .tiled), (128, .wide)] : [(64, .tiled)]
            case .int8: hasWarpgroups && !isBatchInvariant ? [(.max, .wide)] : [(8, .gemv)]
            case .foreign: []
            }
        guard isBatchInvariant else { return limits.first { tokens <= $0.tokens }?.path ?? .gemm }
        // Integer products are exact whichever kernel computes them.
        if case .int8 = kind, tokens > 8 { return .gemm }
        return limits.first?.path ?? .gemm
    }
}
