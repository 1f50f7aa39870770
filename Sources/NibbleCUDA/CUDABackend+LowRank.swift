internal import CNibbleCUDA
internal import NibbleCore

/// What adapters give to the layers of a call: sums = weight · scale · (A · x), made ahead of the product.
struct AdapterSums {
    struct Layer {
        let lowRank: LowRank
        /// Of token 0.
        let sums: UInt64
    }

    /// By layer; `nil`: no adapter changes it.
    var layers: [Layer?]
    let rows: AdapterRows
    /// Floats between the sums of two tokens.
    let stride: Int

    var hasGains: Bool { layers.contains { $0?.lowRank.gains != nil } }

    /// Whether a product's kernel that takes so many ranks of a layer can multiply by B itself.
    static func canFold(_ layers: [LowRank?], upTo ranks: Int32) -> Bool {
        layers.compactMap(\.self).allSatisfy { $0.biases == nil && $0.gains == nil && $0.ranks <= Int(ranks) }
    }
}

/// Outputs of a layer, and where what adapters add to them goes: the addresses of the first token and output.
struct AdapterOutputs {
    let layer: Int
    let rows: Range<Int>
    var deltas: UInt64
    /// 0: the layer has no gains.
    var factors: UInt64 = 0
}

/// Low-rank sums of adapters: A · x by a kernel of its own, then B by the product, or by another kernel, whose results the product
/// adds.
extension CUDABackend {
    /// Whether the product runs beside the kernel that makes A · x, and multiplies by B itself.
    func runsBesideSums(_ fused: FusedLayers, _ path: LinearPath) -> Bool {
        guard fused.adapterRows != nil, fused.arguments.activeRows == 0, case .tiledFourBit(_, let compute) = fused.kind else {
            return false
        }
        let lowRanks = fused.layers.map(\.lowRank)
        if case .wide = path { return AdapterSums.canFold(lowRanks, upTo: NIBBLE_WIDE_FOLDED_RANKS) }
        return shrinksAlone(fused) && compute == fused.dtype && fitsTiledOne(fused.inFeatures) && isForFewTiles(fused)
            && AdapterSums.canFold(lowRanks, upTo: NIBBLE_FOLDED_RANKS)
    }

    /// Whether the kernel for one token serves, which prepares the token itself.
    func shrinksAlone(_ fused: FusedLayers) -> Bool {
        fused.tokens == 1 && fused.dtype.byteCount == 2 && fused.inFeatures % 8 == 0 && !options.isBatchInvariant
    }

    /// Has the kernel that stages or quantizes tokens keep them as its prologue leaves them, for the adapters.
    func keepTokens(_ fused: inout FusedLayers) throws {
        guard fused.adapterRows != nil, fused.arguments.prologue.kind != NIBBLE_PROLOGUE_NONE else { return }
        fused.arguments.prepared = UInt64(
            try workspace.take(fused.tokens * fused.inFeatures * fused.dtype.byteCount))
    }

    /// Computes A · x of the layers that adapters change, in workspace. The token of ``shrinksAlone(_:)`` is prepared on the way.
    func shrink(_ fused: inout FusedLayers) throws {
        guard var arguments = try placeSums(&fused) else { return }
        if fused.arguments.prologue.kind != NIBBLE_PROLOGUE_NONE {
            arguments.prepared = UInt64(try workspace.take(fused.inFeatures * fused.dtype.byteCount))
            fused.arguments.input = arguments.prepared
            fused.arguments.prologue = NibblePrologue()
        }
        try launchShrink(arguments, fused, ranks: Int(arguments.sumsStride))
    }

    /// Computes A · x of one token while its product runs.
    func shrinkBeside(_ fused: inout FusedLayers) throws {
        guard var arguments = try placeSums(&fused) else { return }
        try useTurns(&fused, &arguments)
        try launch(
            .shrinkBeside, element(fused.dtype, for: "linear"),
            grid: Grid(x: Int(arguments.sumsStride / NIBBLE_SHRINK_BESIDE_RANKS)),
            block: Int(NIBBLE_SHRINK_BESIDE_THREADS), arguments)
    }

    /// Stages tokens and computes A · x of them while the product on warpgroups runs.
    func shrinkWide(_ fused: inout FusedLayers, _ stage: (NibbleLinearArguments) throws -> Void) throws {
        guard var arguments = try placeSums(&fused) else { return try stage(fused.arguments) }
        try useTurns(&fused, &arguments)
        arguments.input = fused.arguments.staged
        let groups = fused.layers.reduce(0) { $0 + blocks($1.lowRank?.ranks ?? 0, per: 16) }
        let cluster = Int(NIBBLE_SHRINK_WIDE_CLUSTER)
        do {
            try stage(fused.arguments)
            try launch(
                .shrinkWide, grid: Grid(x: groups * cluster, y: blocks(fused.tokens, per: NIBBLE_SHRINK_WIDE_USERS)),
                block: Int(NIBBLE_SHRINK_WIDE_THREADS), cluster: cluster, arguments)
        } catch {
            // Tokens may be announced that no shrink kernel counts.
            if let inputTurns { try? fill(inputTurns.address, 0, byteCount: inputTurns.byteCount) }
            throw error
        }
    }

