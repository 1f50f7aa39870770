package import NibbleCore

/// Runs a stack's blocks, call by call. Holds the cache of each block, activation and index buffers for every backend that takes
/// part, and copies activations between backends.
final class StackRunner {
    let stack: TransformerStack
    let stages: [Stage]
    /// Of each layer. Layers that share keys and values have one cache, or a copy of it on their own backend.
    private(set) var caches: [LayerCache] = []
    private(set) var image: IndexBuffers.Image
    private var devices: [DeviceBuffers]
    private var limits: IndexBuffers.Limits
    private var rotary: [RotaryKey: RotaryTable] = [:]
    /// Where activations are converted before they go to a device with another activation dtype, by source and target.
    private var staging: [StagingKey: Tensor] = [:]
    private var positions: Int
    private var layout: CacheLayout
    /// By slot: the adapters that its rows use.
    let adapters: AdapterTable
    /// Called between blocks. What it throws ends the call.
    var interruption: (@Sendable () throws -> Void)?

    /// What one backend holds for this stack.
    private struct DeviceBuffers {
        let backend: any Backend
        let activations: ActivationBuffers
        var indices: IndexBuffers
    }

    private struct StagingKey: Hashable {
        let source: ObjectIdentifier
        let target: ObjectIdentifier
    }

    private struct RotaryKey: Hashable {
        let index: Int
        let variant: Int
        let backend: ObjectIdentifier
    }

    /// - Parameters:
    ///   - layout: the block tables, and the physical cache blocks of each layer.
    ///   - sharesCache: all layers use one cache (an encoder needs its keys only within the layer).
    ///   - positions: positions a row can reach.
    ///   - widening: further widths that the activation buffers have to serve.
    ///   - adapters: the model's.
    ///   - adapterSlots: slots with adapters; `nil`: as many as there are rows.
    ///   - extraBackends: backends that need buffers though no block of the stack runs there.
    init(
        _ stack: TransformerStack, limits: IndexBuffers.Limits, layout: CacheLayout, cacheFormat: KeyValueFormat,
        sharesCache: Bool,
        positions: Int, options: SessionOptions, widening: ActivationWidths? = nil, adapters: AdapterRegistry,
        adapterSlots: Int? = nil, extraBackends: [any Backend] = []
    ) throws {
        self.stack = stack
        stages = StackRunner.stages(stack)
        self.limits = limits
        self.positions = positions
        self.layout = layout
        image = IndexBuffers.Image(limits)
        var backends = stack.backends
        for backend in extraBackends where !backends.contains(where: { $0 === backend }) { backends.append(backend) }
        let sizes = widening.map(stack.activationWidths.widened) ?? stack.activationWidths
        devices = try backends.map { backend in
            DeviceBuffers(
                backend: backend,
                activations: try ActivationBuffers(
                    sizes, tokens: limits.tokens, rows: limits.rows, dtype: backend.activationDType(loadDType: options.loadDType),
                    backend: backend),
                indices: try IndexBuffers(limits, backend: backend))
        }
        self.adapters = try AdapterTable(adapters, slots: adapterSlots ?? limits.rows, backends: backends)
        for (index, block) in stack.blocks.enumerated() {
            if sharesCache, let last = caches.last, last.keyValue?.keys.device == block.backend.device {
                caches.append(last)
            } else if stack.cacheLayer(of: index) != index {
                caches.append(caches[stack.cacheLayer(of: index)])
            } else {
                caches.append(try LayerCache(block.description, layout, layer: index, cacheFormat, block.backend))
            }
        }
        showAdapters()
    }

    /// Gives every layer its tokens' slots.
    private func showAdapters() {
        for device in devices {
            device.activations.adapters = adapters.rows(on: device.backend, slots: device.indices.adapterSlots)
        }
    }

    /// What the tokens whose logits are wanted take of the adapters.
    func selectedAdapters(_ range: Range<Int>, on backend: any Backend) -> AdapterRows {
        adapters.rows(on: backend, slots: indexBuffers(on: backend).selectedAdapterSlots(range))
    }

    private func deviceBuffers(_ backend: any Backend) -> DeviceBuffers {
        guard let buffers = devices.first(where: { $0.backend === backend }) else {
            preconditionFailure("the backend \(backend.device) runs no layer of this stack")
        }
        return buffers
    }

    func buffers(on backend: any Backend) -> ActivationBuffers { deviceBuffers(backend).activations }

