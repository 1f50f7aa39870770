internal import CNibbleCUDA
internal import NibbleCore

/// 4-bit products of several to some hundred tokens on warpgroups (`linear_4bit_wide.cu`).
extension CUDABackend {
    /// Whether kernels are compiled with the warpgroup products of compute capability 9.0.
    var hasWarpgroups: Bool { kernels.target.architecture == "sm_90a" }

    func wideFourBit(_ fused: inout FusedLayers, _ element: KernelElement) throws {
        let staged = nibble_staged_4bit_bytes(Int64(fused.tokens), Int64(fused.inFeatures), 0)
        fused.arguments.staged = UInt64(try workspace.take(Int(staged)))
        let tokens = fused.tokens
        let stage = { (arguments: NibbleLinearArguments) in
            try self.launch(
                .stage4BitWide, element, grid: Grid(x: tokens), block: Int(NIBBLE_WIDE_4BIT_STAGE_THREADS), arguments)
        }
        if fused.runsBesideSums {
            try shrinkWide(&fused, stage)
        } else {
            try keepTokens(&fused)
            try stage(fused.arguments)
            try addAdapters(&fused)
        }

        let (kernel, tile) = wideKernel(tokens: fused.tokens)
        let (tiles, slices) = (fused.blocks(per: NIBBLE_WIDE_4BIT_ROWS), blocks(fused.tokens, per: tile))
        let threads = Int(NIBBLE_WIDE_4BIT_THREADS)
        let shared = Int(nibble_wide_4bit_shared(Int32(tile)))
        let parts = try wideParts(
            kernel, tiles: tiles * slices, pairs: blocks(fused.inFeatures, per: 128), threads: threads, shared: shared)
        try launch(
            kernel, grid: Grid(x: tiles * parts, y: slices), block: threads, shared: shared, cluster: parts, fused.arguments)
    }

    /// The kernel for a number of tokens, and the tokens of its blocks.
    private func wideKernel(tokens: Int) -> (Kernel, Int) {
        let perBlock = blocks(tokens, per: blocks(tokens, per: 128))
        return switch perBlock {
        case ...16: (.gemm4BitWide16, 16)
        case ...32: (.gemm4BitWide32, 32)
        case ...64: (.gemm4BitWide64, 64)
        case ...96: (.gemm4BitWide96, 96)
        default: (.gemm4BitWide128, 128)
        }
    }

    /// Blocks of a cluster, which divide K: as many as let the card hold all clusters at a time. Where it cannot hold all tiles,
    /// two if they fill its last round better.
    func wideParts(_ kernel: Kernel, tiles: Int, pairs: Int, threads: Int, shared: Int) throws -> Int {
        let most = min(Int(NIBBLE_WIDE_4BIT_MAX_CLUSTER), pairs)
        for parts in stride(from: most, to: 1, by: -1)
        where try residentClusters(kernel, of: parts, block: threads, shared: shared) >= tiles {
            return parts
        }
        let resident = try residentBlocks(kernel, .f32, block: threads, shared: shared)
        func filled(_ count: Int) -> Double { Double(count) / Double(blocks(count, per: resident) * resident) }
        return most > 1 && tiles > resident / 2 && filled(tiles) < max(filled(2 * tiles) - 0.05, 0.7) ? 2 : 1
    }
}