    /// Has the product multiply by B, and read its input without waiting for the shrink kernel.
    private func useTurns(_ fused: inout FusedLayers, _ arguments: inout NibbleShrinkArguments) throws {
        if inputTurns == nil {
            let turns = try memory.allocate(.int32, [2])
            try fill(turns.address, 0, byteCount: turns.byteCount)
            inputTurns = turns
        }
        arguments.turns = inputTurns.pointer
        fused.arguments.turns = inputTurns.pointer
        try foldSums(&fused)
    }

    /// Has the product multiply by B.
    private func foldSums(_ fused: inout FusedLayers) throws {
        guard let adapters = fused.adapters else { return }
        for (index, layer) in adapters.layers.enumerated() {
            guard let layer else { continue }
            let type = try element(layer.lowRank.b.dtype, for: "adapter").code
            fused.change(index) { part in
                part.lowRank.b = layer.lowRank.b.pointer
                part.lowRank.sums = layer.sums
                part.lowRank.stride = Int64(adapters.stride)
                part.lowRank.ranks = Int32(layer.lowRank.ranks)
                part.lowRank.type = type
            }
        }
    }

    /// Workspace for the sums of the layers that adapters change, and the arguments that make them; `nil`: there are none.
    private func placeSums(_ fused: inout FusedLayers) throws -> NibbleShrinkArguments? {
        guard let rows = fused.adapterRows else { return nil }
        let lowRanks = fused.layers.map(\.lowRank)
        let ranks = lowRanks.reduce(0) { $0 + ($1?.ranks ?? 0) }
        guard ranks > 0 else { return nil }
        let memory = UInt64(try workspace.take(fused.tokens * ranks * 4))
        var adapters = AdapterSums(layers: [], rows: rows, stride: ranks)
        var arguments = NibbleShrinkArguments()
        arguments.input = fused.arguments.input
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
        for (index, lowRank) in lowRanks.enumerated() {
            let sums = memory + UInt64(4 * first)
            adapters.layers.append(lowRank.map { AdapterSums.Layer(lowRank: $0, sums: sums) })
            guard let lowRank else { continue }
            let layer = NibbleShrinkLayer(
                a: lowRank.a.pointer, scales: lowRank.scales.pointer, adapters: lowRank.adapters.pointer, sums: sums,
                ranks: Int32(lowRank.ranks), type: try element(lowRank.a.dtype, for: "adapter").code)
            withUnsafeMutableBytes(of: &arguments.layers) { $0.bindMemory(to: NibbleShrinkLayer.self)[index] = layer }
            first += lowRank.ranks
        }
        fused.adapters = adapters
        return arguments
    }

    private func launchShrink(_ arguments: NibbleShrinkArguments, _ fused: FusedLayers, ranks: Int) throws {
        let element = try element(fused.dtype, for: "linear")
        let threads = Int(NIBBLE_SHRINK_THREADS)
        if shrinksAlone(fused) { return try launch(.shrinkSingle, element, grid: Grid(x: ranks), block: threads, arguments) }
        // Few tokens need more blocks to fill the card; many read A less often if a block takes more ranks.
        let isFew = fused.tokens <= 64
        let grid = Grid(
            x: ranks / Int(isFew ? NIBBLE_SHRINK_FEW_RANKS : NIBBLE_SHRINK_RANKS),
            y: blocks(fused.tokens, per: NIBBLE_SHRINK_TOKENS))
        try launch(isFew ? .shrinkFew : .shrink, element, grid: grid, block: threads, arguments)
    }

    /// Makes what adapters add to a product, before its kernel is launched.
    /// - Parameter folds: whether the product's kernel can multiply by B itself.
    func addAdapters(_ fused: inout FusedLayers, folds: Bool = false) throws {
        if fused.arguments.prepared != 0 {
            fused.arguments.input = fused.arguments.prepared
            fused.arguments.prologue = NibblePrologue()
            try shrink(&fused)
        }
        guard let adapters = fused.adapters else { return }
        if folds, AdapterSums.canFold(adapters.layers.map { $0?.lowRank }, upTo: NIBBLE_FOLDED_RANKS) {
            return try foldSums(&fused)
        }
        try expand(fused, 0..<fused.tokens, adapterMemory(fused, tokens: fused.tokens), for: &fused.arguments)
    }

