import NibbleCore

/// Finds the shape of an executor: how many blocks fit beside the weights, and how long a sequence may become.
struct ExecutorPlanning {
    private let model: LanguageModel
    private let size: ExecutorSize
    private let format: KeyValueFormat

    init(_ model: LanguageModel, _ size: ExecutorSize) throws {
        try ExecutorPlanning.check("slots", size.slots, ExecutorPlanning.maximumSlots)
        try ExecutorPlanning.check("context", size.context, Int(Int32.max))
        try ExecutorPlanning.check("chunk tokens", size.chunkTokens, 1 << 20)
        try ExecutorPlanning.check("cache blocks", size.blocks, Int(Int32.max))
        try ExecutorPlanning.check("cache bytes", size.cacheBytes, .max)
        self.model = model
        self.size = size
        format = model.options.cacheFormat
    }

    /// Buffers of indices are allocated for every slot at once.
    private static let maximumSlots = 4096

    private static func check(_ field: String, _ value: Int?, _ limit: Int) throws {
        guard let value, !(1...limit ~= value) else { return }
        throw ModelError.invalidEngineSize(field: field, found: value, limit: limit)
    }

    /// The most tokens that an encoder's input may have.
    var encoderContext: Int {
        min(size.context ?? model.maximumPositions ?? model.options.initialCapacity, model.positionLimit ?? .max)
    }

    /// The shape with the model's chunks, or with the usual ones where larger ones would make sequences shorter: windows need
    /// blocks for a whole chunk.
    func shape() throws -> SessionShape {
        let chunkTokens = size.chunkTokens ?? model.options.chunkTokens
        let shape = try shape(chunkTokens: chunkTokens)
        guard size.chunkTokens == nil, chunkTokens > SessionOptions.defaultChunkTokens else { return shape }
        let usual = try self.shape(chunkTokens: SessionOptions.defaultChunkTokens)
        return usual.context > shape.context ? usual : shape
    }

    private func shape(chunkTokens: Int) throws -> SessionShape {
        let wanted = min(size.context ?? model.maximumPositions ?? .max, model.positionLimit ?? .max)
        let layers = model.decoder.description.layers
        // Where every layer has a window or a state, blocks bound no sequence; its index buffers do.
        let keepsAll = CacheLayout(layers, limit: wanted) { _ in 0 }.kinds.contains(.full)
        let limit = keepsAll || wanted < .max ? wanted : model.options.initialCapacity
        let tokens = CacheBlocks.chunkTokens(chunkTokens, rows: size.slots, capacity: min(limit, Int(Int32.max)))
        let layout = try fitted(CacheLayout(layers, limit: limit) { blockCount($0, context: limit, chunk: tokens) })
        let pool = BlockPool(tables: layout.tables, blockSize: KeyValueGeometry.blockSize)
        let context = min(limit, pool.capacity(chunk: tokens))
        return SessionShape(
            rows: size.slots, chunkTokens: CacheBlocks.chunkTokens(tokens, rows: size.slots, capacity: context),
            context: context, layout: layout, cacheFormat: format)
    }

    /// Blocks of a table where memory does not matter.
    private func blockCount(_ kind: CacheKind, context: Int, chunk: Int) -> Int {
        // Few sequences come near a long context at once.
        let usual = KeyValueGeometry.blocks(for: min(context, model.options.initialCapacity))
        let all = max(size.slots * usual, KeyValueGeometry.blocks(for: min(context, Int(Int32.max))))
        let most = min(all, size.blocks ?? all)
        switch kind {
        case .full: return size.blocks ?? all
        case .window(let window):
            // As much again as running sequences hold: the windows of prefixes that stay known.
            let running = size.slots * (KeyValueGeometry.blocks(for: window) + 2) + KeyValueGeometry.blocks(for: chunk)
            return min(most, 2 * running)
        case .state:
            // Two for each running sequence, and the ends of as many known prefixes.
            return max(min(3 * size.slots, size.blocks ?? .max), 2)
        }
    }

    /// The layout with as many blocks as every backend has memory for. Tables without a window give way first, down to half of
    /// what there is.
    private func fitted(_ layout: CacheLayout) throws -> CacheLayout {
        guard size.blocks == nil else { return layout }
        var layout = layout
        for backend in model.decoder.backends {
            guard let budget = size.cacheBytes ?? backend.availableBytes.map({ $0 / 4 * 3 }) else { continue }
            let perBlock = bytesPerBlock(layout, on: backend)
            let leastBytes = zip(perBlock, layout.kinds).reduce(0) { $0 + $1.0 * ($1.1 == .state ? 2 : 1) }
            guard budget >= leastBytes else {
                throw BackendError.outOfMemory(
                    device: backend.device, requested: leastBytes, available: backend.availableBytes, budget: size.cacheBytes)
            }
            layout = layout.fitted(bytesPerBlock: perBlock, budget: budget)
        }
        return layout
    }

    /// Bytes that one block of each table takes on a backend, all its layers together.
    private func bytesPerBlock(_ layout: CacheLayout, on backend: any Backend) -> [Int] {
        var bytes = Array(repeating: 0, count: layout.kinds.count)
        for (index, block) in model.decoder.blocks.enumerated() where block.backend === backend {
            let layer = block.description
            guard model.decoder.cacheLayer(of: index) == index else { continue }
            bytes[layout.tableOfLayer[index]] += layer.selfAttention?.geometry(format).byteCount(blocks: 1) ?? 0
            if let table = layout.stateTable { bytes[table] += layer.recurrence?.stateBuffers(blocks: 1).byteCount ?? 0 }
        }
        return bytes
    }
}

extension CacheLayout {
    /// The layout with at most as many blocks as `budget` bytes hold, at least one in each table, and two in one of states:
    /// those that a step reads and writes. Tables that keep every position
    /// give way first, down to half of the budget; then all of them alike.
    func fitted(bytesPerBlock: [Int], budget: Int) -> CacheLayout {
        func bytes(_ tables: [Int]) -> Int { tables.reduce(0) { $0 + blocks[$1] * bytesPerBlock[$1] } }
        let full = kinds.indices.filter { kinds[$0] == .full }
        let windowed = kinds.indices.filter { kinds[$0] != .full }
        guard bytes(full + windowed) > budget else { return self }
        // A single table must be able to use everything.
        let forFull = full.isEmpty ? 0 : windowed.isEmpty ? budget : max(budget - bytes(windowed), budget / 2)
        var counts = blocks
        func shrink(_ tables: [Int], to budget: Int) {
            let all = bytes(tables)
            guard all > budget else { return }
            for table in tables {
                let least = kinds[table] == .state ? 2 : 1
                counts[table] = max(Int(Double(blocks[table]) * Double(budget) / Double(all)), least)
            }
        }
        shrink(full, to: forFull)
        let taken = full.reduce(0) { $0 + counts[$1] * bytesPerBlock[$1] }
        shrink(windowed, to: budget - taken)
        return CacheLayout(self, blocks: counts)
    }
}
