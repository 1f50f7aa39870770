internal import CNibbleCUDA
package import NibbleCore

/// Attention of one new token a row on tensor cores, which can also rotate and store the token's projections.
extension CUDABackend {
    /// Counters that one call may have.
    static let arrivalCount = 4096

    package func attend(
        _ call: AttentionCall, rotating rotation: RotateAndStoreCall, _ batch: BatchIndices, into output: Tensor
    ) throws {
        try perform {
            let element = try element(call.queries.dtype, for: "attention")
            let rotate = NibbleRotateArguments(rotation, batch)
            guard rotation.hasKeysAndValues, call.isCausal, suitsStep(call, batch, element), suitsStep(rotate) else {
                try rotateAndStore(rotation, batch)
                return try attend(call, batch, into: output)
            }
            try attendStep(NibbleAttentionArguments(call, batch, output), rotate, storesKeys: true, element)
        }
    }

    func suitsStep(_ call: AttentionCall, _ batch: BatchIndices, _ element: KernelElement) -> Bool {
        if case .relative = call.bias { return false }
        let geometry = call.cache.geometry
        let groups = geometry.heads * blocks(call.heads / max(geometry.heads, 1), per: NIBBLE_STEP_HEADS)
        return batch.maximumQueryLength == 1 && !options.isBatchInvariant
            && (element == .f16 || element == .bf16 && kernels.target.level >= 80)
            && geometry.quantization == nil && geometry.dtype == call.queries.dtype
            && nibble_step_supports(Int32(geometry.keySize), Int32(geometry.valueSize)) != 0
            && batch.tokenCount * groups <= CUDABackend.arrivalCount
    }

    /// Whether the kernel can rotate by itself: runs of eight elements, and norms that single heads have before their rotation.
    private func suitsStep(_ rotate: NibbleRotateArguments) -> Bool {
        let half = rotate.cosines == 0 ? 0 : rotate.rotated / 2
        return rotate.normScope <= 1 && rotate.normsValues == 0
            && (rotate.isInterleaved != 0 ? half % 4 == 0 : half % 8 == 0) && 2 * half <= rotate.keySize
    }

    func attendStep(
        _ attention: NibbleAttentionArguments, _ rotate: NibbleRotateArguments, storesKeys: Bool, _ element: KernelElement
    ) throws {
        var arguments = NibbleAttendStepArguments(
            attention: attention, rotate: rotate, storesKeys: storesKeys ? 1 : 0, unused: 0)
        let size = Int(attention.keySize)
        let (tokens, group) = (Int(attention.batch.tokenCount), Int(attention.heads / attention.keyValueHeads))
        let groups = Int(attention.keyValueHeads) * blocks(group, per: NIBBLE_STEP_HEADS)
        let limit = maximumSplits(groups: groups)
        let splits = min(max(blocks(Int(attention.batch.maximumLength), per: NIBBLE_STEP_LENGTH), 1), limit)
        arguments.attention.splitLength = NIBBLE_STEP_LENGTH
        arguments.attention.maximumSplits = Int32(limit)
        arguments.attention.splits = Int32(splits)
        arguments.attention.headGroup = Int32(group)
        if splits > 1 {
            arguments.attention.partials = UInt64(
                try workspace.take(tokens * Int(attention.heads) * splits * (size + 4) * 4))
            arguments.attention.arrivals = try nextArrivalCounters()
        }
        let (kernel, width) = Kernel.attendStep(headSize: size)
        // A thread prepares 16 elements of a query, key or value.
        let least = blocks((min(group, Int(NIBBLE_STEP_HEADS)) + 2) * width / 16, per: 32)
        let warps = max(least, stepWarps(blocks: tokens * groups * splits, isSplit: splits > 1))
        try launch(
            kernel, element, grid: Grid(x: tokens, y: groups, z: splits), block: 32 * warps,
            shared: Int(nibble_step_shared(Int32(group), attention.keySize)), arguments)
    }

    /// Warps of a block: as many as let the card hold all blocks at a time, 16 a multiprocessor. Splits are long enough for four.
    private func stepWarps(blocks: Int, isSplit: Bool) -> Int {
        var warps = Int(NIBBLE_STEP_GROUPS)
        while warps > (isSplit ? 4 : 2), blocks * warps > 16 * card.multiprocessors { warps /= 2 }
        return warps
    }

    /// Splits of one row that fill the card, a power of two. Does not depend on the batch, so that results do not, either.
    private func maximumSplits(groups: Int) -> Int {
        var splits = 8
        while splits < Int(NIBBLE_STEP_MAX_SPLITS), splits * 2 * groups <= 2 * card.multiprocessors { splits *= 2 }
        return splits
    }
}
