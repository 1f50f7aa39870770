internal import CNibbleCUDA
internal import Foundation
internal import NibbleCore

/// The tokens of a call grouped by expert, in workspace: see NibbleGroupArguments.
struct ExpertGroups {
    let tile: Int
    let slotCount: Int
    /// How many slots probably have tokens, where tokens choose experts independently.
    let busySlots: Int
    /// `nil` for a single token, whose slots are its experts.
    private(set) var arrays: (slots: Tensor, rows: Tensor, slotOfPosition: Tensor, positions: Tensor)?
}

/// Mixtures whose counts of tokens stay on the device: one launch for the products of all experts.
extension CUDABackend {
    func groupedExperts(_ input: Tensor, _ call: ExpertsCall, into output: Tensor) throws {
        let (tokens, width) = (input.shape[0], input.shape.last)
        let pairs = call.ids.count
        let first = call.experts[0]
        let table = try call.expertSet.table(on: self)
        let tile = expertTile(first, input.dtype, tokens: tokens, mean: pairs / call.experts.count)
        let isSingle = tokens == 1 && !options.isBatchInvariant
        let groups =
            isSingle ? ExpertGroups(tile: 8, slotCount: pairs, busySlots: pairs) : try group(call, tokens: tokens, tile: tile)
        let products = try scratch(.float32, [pairs, width])
        let hidden: Tensor
        if groups.tile == 8, case .gated(let gate) = call.activation,
            fusesGate(first, input.dtype, isSingle: groups.arrays == nil)
        {
            hidden = try scratch(input.dtype, [pairs, first.down.inFeatures])
            try product(
                input, Array(first.gateUp.layers), table.gateUp, call, groups, isByPosition: false, .identity, gate: gate,
                into: hidden)
        } else {
            hidden = try activated(call.activation, input.dtype, [pairs, first.down.inFeatures]) {
                try product(input, Array(first.gateUp.layers), table.gateUp, call, groups, isByPosition: false, $0, into: $1)
            }
        }
        try product(hidden, [first.down], table.down, call, groups, isByPosition: true, .identity, into: products)
        try combine(products, call, groups, into: output)
    }

    /// Sorts the pairs of token and expert on the device. Slots have at most `tile` tokens.
    func group(_ call: ExpertsCall, tokens: Int, tile: Int) throws -> ExpertGroups {
        let pairs = call.ids.count
        let slotCount = min(pairs, call.experts.count) + pairs / tile
        let slots = try scratch(.int32, [slotCount, 4])
        let rows = try scratch(.int32, [pairs])
        let slotOfPosition = try scratch(.int32, [pairs])
        let positions = try scratch(.int32, [pairs])
        let arguments = NibbleGroupArguments(
            ids: call.ids.pointer, slots: slots.pointer, rows: rows.pointer, slotOfPosition: slotOfPosition.pointer,
            positions: positions.pointer, pairs: Int32(pairs), topK: Int32(call.topK), experts: Int32(call.experts.count),
            tile: Int32(tile), slotCount: Int32(slotCount), unused: 0)
        try launch(.groupExperts, grid: Grid(x: 1), block: 1024, arguments)
        let count = Double(call.experts.count)
        let chosen = count * (1 - pow(1 - 1 / count, Double(pairs)))
        return ExpertGroups(
            tile: tile, slotCount: slotCount, busySlots: min(Int(chosen.rounded(.up)) + pairs / tile, slotCount),
            arrays: (slots, rows, slotOfPosition, positions))
    }

    func combine(_ products: Tensor, _ call: ExpertsCall, _ groups: ExpertGroups, into output: Tensor) throws {
        let width = output.shape.last
        let arguments = NibbleCombineArguments(
            products: products.pointer, weights: call.weights.pointer, positions: (groups.arrays?.positions).pointer,
            residual: call.residual.pointer, output: output.pointer, width: Int32(width), topK: Int32(call.topK),
            outputType: try element(output.dtype, for: "experts").code,
            residualType: try element(call.residual?.dtype ?? output.dtype, for: "experts").code)
        let grid = Grid(x: output.count / width, y: blocks(width, per: 256))
        try launch(.combineExperts, grid: grid, block: 256, arguments)
    }

    /// Tokens of a slot: 8 where experts have few tokens, else about as many as most experts have.
    private func expertTile(_ expert: Expert, _ dtype: DType, tokens: Int, mean: Int) -> Int {
        guard tokens > 8, mean > 4, !options.isBatchInvariant else { return 8 }
        let up = tile(LinearKind(expert.gateUp.layers[0], input: dtype), mean: mean)
        let down = tile(LinearKind(expert.down, input: dtype), mean: mean)
        return up == down ? up : 8
    }