    func indices(_ call: BatchShape, on backend: any Backend, table: Int = 0) -> BatchIndices {
        let buffers = deviceBuffers(backend).indices
        var indices = buffers.indices(
            tokens: call.tokens, rows: call.rows, maximumQueryLength: call.maximumQueryLength,
            maximumLength: call.launchLength ?? call.maximumLength, table: table, tableStride: call.tableStride)
        // The CPU's tiles are a row's own whatever its neighbours.
        if call.decodingRows > 0, backend.device != .cpu {
            indices.parts = buffers.parts(of: indices, decodingRows: call.decodingRows)
        }
        return indices
    }

    /// A call's indices with the table of states; `nil` where no layer has any.
    private func stateIndices(_ call: BatchShape, on backend: any Backend) -> BatchIndices? {
        guard layout.stateTable != nil else { return nil }
        let buffers = deviceBuffers(backend).indices
        let whole = buffers.indices(
            tokens: call.tokens, rows: call.rows, maximumQueryLength: call.maximumQueryLength,
            maximumLength: call.maximumLength, tableStride: call.tableStride)
        return buffers.stateIndices(whole, stride: call.stateStride ?? limits.stateColumns)
    }

    /// The block table of layer `index`'s keys and values.
    func table(ofLayer index: Int) -> Int { layout.tableOfLayer[index] }

    var stateTable: Int? { layout.stateTable }

    /// Identifies the rotary tables that a call uses.
    func rotaryVariants(_ call: BatchShape) -> [Int] {
        stack.description.rotary.map { $0.variant(length: call.rotaryLength ?? call.maximumLength) }
    }

    func indexBuffers(on backend: any Backend) -> IndexBuffers { deviceBuffers(backend).indices }

    /// Uploads the host's index image to every backend.
    /// - Parameters: entries of the block tables, and of the table of states, that are in use; `nil`: all.
    func upload(tableCount: Int? = nil, stateCount: Int = 0) throws {
        for device in devices {
            try device.indices.upload(image, tableCount: tableCount, stateCount: stateCount, backend: device.backend)
        }
    }

    /// Embeds the call's tokens and runs all blocks. Returns the residual stream, float32 [T, E], and its backend.
    ///
    /// - Parameters:
    ///   - embeddedPositions: the positions that are embedded where they are not those in the cache.
    func run(
        _ call: BatchShape, embeddedPositions: [Int32]? = nil, cross: CrossContext? = nil
    ) throws -> (hidden: Tensor, backend: any Backend) {
        try embed(call, positions: embeddedPositions)
        for stage in stages {
            try enter(stage, call)
            try run(stage, call, cross: cross)
        }
        return output(call)
    }

    /// Returns block i's cache of the encoder's output, and the indices that go with it.
    typealias CrossContext = (Int, any Backend) -> (cache: KeyValueCache, batch: BatchIndices)

    /// Blocks behind each other on one backend.
    struct Stage {
        let backend: any Backend
        let previous: any Backend
        var blocks: Range<Int>
    }

    /// The residual stream behind the last block, and its backend.
    func output(_ call: BatchShape) -> (hidden: Tensor, backend: any Backend) {
        let backend = stages.last?.backend ?? stack.embedding.backend
        return (buffers(on: backend).hidden(call.tokens), backend)
    }

    func embed(_ call: BatchShape, positions: [Int32]? = nil) throws {
        let backend = stack.embedding.backend
        let (indices, buffers) = (indices(call, on: backend), buffers(on: backend))
        let hidden = buffers.hidden(call.tokens)
        try stack.embedding(indices, positions: positions, into: hidden, buffers)
        try stack.perLayer?(hidden, indices, buffers, backend)
    }

    /// Moves to a stage what its blocks read: the residual stream, per-layer inputs, and caches of layers on other backends.
    func enter(_ stage: Stage, _ call: BatchShape) throws {
        let (previous, backend) = (stage.previous, stage.backend)
        _ = try moveStream(buffers(on: previous).hidden(call.tokens), from: previous, to: backend)
        guard previous !== backend else { return }
        if stack.perLayer != nil {
            try transfer(
                buffers(on: previous).perLayer(call.tokens), from: previous, to: buffers(on: backend).perLayer(call.tokens),
                on: backend)
        }
        for index in stage.blocks where stack.cacheLayer(of: index) == index {
            guard let source = stack.description.layers[index].attention.sharedLayer else { continue }
            let origin = stack.blocks[source].backend
            guard let own = caches[index].keyValue, let read = caches[source].keyValue else { continue }
            try transfer(read.keys, from: origin, to: own.keys, on: backend)
            try transfer(read.values, from: origin, to: own.values, on: backend)
        }
    }

