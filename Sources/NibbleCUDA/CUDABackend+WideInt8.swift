internal import CNibbleCUDA
internal import NibbleCore

/// LLM.int8() products on warpgroups (`linear_int8_wide.cu`, and `linear_int8_single.cu` for one token).
extension CUDABackend {
    /// Whether these kernels can compute the call: rows must suit the copies of tiles.
    func suitsWideInt8(_ fused: FusedLayers) -> Bool {
        let longest = 32 * 128 * Int(NIBBLE_WIDE_INT8_TILE_WORDS)
        return hasWarpgroups && fused.dtype.byteCount == 2 && fused.inFeatures % 16 == 0 && fused.inFeatures <= longest
            && fused.arguments.activeRows == 0 && (fused.adapterRows == nil || fused.tokens <= sliceTokens(fused))
            && fused.layers.allSatisfy { $0.int8Address % 16 == 0 }
    }

    /// - Returns: false, with nothing enqueued, where the driver knows no tensor maps.
    func wideInt8(
        _ fused: inout FusedLayers, threshold: Float, scope: LinearArithmetic.OutlierScope, roundsToHalf: Bool
    ) throws -> Bool {
        let element = try element(fused.dtype, for: "linear")
        var arguments = NibbleWideInt8Arguments()
        guard try setWeights(&arguments, fused) else { return false }
        if fused.tokens == 1, fused.inFeatures <= 8 * Int(NIBBLE_SINGLE_INT8_RUNS * NIBBLE_SINGLE_INT8_THREADS) {
            try singleInt8(&fused, threshold: threshold, roundsToHalf: roundsToHalf, element, &arguments)
            return true
        }
        let rows = try quantizeRows(
            &fused, threshold: threshold, scope: scope, roundsToHalf: roundsToHalf, element, listsOutliers: false)
        fused.arguments.prologue = NibblePrologue()
        if fused.adapters == nil { try shrink(&fused) }
        try expand(fused, 0..<fused.tokens, adapterMemory(fused, tokens: fused.tokens), for: &fused.arguments)
        let (kernel, tile) = wideInt8Kernel(tokens: fused.tokens)
        arguments.linear = fused.arguments
        arguments.outlierTiles = rows.outlierTiles
        arguments.tileWords = Int32(blocks(fused.inFeatures, per: 32 * 128))
        arguments.quantized = try tensorMap(rows.quantized, fused.tokens, fused.inFeatures, stride: rows.quantizedStride, tile, 1)
        if threshold > 0 {
            arguments.outliers = try tensorMap(
                rows.outliers, fused.tokens, fused.inFeatures, stride: 2 * rows.quantizedStride, tile, 2)
        }
        try launchWideInt8(kernel, element, fused, tile: tile, &arguments)
        return true
    }

    private func launchWideInt8(
        _ kernel: Kernel, _ element: KernelElement, _ fused: FusedLayers, tile: Int, _ arguments: inout NibbleWideInt8Arguments
    ) throws {
        // Up to 32 tokens, two blocks share a multiprocessor: the next kernel's weights are on their way before this one ends.
        let limit = tile <= 32 ? halfOfSharedMemory : sharedMemoryLimit
        let stage = Int(nibble_wide_int8_stage(Int32(tile), fused.arguments.outlierThreshold > 0 ? 1 : 0))
        let stages = min((limit - Int(NIBBLE_WIDE_INT8_STATE)) / stage, Int(NIBBLE_WIDE_INT8_MAX_STAGES))
        arguments.stages = Int32(stages)
        let shared = max(stages * stage + Int(NIBBLE_WIDE_INT8_STATE), Int(nibble_wide_int8_sums(Int32(tile))))
        let slices = blocks(fused.tokens, per: tile)
        try launchClusters(kernel, element, fused, slices: slices, threads: Int(NIBBLE_WIDE_INT8_THREADS), shared, arguments)
    }