    private func tile(_ kind: LinearKind, mean: Int) -> Int {
        guard case .tiledFourBit(_, let compute) = kind else { return 64 }
        guard compute != .float32 else { return 8 }
        switch mean + mean / 2 {
        case ...16: return 16
        case ...32: return 32
        case ...64: return 64
        default: return hasWarpgroups ? 128 : 64
        }
    }

    // MARK: Products

    /// - Parameters:
    ///   - isByPosition: whether `input` has a row for each position, not for each token.
    ///   - gate: where ``fusesGate(_:_:)``: joins the halves of the product.
    private func product(
        _ input: Tensor, _ layers: [Linear], _ table: Tensor, _ call: ExpertsCall, _ groups: ExpertGroups, isByPosition: Bool,
        _ activation: Activation, gate: GateActivation? = nil, into output: Tensor
    ) throws {
        let mark = workspace.mark()
        defer { workspace.release(mark) }
        var input = input
        let kind = LinearKind(layers[0], input: input.dtype)
        if case .tiledFourBit(_, let compute) = kind, compute != input.dtype {
            let converted = try scratch(compute, input.shape)
            try convert(input, to: converted)
            input = converted
        }
        var isByPosition = isByPosition
        if !isByPosition, let arrays = groups.arrays, !kind.isTiled {
            let sorted = try scratch(input.dtype, [call.ids.count, input.shape.last])
            try gatherRows(input, arrays.rows, into: sorted)
            input = sorted
            isByPosition = true
        }
        let rows = input.shape[0]
        var fused = FusedLayers(
            kind: kind, layers: layers[...], input: input, dtype: input.dtype, tokens: rows, firstColumn: 0)
        fused.arguments.epilogue = NibbleEpilogue(
            LinearEpilogue(activation: activation), output: output, columns: output.shape.last)
        if let gate {
            let code = gate.code
            fused.arguments.epilogue.activation = code.function
            fused.arguments.epilogue.activationParameter = code.parameter
            fused.arguments.epilogue.scale = code.alpha
        }
        form = kind.form
        defer { form = [] }
        var arguments = NibbleExpertsArguments()
        arguments.layers = table.pointer
        arguments.isByPosition = isByPosition ? 1 : 0
        arguments.inputRowBytes = Int64(input.shape.last * input.dtype.byteCount)
        if let arrays = groups.arrays {
            arguments.slots = arrays.slots.pointer
            arguments.rows = arrays.rows.pointer
            arguments.slotOfPosition = arrays.slotOfPosition.pointer
        } else {
            arguments.ids = call.ids.pointer
        }
        let element = try element(input.dtype, for: "experts")
        switch kind {
        case .tiledFourBit:
            if groups.tile == 8, servesFew(layers, element, isSingle: groups.arrays == nil, isGated: gate != nil) {
                arguments.expertCount = Int32(call.experts.count)
                try fewExperts(fused, arguments, groups, pairs: call.ids.count, isGated: gate != nil, element)
            } else {
                try fourBitExperts(fused, arguments, groups, pairs: call.ids.count, element)
            }
        case .int8(let threshold, let scope, let roundsToHalf):
            _ = try quantizeRows(&fused, threshold: threshold, scope: scope, roundsToHalf: roundsToHalf, element)
            arguments.linear = fused.arguments
            try int8Experts(fused, arguments, groups, pairs: call.ids.count, element)
        default:
            arguments.linear = fused.arguments
            try denseExperts(fused, arguments, groups, element)
        }
    }

    /// Whether gate and up are computed by a kernel that also joins them, for experts of up to eight tokens.
    private func fusesGate(_ expert: Expert, _ dtype: DType, isSingle: Bool) -> Bool {
        guard let layer = expert.gateUp.layers.first, let element = try? element(dtype, for: "experts"),
            case .tiledFourBit(_, dtype) = LinearKind(layer, input: dtype)
        else { return false }
        return servesFew(Array(expert.gateUp.layers), element, isSingle: isSingle, isGated: true)
    }

    /// Whether `experts_few.cu` serves products of up to eight tokens of an expert.
    private func servesFew(_ layers: [Linear], _ element: KernelElement, isSingle: Bool, isGated: Bool) -> Bool {
        guard element != .f32, Int(NIBBLE_FEW_EXPERTS_SHARED) <= sharedMemoryLimit, let layer = layers.first,
            !isSingle || layer.inFeatures <= Int(NIBBLE_FEW_EXPERTS_MAX_K)
        else { return false }
        // Both halves of a layer begin with a tile.
        return isGated
            ? layers.count == 2 || layers.count == 1 && layer.outFeatures % 32 == 0 : layers.count == 1
    }