    /// Runs a stage's blocks over the residual stream.
    func run(_ stage: Stage, _ call: BatchShape, cross: CrossContext?) throws {
        let backend = stage.backend
        let hidden = buffers(on: backend).hidden(call.tokens)
        let states = stateIndices(call, on: backend)
        for index in stage.blocks {
            try interruption?()
            let block = stack.blocks[index]
            if index + 1 < stack.blocks.count { stack.blocks[index + 1].stream?.prefetch() }
            let context = Block.Context(
                cache: caches[index], batch: indices(call, on: backend, table: layout.tableOfLayer[index]), states: states,
                rotary: try rotaryTable(block.description.selfAttention, call, backend),
                cross: cross?(index, backend), activations: buffers(on: backend),
                perLayerColumn: index * (stack.description.perLayer?.width ?? 0))
            try block.stream.during { try block(hidden, context) }
        }
    }

    private static func stages(_ stack: TransformerStack) -> [Stage] {
        var stages: [Stage] = []
        for (index, block) in stack.blocks.enumerated() {
            let previous = stages.last?.backend ?? stack.embedding.backend
            if let last = stages.indices.last, block.backend === previous {
                stages[last].blocks = stages[last].blocks.lowerBound..<index + 1
            } else {
                stages.append(Stage(backend: block.backend, previous: previous, blocks: index..<index + 1))
            }
        }
        return stages
    }

    /// Final norm and projection of the stream's rows [n, E]. Returns activations [n, width] and their backend.
    /// - Parameter selected: the rows' places among the tokens whose logits are wanted; `nil`: they are all tokens of the call.
    func finish(_ hidden: Tensor, on start: any Backend, selected: Range<Int>? = nil) throws -> (
        output: Tensor, backend: any Backend
    ) {
        let (norm, backend) = stack.finalNorm ?? (nil, start)
        let stream = try moveStream(hidden, from: start, to: backend)
        let input = LinearInput(stream, after: norm, scratch: buffers(on: backend).normed(hidden.shape[0]))
        let output = try input.materialized(backend)
        guard let (layer, target) = stack.projectOut else { return (output, backend) }
        let projected = buffers(on: target).projections(hidden.shape[0], width: layer.outFeatures)
        let adapters = selected.map { selectedAdapters($0, on: target) } ?? buffers(on: target).adapters
        try target.linear(
            try move(output, from: backend, to: target), layer, epilogue: .init(adapters: adapters), into: projected)
        return (projected, target)
    }

    /// The residual stream on another backend.
    private func moveStream(_ hidden: Tensor, from source: any Backend, to target: any Backend) throws -> Tensor {
        guard source !== target else { return hidden }
        let destination = buffers(on: target).hidden(hidden.shape[0])
        try transfer(hidden, from: source, to: destination, on: target)
        return destination
    }

    /// Activations on another backend, in its dtype.
    func move(_ tensor: Tensor, from source: any Backend, to target: any Backend) throws -> Tensor {
        guard source !== target else { return tensor }
        let destination = buffers(on: target).normed(tensor.shape[0]).viewed(as: tensor.shape)
        if destination.dtype == tensor.dtype {
            try transfer(tensor, from: source, to: destination, on: target)
            return destination
        }
        let staged = try stagingBuffer(destination.dtype, tensor.shape, from: source, to: target)
        try source.convert(tensor, to: staged)
        try transfer(staged, from: source, to: destination, on: target)
        return destination
    }

    /// A buffer on `source`, made once for the largest call. It may be overwritten as soon as the copy is enqueued: copies
    /// between devices come in the order of both.
    private func stagingBuffer(
        _ dtype: DType, _ shape: Shape, from source: any Backend, to target: any Backend
    ) throws -> Tensor {
        let key = StagingKey(source: ObjectIdentifier(source), target: ObjectIdentifier(target))
        if let buffer = staging[key], buffer.count >= shape.count { return buffer.viewed(as: shape) }
        let buffer = try source.allocate(dtype, [max(limits.tokens, shape[0]), shape[1]])
        staging[key] = buffer
        return buffer.viewed(as: shape)
    }

    /// The rotary tables of a call, made where they are missing.
    func rotaryTensors(_ call: BatchShape) throws -> [Tensor] {
        guard !stack.description.rotary.isEmpty else { return [] }
        return try stack.blocks.flatMap { block in
            try rotaryTable(block.description.selfAttention, call, block.backend).map { [$0.cosines, $0.sines] } ?? []
        }
    }

