internal import CNibbleCUDA
internal import NibbleCore

/// Low-rank sums of adapters: A · x by a kernel of its own ahead of the product, B by the product's epilogue.
extension CUDABackend {
    /// Computes A · x of the layers that adapters change, in workspace, and tells the product of it.
    func shrink(_ fused: inout FusedLayers, _ rows: AdapterRows) throws {
        let sums = fused.layers.map(\.lowRank)
        let ranks = sums.reduce(0) { $0 + ($1?.ranks ?? 0) }
        guard ranks > 0 else { return }
        let memory = UInt64(try workspace.take(fused.tokens * ranks * 4))
        var arguments = NibbleShrinkArguments()
        arguments.input = fused.input.pointer
        arguments.prologue = fused.arguments.prologue
        arguments.weights = rows.weights.pointer
        arguments.slots = rows.slots.pointer
        arguments.activeRows = fused.arguments.activeRows
        arguments.layerCount = Int32(fused.layers.count)
        arguments.tokens = Int32(fused.tokens)
        arguments.inFeatures = Int32(fused.inFeatures)
        arguments.sumsStride = Int32(ranks)
        arguments.weightStride = Int32(rows.weights.shape.last)
        var first = 0
        for (index, lowRank) in sums.enumerated() {
            guard let lowRank else { continue }
            let own = memory + UInt64(4 * first)
            let layer = NibbleShrinkLayer(
                a: lowRank.a.pointer, scales: lowRank.scales.pointer, adapters: lowRank.adapters.pointer, sums: own,
                ranks: Int32(lowRank.ranks), type: try element(lowRank.a.dtype, for: "adapter").code)
            withUnsafeMutableBytes(of: &arguments.layers) { $0.bindMemory(to: NibbleShrinkLayer.self)[index] = layer }
            let type = try element(lowRank.b.dtype, for: "adapter").code
            fused.change(index) { part in
                part.lowRank = NibbleLowRank(lowRank, rows, type: type, sums: own, stride: ranks, outputs: part.outFeatures)
            }
            first += lowRank.ranks
        }
        try launchShrink(arguments, fused, ranks: ranks)
    }

    private func launchShrink(_ arguments: NibbleShrinkArguments, _ fused: FusedLayers, ranks: Int) throws {
        let element = try element(fused.dtype, for: "linear")
        let threads = Int(NIBBLE_SHRINK_THREADS)
        let isPrepared = fused.input.dtype != fused.dtype
        let isOne = fused.tokens == 1 && element != .f32 && fused.inFeatures % 8 == 0 && !options.isBatchInvariant
        precondition(isOne || !isPrepared, "only the kernel for one token has a prologue")
        if isOne { return try launch(.shrinkSingle, element, grid: Grid(x: ranks), block: threads, arguments) }
        let grid = Grid(x: ranks / Int(NIBBLE_RANK_UNIT), y: blocks(fused.tokens, per: NIBBLE_SHRINK_TOKENS))
        try launch(.shrink, element, grid: grid, block: threads, arguments)
    }
}

extension NibbleLowRank {
    fileprivate init(_ lowRank: LowRank, _ rows: AdapterRows, type: Int32, sums: UInt64, stride: Int, outputs: Int32) {
        self.init(
            b: lowRank.b.pointer, sums: sums, adapters: lowRank.adapters.pointer, biases: lowRank.biases.pointer,
            gains: lowRank.gains.pointer, weights: rows.weights.pointer, slots: rows.slots.pointer,
            ranks: Int32(lowRank.ranks), type: type, sumsStride: Int32(stride), weightStride: Int32(rows.weights.shape.last),
            featureStride: outputs, unused: 0)
    }

    /// Skips the first tokens of a call.
    mutating func skip(tokens: Int) {
        sums.advance(tokens * Int(sumsStride) * 4)
        slots.advance(tokens * 4)
    }

    /// Skips the first outputs of a layer.
    mutating func skip(outputs: Int) {
        b.advance(outputs * Int(ranks) * NibbleEpilogue.size(type))
        biases.advance(outputs * 4)
        gains.advance(outputs * 4)
    }
}