    private func fewExperts(
        _ fused: FusedLayers, _ arguments: NibbleExpertsArguments, _ groups: ExpertGroups, pairs: Int, isGated: Bool,
        _ element: KernelElement
    ) throws {
        var arguments = arguments
        let isSingle = groups.arrays == nil
        if isSingle {
            arguments.linear = fused.arguments
        } else {
            try takeStaged(fused, &arguments, groups, pairs: pairs, element)
            try launch(.stageExperts, element, grid: Grid(x: pairs), block: Int(NIBBLE_TILED_4BIT_THREADS), arguments)
        }
        arguments.hasNestedScales = fused.part(0).nestedAbsmax == 0 ? 0 : 1
        let kernel: Kernel =
            isSingle
            ? (isGated ? .gemvExpertsGated4Bit : .gemvExperts4Bit)
            : (isGated ? .gemmExpertsFewGated4Bit : .gemmExpertsFew4Bit)
        let (threads, shared) = (Int(NIBBLE_FEW_EXPERTS_THREADS), Int(NIBBLE_FEW_EXPERTS_SHARED))
        let warps = threads / 32
        let resident = try residentBlocks(kernel, element, block: threads, shared: shared) * warps
        let tiles = blocks(fused.outFeatures, per: isGated ? 32 : 16)
        arguments.teamSize = Int32(
            teamSize(units: tiles * groups.busySlots, pairs: blocks(fused.inFeatures, per: 128), resident: resident, isSingle))
        let grid = Grid(x: blocks(tiles * Int(arguments.teamSize), per: warps), z: groups.slotCount)
        try launch(kernel, element, grid: grid, block: threads, shared: shared, arguments)
    }

    /// The warps that share a tile, with two pairs of column tiles each at least. For a single token as many as let all tiles run in
    /// one round; else so many that the last of several rounds is a small part.
    private func teamSize(units: Int, pairs: Int, resident: Int, _ isSingle: Bool) -> Int {
        let sizes = [1, 2, 4, 8].filter { $0 == 1 || 2 * $0 <= pairs }
        if isSingle { return sizes.last { units * $0 <= resident } ?? 1 }
        return sizes.first { units * $0 >= 4 * resident || $0 == 4 } ?? sizes.last ?? 1
    }

    private func fourBitExperts(
        _ fused: FusedLayers, _ arguments: NibbleExpertsArguments, _ groups: ExpertGroups, pairs: Int, _ element: KernelElement
    ) throws {
        var arguments = arguments
        let threads = Int(NIBBLE_TILED_4BIT_THREADS)
        try takeStaged(fused, &arguments, groups, pairs: pairs, element)
        if hasWarpgroups, groups.tile > 8, element != .f32 { return try wideExperts(fused, arguments, groups, pairs, element) }
        try launch(.stageExperts, element, grid: Grid(x: pairs), block: threads, arguments)
        let shared = sharedForTiled(.gemmExperts4Bit8, element)
        if groups.tile == 8 {
            let grid = try expertGrid(.gemmExperts4Bit8, element, tiles: fused.blocks(per: 16), groups, threads, shared)
            return try launch(.gemmExperts4Bit8, element, grid: grid, block: threads, shared: shared, arguments)
        }
        let kernel: Kernel =
            groups.tile == 16 ? .gemmExperts4Bit16 : groups.tile == 32 ? .gemmExperts4Bit32 : .gemmExperts4Bit64
        try launch(
            kernel, element, grid: Grid(x: fused.blocks(per: 32), z: groups.slotCount), block: threads, shared: shared, arguments)
    }

    /// Takes workspace for the staged positions.
    private func takeStaged(
        _ fused: FusedLayers, _ arguments: inout NibbleExpertsArguments, _ groups: ExpertGroups, pairs: Int,
        _ element: KernelElement
    ) throws {
        arguments.linear = fused.arguments
        // A position's share of NIBBLE_STAGED_4BIT_BYTES; each slot begins at a multiple of 8.
        arguments.stagedRowBytes = nibble_staged_4bit_bytes(8, Int64(fused.inFeatures), element == .f32 ? 1 : 0) / 8
        let staged = (pairs + 7 * min(pairs, groups.slotCount)) * Int(arguments.stagedRowBytes)
        arguments.linear.staged = UInt64(try workspace.take(staged))
    }