    /// One token: the product quantizes it.
    private func singleInt8(
        _ fused: inout FusedLayers, threshold: Float, roundsToHalf: Bool, _ element: KernelElement,
        _ arguments: inout NibbleWideInt8Arguments
    ) throws {
        fused.arguments.outlierThreshold = threshold
        fused.arguments.roundsToHalf = roundsToHalf ? 1 : 0
        try expand(fused, 0..<1, adapterMemory(fused, tokens: 1), for: &fused.arguments)
        arguments.linear = fused.arguments
        let token = Int(nibble_single_int8_token(Int32(fused.inFeatures)))
        // Static shared memory takes a kilobyte.
        let stages = min(
            (halfOfSharedMemory - 1024 - token) / Int(NIBBLE_SINGLE_INT8_STAGE), Int(NIBBLE_WIDE_INT8_MAX_STAGES))
        arguments.stages = Int32(stages)
        try launchClusters(
            .gemvInt8Single, element, fused, slices: 1, threads: Int(NIBBLE_SINGLE_INT8_THREADS),
            stages * Int(NIBBLE_SINGLE_INT8_STAGE) + token, arguments)
    }

    /// What each of two blocks of a multiprocessor may take.
    private var halfOfSharedMemory: Int { (sharedMemoryLimit + (12 << 10)) / 2 - 512 }

    private func launchClusters(
        _ kernel: Kernel, _ element: KernelElement, _ fused: FusedLayers, slices: Int, threads: Int, _ shared: Int,
        _ arguments: NibbleWideInt8Arguments
    ) throws {
        let tiles = fused.blocks(per: NIBBLE_WIDE_INT8_ROWS)
        let parts = wideInt8Parts(tiles: tiles * slices, columnTiles: blocks(fused.inFeatures, per: 128))
        try launch(
            kernel, element, grid: Grid(x: tiles * parts, y: slices), block: threads, shared: shared, cluster: parts, arguments)
    }

    /// The kernel for a number of tokens, and the tokens of its blocks.
    private func wideInt8Kernel(tokens: Int) -> (Kernel, Int) {
        switch tokens {
        case ...8: (.gemmInt8Wide8, 8)
        case ...16: (.gemmInt8Wide16, 16)
        case ...32: (.gemmInt8Wide32, 32)
        case ...64: (.gemmInt8Wide64, 64)
        default: (.gemmInt8Wide128, 128)
        }
    }

    /// Blocks of a cluster, which divide K: enough to give most multiprocessors a block. The same for any number of tokens of a
    /// step, so that the order of a token's sums is the same.
    private func wideInt8Parts(tiles: Int, columnTiles: Int) -> Int {
        let most = min(Int(NIBBLE_WIDE_INT8_MAX_CLUSTER), columnTiles)
        var parts = 1
        while 2 * parts <= most, 4 * tiles * parts < 3 * card.multiprocessors { parts *= 2 }
        return parts
    }

    /// - Returns: false where the driver knows no tensor maps.
    private func setWeights(_ arguments: inout NibbleWideInt8Arguments, _ fused: FusedLayers) throws -> Bool {
        var maps: [NibbleTensorMap] = []
        for layer in fused.layers {
            var map = NibbleTensorMap()
            let status = fill(
                &map, layer.int8Address, layer.outFeatures, fused.inFeatures, stride: Int64(fused.inFeatures),
                Int(NIBBLE_WIDE_INT8_ROWS), 1)
            if status == NIBBLE_CUDA_MISSING { return false }
            try check(status, "cuTensorMapEncodeTiled", on: device)
            maps.append(map)
        }
        _ = withUnsafeMutableBytes(of: &arguments.weights) {
            $0.bindMemory(to: NibbleTensorMap.self).update(fromContentsOf: maps)
        }
        return true
    }

    /// Boxes of `boxRows` rows and 128 bytes of a matrix.
    private func tensorMap(
        _ address: UInt64, _ rows: Int, _ columns: Int, stride: Int64, _ boxRows: Int, _ elementSize: Int
    ) throws -> NibbleTensorMap {
        var map = NibbleTensorMap()
        try check(
            fill(&map, address, rows, columns, stride: stride, boxRows, elementSize), "cuTensorMapEncodeTiled", on: device)
        return map
    }

    private func fill(
        _ map: inout NibbleTensorMap, _ address: UInt64, _ rows: Int, _ columns: Int, stride: Int64, _ boxRows: Int,
        _ elementSize: Int
    ) -> Int32 {
        withUnsafeMutableBytes(of: &map.words) { words in
            nibble_tensorMap(
                words.bindMemory(to: UInt64.self).baseAddress, address, Int64(rows), Int64(columns), stride, Int32(boxRows),
                Int32(elementSize))
        }
    }
}

extension Linear {
    /// Of an int8 weight's values; 0 for other weights.
    fileprivate var int8Address: UInt64 { if case .int8(let weight) = weight { weight.values.pointer } else { 0 } }
}