    private func rotaryTable(
        _ attention: AttentionDescription?, _ call: BatchShape, _ backend: any Backend
    ) throws -> RotaryTable? {
        guard let index = attention?.rotary else { return nil }
        let description = stack.description.rotary[index]
        let length = call.rotaryLength ?? call.maximumLength
        let key = RotaryKey(index: index, variant: description.variant(length: length), backend: ObjectIdentifier(backend))
        if let table = rotary[key] { return table }
        let table = try makeRotaryTable(description, length: length, backend)
        if description.dependsOnLength {
            // Tables of other lengths will hardly be asked for again, save the two of long rope.
            rotary = rotary.filter { $0.key.index != index || $0.key.variant <= 1 || $0.key.variant == key.variant }
        }
        rotary[key] = table
        return table
    }

    private func makeRotaryTable(_ description: RotaryDescription, length: Int, _ backend: any Backend) throws -> RotaryTable {
        let (cosines, sines) = description.table(positions: positions, length: length)
        let shape: Shape = [positions, description.rotated / 2]
        func upload(_ values: [Float]) throws -> Tensor {
            let tensor = try backend.allocate(.float32, shape)
            try backend.copy(.host(values, .float32, shape), to: tensor)
            return tensor
        }
        return RotaryTable(
            cosines: try upload(cosines), sines: try upload(sines), rotated: description.rotated,
            isInterleaved: description.isInterleaved)
    }
}

extension StackRunner {
    /// Makes room for rows of `positions` tokens: larger caches with the old blocks in front, and index buffers with longer
    /// block tables. Captured graphs are void afterwards.
    ///
    /// - Parameter layout: the same tables with more blocks.
    /// - Throws: `BackendError` where memory runs out. The runner can then still be used as it was.
    func grow(_ layout: CacheLayout, blocksPerRow: Int, positions: Int) throws {
        for (index, block) in stack.blocks.enumerated() {
            let blocks = layout.blocks[layout.tableOfLayer[index]]
            let place = stack.cacheLayer(of: index)
            if place == index {
                caches[index].keyValue = try caches[index].keyValue?.enlarged(to: blocks, on: block.backend)
            } else {
                caches[index] = caches[place]
            }
        }
        var limits = limits
        limits.blocksPerRow = blocksPerRow
        let indices = try devices.map { try IndexBuffers(limits, backend: $0.backend) }
        for index in devices.indices { devices[index].indices = indices[index] }
        image = IndexBuffers.Image(limits)
        self.limits = limits
        self.layout = layout
        self.positions = positions
        rotary = [:]
        showAdapters()
    }
}

/// What a layer keeps of rows: keys and values, states, or both.
struct LayerCache {
    var keyValue: KeyValueCache?
    var state: RecurrentState?

    init(
        _ layer: LayerDescription, _ layout: CacheLayout, layer index: Int, _ format: KeyValueFormat, _ backend: any Backend
    ) throws {
        keyValue = try layer.selfAttention?.makeCache(blocks: layout.blocks[layout.tableOfLayer[index]], format, backend)
        if let recurrence = layer.recurrence, let table = layout.stateTable {
            state = try recurrence.makeState(blocks: layout.blocks[table], backend)
        }
    }

    var byteCount: Int {
        let tensors = [keyValue?.keys, keyValue?.values, state?.inputs, state?.matrix]
        return tensors.reduce(0) { $0 + ($1?.byteCount ?? 0) }
    }
}

extension KeyValueCache {
    /// A cache of `blocks` blocks that begins with this one's; the cache itself where it is large enough.
    fileprivate func enlarged(to blocks: Int, on backend: any Backend) throws -> KeyValueCache {
        guard blocks > keys.shape[0] else { return self }
        func enlarge(_ old: Tensor, size: Int) throws -> Tensor {
            let new = try backend.allocate(geometry.dtype, geometry.shape(blocks: blocks, size: size))
            try backend.copy(old, to: new.rows(0..<old.shape[0]))
            return new
        }
        let larger = KeyValueCache(
            geometry: geometry, keys: try enlarge(keys, size: geometry.keySize),
            values: try enlarge(values, size: geometry.valueSize))
        // The old memory goes away with this cache, so the copies have to be done.
        try backend.synchronize()
        return larger
    }
}

extension AttentionDescription {
    /// The shape of a layer's cache.
    package func geometry(_ format: KeyValueFormat) -> KeyValueGeometry {
        KeyValueGeometry(heads: keyValueHeads, keySize: headSize, valueSize: headSize, format: format)
    }

    func makeCache(blocks: Int, _ format: KeyValueFormat, _ backend: any Backend) throws -> KeyValueCache {
        let geometry = geometry(format)
        func allocate(_ size: Int) throws -> Tensor {
            try backend.allocate(geometry.dtype, geometry.shape(blocks: blocks, size: size))
        }
        return KeyValueCache(
            geometry: geometry, keys: try allocate(geometry.keySize), values: try allocate(geometry.valueSize))
    }
}
