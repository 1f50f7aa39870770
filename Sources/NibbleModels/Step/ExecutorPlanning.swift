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

    func shape() throws -> SessionShape {
        let wanted = min(size.context ?? model.maximumPositions ?? .max, model.positionLimit ?? .max)
        let blocks = try blockCount(context: wanted)
        let context = min(wanted, blocks * KeyValueGeometry.blockSize)
        let tokens = CacheBlocks.chunkTokens(
            size.chunkTokens ?? model.options.chunkTokens, rows: size.slots, capacity: context)
        return SessionShape(
            rows: size.slots, chunkTokens: tokens, context: context,
            layout: CacheLayout(blocks: blocks, layers: model.decoder.blocks.count), cacheFormat: format)
    }

    private func blockCount(context: Int) throws -> Int {
        if let blocks = size.blocks { return blocks }
        let bytes = bytesPerBlock()
        // Few sequences come near a long context at once.
        let usual = KeyValueGeometry.blocks(for: min(context, model.options.initialCapacity))
        var count = max(size.slots * usual, KeyValueGeometry.blocks(for: min(context, Int(Int32.max))))
        for backend in model.decoder.backends {
            guard let perBlock = bytes[ObjectIdentifier(backend)], perBlock > 0,
                let budget = size.cacheBytes ?? backend.availableBytes.map({ $0 / 4 * 3 })
            else { continue }
            guard budget >= perBlock else {
                throw BackendError.outOfMemory(
                    device: backend.device, requested: perBlock, available: backend.availableBytes, budget: size.cacheBytes)
            }
            count = min(count, budget / perBlock)
        }
        return count
    }

    /// Bytes that one block takes on each backend, all its layers together.
    private func bytesPerBlock() -> [ObjectIdentifier: Int] {
        model.decoder.blocks.reduce(into: [:]) { bytes, block in
            bytes[ObjectIdentifier(block.backend), default: 0] +=
                block.attention.description.geometry(format).byteCount(blocks: 1)
        }
    }
}
