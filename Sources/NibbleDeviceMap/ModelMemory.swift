package import NibbleCore
package import NibbleModels
import NibbleQuantization

/// Bytes that a model takes as Nibble stores it: codes and scales of quantized weights, float32 norms and biases, weights that
/// stay in floating point, caches and activations.
package struct ModelMemory: Sendable {
    package let architecture: ModelArchitecture
    /// The module tree. Once a checkpoint has been read, its ties are the checkpoint's.
    package let tree: ModuleTree
    package let plan: QuantizationPlan
    package let loadDType: DType
    /// The format of an output head that the user asked to quantize.
    package let headFormat: WeightFormat?
    /// Tokens of a sequence that caches are counted for.
    package let context: Int
    /// Sequences side by side.
    package let batch: Int
    /// Longer prompts run in chunks of this many tokens. Activations are sized by it.
    package let chunkTokens: Int
    /// How quantized products are computed.
    package let arithmetic: LinearArithmetic
    /// The dtype of the checkpoint's floats. Weights are converted where they are stored in another.
    package let checkpointDType: DType
    /// Whether the checkpoint is pre-quantized.
    package let isStoredQuantized: Bool
    /// Whether the checkpoint's linear layers are in another quantizer's form, so that floats are made of them first.
    package let decodesLayers: Bool
    /// What a device's operations take beside activations.
    package let operationBytes: OperationBytes
    /// How keys and values are stored.
    package let cacheFormat: KeyValueFormat
    /// What adapters add to the bytes of a parameter, by its path.
    package let adapterBytes: [String: Int]

    package typealias OperationBytes = @Sendable (_ device: Device, _ request: WorkspaceRequest) -> Int

    /// The context that is planned for where none is given.
    package static let defaultContext = 512

    package init(
        _ architecture: ModelArchitecture, tree: ModuleTree? = nil, _ plan: QuantizationPlan, loadDType: DType,
        headFormat: WeightFormat? = nil, context: Int? = nil, batch: Int = 1,
        chunkTokens: Int = SessionOptions.defaultChunkTokens, cacheQuantization: KeyValueQuantization? = nil,
        arithmetic: LinearArithmetic = .init(), checkpointDType: DType? = nil, isStoredQuantized: Bool = false,
        decodesLayers: Bool = false, adapterBytes: [String: Int] = [:],
        operationBytes: @escaping OperationBytes = ModelMemory.roughOperationBytes
    ) {
        self.architecture = architecture
        self.tree = tree ?? architecture.tree
        self.plan = plan
        self.loadDType = loadDType
        self.headFormat = headFormat
        let limit = architecture.maximumPositions ?? .max
        self.context = max(context ?? min(ModelMemory.defaultContext, limit), 1)
        self.batch = max(batch, 1)
        self.chunkTokens = chunkTokens
        self.arithmetic = arithmetic
        self.checkpointDType = checkpointDType ?? loadDType
        self.isStoredQuantized = isStoredQuantized
        self.decodesLayers = decodesLayers
        self.operationBytes = operationBytes
        self.adapterBytes = adapterBytes
        cacheFormat = cacheQuantization.map { .quantized($0) } ?? .dense(loadDType)
    }

    /// An estimate for unknown devices: one input in float32.
    package static let roughOperationBytes: OperationBytes = { _, request in request.tokens * request.inFeatures * 4 }

    /// Bytes of stored tensors.
    package struct StoredBytes: Sendable, Equatable {
        package var weights = 0
        /// Scales of blocks, or of rows.
        package var scales = 0

        package var total: Int { weights + scales }

        static func + (a: StoredBytes, b: StoredBytes) -> StoredBytes {
            StoredBytes(weights: a.weights + b.weights, scales: a.scales + b.scales)
        }
    }

    // MARK: Weights

    /// Of a module with all below it, without tied targets.
    func bytes(below module: LocatedModule) -> StoredBytes {
        let tied = Set(tree.tied.map(\.target))
        return module.descendants.reduce(StoredBytes()) { sum, module in
            module.node.parameters.reduce(sum) { sum, parameter in
                tied.contains(module.path(of: parameter.name)) ? sum : sum + bytes(parameter, of: module)
            }
        }
    }

    /// Of buffers that checkpoints hold. They lie beside the output embedding.
    var bufferBytes: Int { tree.persistentBuffers.reduce(0) { $0 + $1.buffer.count * DType.float32.byteCount } }

    func bytes(_ parameter: ModuleNode.Parameter, of module: LocatedModule) -> StoredBytes {
        var bytes = baseBytes(parameter, of: module)
        if !adapterBytes.isEmpty { bytes.weights += adapterBytes[module.path(of: parameter.name)] ?? 0 }
        return bytes
    }

    private func baseBytes(_ parameter: ModuleNode.Parameter, of module: LocatedModule) -> StoredBytes {
        let shape = parameter.shape
        let dense = shape.count * tree.storedDType(of: module.path(of: parameter.name), loadDType: loadDType).byteCount
        switch module.node.kind {
        case .linear, .transposedLinear, .linearSubclass, .experts, .router:
            guard parameter.isMatrix(of: module) else { break }
            guard let format = format(of: module) else { return StoredBytes(weights: dense) }
            // Experts are quantized one by one.
            let experts = shape.rank == 3 ? max(shape[0], 1) : 1
            let expert = ModelMemory.bytes(format, count: shape.count / experts, rows: rows(shape, module) / experts)
            let quantized = shape.count - plan.floatCount(module.path(of: parameter.name))
            func share(_ bytes: Int) -> Int { shape.count == 0 ? 0 : bytes * experts * quantized / shape.count }
            return StoredBytes(
                weights: share(expert.weights) + dense - (shape.count == 0 ? 0 : dense / shape.count * quantized),
                scales: share(expert.scales))
        case .embedding where module.node.role != .relativeBias:
            return StoredBytes(weights: dense)
        default: break
        }
        return StoredBytes(weights: shape.count * DType.float32.byteCount)
    }

    func rows(_ shape: Shape, _ module: LocatedModule) -> Int {
        if case .transposedLinear = module.node.kind { return shape[1] }
        if module.node.expertsLayout == .alternatingColumns, shape.rank == 3 { return shape[0] * shape[2] }
        return shape.dimensions.dropLast().reduce(1, *)
    }

    func format(of module: LocatedModule) -> WeightFormat? {
        if module.path == tree.outputEmbedding, let headFormat { return headFormat }
        if module.isExperts, let kept = plan.keptExperts { return kept }
        return plan.isQuantized(module.path) ? plan.config?.format : nil
    }

    static func bytes(_ format: WeightFormat, count: Int, rows: Int) -> StoredBytes {
        switch format {
        case .dense(let dtype): return StoredBytes(weights: count * dtype.byteCount)
        case .int8: return StoredBytes(weights: count, scales: rows * DType.float32.byteCount)
        case .fourBit(let format):
            let blocks = (count + format.blockSize - 1) / format.blockSize
            let groups = (blocks + FourBitFormat.nestedBlockSize - 1) / FourBitFormat.nestedBlockSize
            let scales = format.codebook == .mxfp4 ? blocks : format.isNested ? blocks + groups * 4 : blocks * 4
            return StoredBytes(weights: (count + 1) / 2, scales: scales)
        }
    }

    // MARK: Caches and activations

    /// Keys and values of one layer, its cross attention's included, and the states of its recurrent mixer.
    func cacheBytes(_ layer: LayerDescription) -> Int {
        [layer.selfAttention, layer.crossAttention].compactMap { $0 }.reduce(stateBytes(layer)) { sum, attention in
            guard attention.sharedLayer == nil else { return sum }
            let blocks = CacheBlocks.count(
                rows: batch, capacity: context, window: attention.window,
                chunkTokens: CacheBlocks.chunkTokens(chunkTokens, rows: batch, capacity: context))
            return sum + attention.geometry(cacheFormat).byteCount(blocks: blocks)
        }
    }

    /// The states of one layer's recurrent mixer. They do not grow with the context.
    private func stateBytes(_ layer: LayerDescription) -> Int {
        let blocks = CacheBlocks.count(.state, rows: batch, capacity: context, chunkTokens: chunkTokens)
        return layer.recurrence?.stateBuffers(blocks: blocks).byteCount ?? 0
    }

    /// The states of all layers.
    package var stateBytes: Int { architecture.decoder.layers.reduce(0) { $0 + stateBytes($1) } }

    /// The cache that all layers of an encoder share.
    private func encoderCacheBytes(_ layer: LayerDescription) -> Int {
        layer.attention.geometry(.dense(loadDType)).byteCount(blocks: batch * KeyValueGeometry.blocks(for: context))
    }

    /// Activations, tables and workspace that a device needs to run any part of the model.
    /// - Parameter crossesDevices: whether activations may have to be converted on their way to another device.
    func workspaceBytes(on device: Device, holdsHead: Bool, crossesDevices: Bool) -> Int {
        let dtype = device == .cpu ? DType.float32 : loadDType
        let tokens = CacheBlocks.chunkTokens(chunkTokens, rows: batch, capacity: context)
        var sizes = architecture.decoder.activationWidths(tree)
        var bytes =
            sizes.buffers(tokens: tokens, rows: batch, dtype: dtype).byteCount
            + architecture.decoder.tableBytes(tree, tokens: tokens, rows: batch, context: context)
            + StackDescription.smallBytes
        if let encoder = architecture.encoder {
            sizes = sizes.widened(encoder.activationWidths(tree))
            let encoded = encodedTokens
            bytes +=
                sizes.buffers(tokens: encoded, rows: batch, dtype: dtype).byteCount
                + (encoder.layers.first.map(encoderCacheBytes) ?? 0)
            // Index tables of the encoder's call, and of calls with cross attention.
            bytes +=
                encoder.tableBytes(tree, tokens: encoded, rows: batch, context: context)
                + StackDescription.indexBytes(tokens: tokens, rows: batch, context: context)
        }
        if holdsHead {
            let rows = device == .cpu ? batch : architecture.logitsRows(batch)
            bytes += rows * architecture.vocabularySize * DType.float32.byteCount
            bytes += SelectionState.buffers(slots: batch, vocabulary: architecture.vocabularySize).byteCount
        }
        // Steps on a GPU are padded with rows that leave their states in a block of their own.
        if device.isGPU {
            bytes += architecture.decoder.layers.reduce(0) { $0 + ($1.recurrence?.stateBuffers(blocks: 1).byteCount ?? 0) }
        }
        if crossesDevices { bytes += tokens * sizes.width * DType.float32.byteCount }
        return bytes + operationBytes(device, workspaceRequest(holdsHead: holdsHead))
    }

    /// The largest calls that sessions make on a device, with or without the head.
    package func workspaceRequest(holdsHead: Bool) -> WorkspaceRequest {
        let tokens = CacheBlocks.chunkTokens(chunkTokens, rows: batch, capacity: context)
        let decoder = request(architecture.decoder, holdsHead, tokens)
        return architecture.encoder.map { decoder.widened(request($0, holdsHead, encodedTokens)) } ?? decoder
    }

    /// Tokens that an encoder runs in one call.
    private var encodedTokens: Int { max(context, min(LanguageModel.encoderBatchTokens, batch * context)) }

    private func request(_ stack: StackDescription, _ holdsHead: Bool, _ tokens: Int) -> WorkspaceRequest {
        architecture.workspaceRequest(
            stack, holdsHead: holdsHead, tokens: tokens, rows: batch, context: context, formats: formats, arithmetic: arithmetic)
    }

    private var formats: Set<WeightFormat> {
        Set([.dense(loadDType)] + [plan.config?.format, headFormat, plan.keptExperts].compactMap { $0 })
    }

    /// What the model's steps call.
    package var kernelRequest: KernelRequest {
        let layers = [architecture.encoder, architecture.decoder].compactMap { $0 }.flatMap(\.layers)
        let attention = layers.flatMap { [$0.selfAttention, $0.crossAttention].compactMap { $0 } }
        let recurrences = layers.compactMap(\.recurrence)
        let compute = plan.config.flatMap { $0.loadIn4Bit ? $0.computeDType : nil }
        var request = KernelRequest(
            dtypes: [loadDType, compute ?? loadDType], formats: formats, headSizes: Set(attention.map(\.headSize)))
        request.hasQuantizedCache = cacheFormat != .dense(loadDType)
        request.hasRelativeBiases = attention.contains { if case .relative = $0.bias { true } else { false } }
        request.hasExperts = layers.contains { if case .experts = $0.feedForward { true } else { false } }
        request.hasRecurrences = !recurrences.isEmpty
        request.stateSizes = Set(recurrences.compactMap(\.stateSize))
        return request
    }
}

extension ModuleNode.Parameter {
    /// Whether a linear module's parameter is multiplied with: a weight, or those of a set of experts; not a bias.
    func isMatrix(of module: LocatedModule) -> Bool { shape.rank >= (module.isExperts ? 3 : 2) }
}