    /// Workspace for what adapters add to so many tokens: [tokens, ΣN], and as much for factors where there are gains.
    func adapterMemory(_ fused: FusedLayers, tokens: Int) throws -> (deltas: UInt64, factors: UInt64) {
        guard let adapters = fused.adapters else { return (0, 0) }
        let byteCount = tokens * fused.outFeatures * 4
        return (
            UInt64(try workspace.take(byteCount)), adapters.hasGains ? UInt64(try workspace.take(byteCount)) : 0
        )
    }

    /// Computes what adapters add to `tokens` of a call, and tells `arguments` of it, which begin with these tokens.
    func expand(
        _ fused: FusedLayers, _ tokens: Range<Int>, _ memory: (deltas: UInt64, factors: UInt64),
        for arguments: inout NibbleLinearArguments
    ) throws {
        guard let adapters = fused.adapters else { return }
        var outputs: [AdapterOutputs] = []
        for (index, layer) in adapters.layers.enumerated() {
            guard let layer else { continue }
            let part = fused.part(index)
            let column = UInt64(4 * (Int(part.firstColumn) - fused.firstColumn))
            let own = AdapterOutputs(
                layer: index, rows: 0..<Int(part.outFeatures), deltas: memory.deltas + column,
                factors: layer.lowRank.gains == nil ? 0 : memory.factors + column)
            outputs.append(own)
            withUnsafeMutableBytes(of: &arguments.parts) { parts in
                parts.bindMemory(to: NibbleLinearLayer.self)[index].lowRank = NibbleLowRank(own, stride: fused.outFeatures)
            }
        }
        try expand(fused, tokens, outputs, stride: fused.outFeatures)
    }

    /// - Parameter isInPlace: whether the outputs hold products without their bias, which become products with adapters.
    func expand(
        _ fused: FusedLayers, _ tokens: Range<Int>, _ outputs: [AdapterOutputs], stride: Int, isInPlace: Bool = false
    ) throws {
        guard let adapters = fused.adapters else { return }
        var arguments = NibbleExpandArguments()
        arguments.weights = adapters.rows.weights.pointer
        arguments.slots = adapters.rows.slots.pointer
        arguments.slots.advance(4 * tokens.lowerBound)
        arguments.deltaStride = Int64(stride)
        arguments.tokens = Int32(tokens.count)
        arguments.sumsStride = Int32(adapters.stride)
        arguments.weightStride = Int32(adapters.rows.weights.shape.last)
        arguments.isInPlace = isInPlace ? 1 : 0
        var tiles = 0
        for outputs in outputs {
            guard let layer = adapters.layers[outputs.layer] else { continue }
            var part = NibbleExpandLayer(layer, outputs, type: try element(layer.lowRank.b.dtype, for: "adapter").code)
            part.sums.advance(4 * tokens.lowerBound * adapters.stride)
            part.bias = fused.part(outputs.layer).bias
            part.bias.advance(4 * outputs.rows.lowerBound)
            withUnsafeMutableBytes(of: &arguments.layers) { layers in
                layers.bindMemory(to: NibbleExpandLayer.self)[Int(arguments.layerCount)] = part
            }
            arguments.layerCount += 1
            tiles += blocks(outputs.rows.count, per: NIBBLE_EXPAND_OUTPUTS)
        }
        let grid = Grid(x: tiles, y: blocks(tokens.count, per: NIBBLE_EXPAND_TOKENS))
        try launch(.expand, grid: grid, block: Int(NIBBLE_EXPAND_THREADS), arguments)
    }
}

extension NibbleExpandLayer {
    fileprivate init(_ layer: AdapterSums.Layer, _ outputs: AdapterOutputs, type: Int32) {
        let (lowRank, first) = (layer.lowRank, outputs.rows.lowerBound)
        self.init()
        b = lowRank.b.pointer + UInt64(first * lowRank.ranks * NibbleEpilogue.size(type))
        sums = layer.sums
        adapters = lowRank.adapters.pointer
        biases = lowRank.biases.pointer
        biases.advance(4 * first)
        gains = lowRank.gains.pointer
        gains.advance(4 * first)
        deltas = outputs.deltas
        factors = outputs.factors
        ranks = Int32(lowRank.ranks)
        self.type = type
        outFeatures = Int32(outputs.rows.count)
        featureStride = Int32(lowRank.b.shape[0])
    }
}

extension NibbleLowRank {
    init(_ outputs: AdapterOutputs, stride: Int) {
        self.init()
        deltas = outputs.deltas
        factors = outputs.factors
        self.stride = Int64(stride)
    }

    /// Skips the first tokens of a call.
    mutating func skip(tokens: Int) {
        deltas.advance(tokens * Int(stride) * 4)
        factors.advance(tokens * Int(stride) * 4)
    }
}