    private func wideExperts(
        _ fused: FusedLayers, _ arguments: NibbleExpertsArguments, _ groups: ExpertGroups, _ pairs: Int, _ element: KernelElement
    ) throws {
        try launch(
            .stageExpertsWide, element, grid: Grid(x: pairs), block: Int(NIBBLE_WIDE_4BIT_STAGE_THREADS), arguments)
        let kernel: Kernel =
            switch groups.tile {
            case 16: .gemmExpertsWide16
            case 32: .gemmExpertsWide32
            case 64: .gemmExpertsWide64
            default: .gemmExpertsWide128
            }
        let threads = Int(NIBBLE_WIDE_4BIT_THREADS)
        let shared = Int(nibble_wide_4bit_shared(Int32(groups.tile)))
        let tiles = fused.blocks(per: NIBBLE_WIDE_4BIT_ROWS)
        let parts = try wideParts(
            kernel, tiles: tiles * groups.slotCount, pairs: blocks(fused.inFeatures, per: 128), threads: threads, shared: shared)
        try launch(
            kernel, grid: Grid(x: tiles * parts, z: groups.slotCount), block: threads, shared: shared, cluster: parts, arguments)
    }

    private func denseExperts(
        _ fused: FusedLayers, _ arguments: NibbleExpertsArguments, _ groups: ExpertGroups, _ element: KernelElement
    ) throws {
        if groups.arrays == nil, element != .f32, fitsDenseOne(fused.inFeatures) {
            let pairs = fused.layers.reduce(0) { $0 + ($1.outFeatures + 1) / 2 }
            let (threads, shared) = (Int(NIBBLE_GEMV_SINGLE_THREADS), fused.inFeatures * 2)
            let grid = try expertGrid(
                .gemvExpertsSingle, element, tiles: blocks(pairs, per: threads / 32), groups, threads, shared)
            return try launch(.gemvExpertsSingle, element, grid: grid, block: threads, shared: shared, arguments)
        }
        if groups.tile == 8 {
            let grid = Grid(x: fused.blocks(per: NIBBLE_GEMV_ROWS), z: groups.slotCount)
            return try launch(.gemvExperts, element, grid: grid, block: Int(NIBBLE_GEMV_THREADS), arguments)
        }
        let grid = Grid(x: fused.blocks(per: NIBBLE_GEMM_TILE_N), z: groups.slotCount)
        try launch(.gemmExperts, element, grid: grid, block: Int(NIBBLE_GEMM_THREADS), arguments)
    }

    private func int8Experts(
        _ fused: FusedLayers, _ arguments: NibbleExpertsArguments, _ groups: ExpertGroups, pairs: Int, _ element: KernelElement
    ) throws {
        if groups.tile == 8 {
            let grid = Grid(x: fused.blocks(per: NIBBLE_GEMV_INT8_ROWS), z: groups.slotCount)
            return try launch(.gemvExpertsInt8, element, grid: grid, block: Int(NIBBLE_GEMV_INT8_THREADS), arguments)
        }
        var arguments = arguments
        if arguments.linear.outlierThreshold > 0 {
            arguments.linear.outlierSumsStride = Int64(fused.outFeatures)
            arguments.linear.outlierSums = UInt64(try workspace.take(pairs * fused.outFeatures * 4))
            arguments.linear.outlierTokensPerWarp = Int32(blocks(groups.tile, per: Int(NIBBLE_OUTLIER_THREADS) / 32))
            let grid = Grid(x: fused.blocks(per: NIBBLE_OUTLIER_TILE_N), z: groups.slotCount)
            try launch(.sumExpertsOutliers, element, grid: grid, block: Int(NIBBLE_OUTLIER_THREADS), arguments)
        }
        let grid = Grid(x: fused.blocks(per: NIBBLE_GEMM_INT8_TILE_N), z: groups.slotCount)
        try launch(.gemmExpertsInt8, element, grid: grid, block: Int(NIBBLE_GEMM_INT8_THREADS), arguments)
    }

    /// For blocks that take tiles in turn: as many as let the card hold those of all slots with tokens, with equal work for each.
    private func expertGrid(
        _ kernel: Kernel, _ element: KernelElement, tiles: Int, _ groups: ExpertGroups, _ threads: Int, _ shared: Int
    ) throws -> Grid {
        let resident = try residentBlocks(kernel, element, block: threads, shared: shared)
        let rounds = max(blocks(tiles * groups.busySlots, per: resident), 1)
        return Grid(x: blocks(tiles, per: min(rounds, tiles)), z: groups.slotCount)
    }
}

extension LinearKind {
    fileprivate var isTiled: Bool { if case .tiledFourBit = self { true } else { false } }
}
