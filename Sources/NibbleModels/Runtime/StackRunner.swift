package import NibbleCore

/// Runs a stack's blocks over one call: workspace and index buffers for every backend that takes part, copies between
/// them, one cache a block.
final class StackRunner {
    let stack: TransformerStack
    private(set) var caches: [KeyValueCache] = []
    private(set) var image: BatchBuffers.Image
    private var parts: [Part]
    private var limits: BatchBuffers.Limits
    private var rotary: [RotaryKey: RotaryTable] = [:]
    private var positions: Int
    private var layout: CacheLayout
    /// Asked between blocks; what it throws ends the call.
    var interruption: (@Sendable () throws -> Void)?

    /// What one backend holds for this stack.
    private struct Part {
        let backend: any Backend
        let workspace: Workspace
        var buffers: BatchBuffers
    }

    private struct RotaryKey: Hashable {
        let index: Int
        let variant: Int
        let backend: ObjectIdentifier
    }

    /// The shape of one call.
    struct Call {
        var tokens: Int
        var rows: Int
        var maximumQueryLength: Int
        var maximumLength: Int
        /// What launches are sized for where a captured graph has to serve longer rows too.
        var launchLength: Int?
    }

    /// - Parameters:
    ///   - layout: the block tables, and the physical cache blocks of each layer.
    ///   - sharesCache: all layers use one cache (an encoder needs its keys only within the layer).
    ///   - positions: positions a row can reach.
    ///   - widening: makes the workspace serve these sizes too.
    ///   - extraBackends: backends that need workspace and indices though no block of the stack runs there.
    init(
        _ stack: TransformerStack, limits: BatchBuffers.Limits, layout: CacheLayout, cacheFormat: KeyValueFormat,
        sharesCache: Bool,
        positions: Int, options: SessionOptions, widening: WorkspaceSizes? = nil, extraBackends: [any Backend] = []
    ) throws {
        self.stack = stack
        self.limits = limits
        self.positions = positions
        self.layout = layout
        image = BatchBuffers.Image(limits)
        var backends = stack.backends
        for backend in extraBackends where !backends.contains(where: { $0 === backend }) { backends.append(backend) }
        let sizes = widening.map(stack.workspaceSizes.widened) ?? stack.workspaceSizes
        parts = try backends.map { backend in
            Part(
                backend: backend,
                workspace: try Workspace(
                    sizes, tokens: limits.tokens, rows: limits.rows, dtype: backend.activationDType(loadDType: options.loadDType),
                    backend: backend),
                buffers: try BatchBuffers(limits, backend: backend))
        }
        for (index, block) in stack.blocks.enumerated() {
            let blocks = layout.blocks[layout.tableOfLayer[index]]
            if sharesCache, let last = caches.last, last.keys.device == block.backend.device {
                caches.append(last)
            } else {
                caches.append(try block.attention.description.makeCache(blocks: blocks, cacheFormat, block.backend))
            }
        }
    }

    private func part(of backend: any Backend) -> Part {
        guard let part = parts.first(where: { $0.backend === backend }) else {
            preconditionFailure("the backend \(backend.device) has no part in this stack")
        }
        return part
    }

    func workspace(on backend: any Backend) -> Workspace { part(of: backend).workspace }

    func indices(_ call: Call, on backend: any Backend, table: Int = 0) -> BatchIndices {
        part(of: backend).buffers.indices(
            tokens: call.tokens, rows: call.rows, maximumQueryLength: call.maximumQueryLength,
            maximumLength: call.launchLength ?? call.maximumLength, table: table)
    }

    /// The block table that layer `index` uses.
    func table(ofLayer index: Int) -> Int { layout.tableOfLayer[index] }

    /// Which rotary tables a call uses.
    func rotaryVariants(_ call: Call) -> [Int] { stack.description.rotary.map { $0.variant(length: call.maximumLength) } }

    func counters(_ call: Call, on backend: any Backend) -> Tensor { part(of: backend).buffers.counters(rows: call.rows) }
    func selected(_ count: Int, on backend: any Backend) -> Tensor { part(of: backend).buffers.selected(count) }

    /// Sends the host's index image to every backend.
    func upload() throws {
        for part in parts { try part.buffers.upload(image, backend: part.backend) }
    }

    /// Embeds the call's tokens and runs all blocks. Answers the residual stream, float32 [T, E], and the backend it lies on.
    ///
    /// - Parameters:
    ///   - embeddedPositions: the positions that are embedded where they are not those in the cache.
    ///   - cross: for block i its cache of the encoder's output and the indices that go with it.
    func run(
        _ call: Call, embeddedPositions: [Int32]? = nil,
        cross: ((Int, any Backend) -> (cache: KeyValueCache, batch: BatchIndices))? = nil
    ) throws -> (hidden: Tensor, backend: any Backend) {
        var backend = stack.embedding.backend
        var hidden = workspace(on: backend).hidden(call.tokens)
        try stack.embedding(
            indices(call, on: backend), positions: embeddedPositions, into: hidden, workspace(on: backend))
        for (index, block) in stack.blocks.enumerated() {
            try interruption?()
            hidden = try moveStream(hidden, from: backend, to: block.backend)
            backend = block.backend
            if index + 1 < stack.blocks.count { stack.blocks[index + 1].stream?.prefetch() }
            let context = Block.Context(
                cache: caches[index], batch: indices(call, on: backend, table: layout.tableOfLayer[index]),
                rotary: try rotaryTable(block.attention.description, call, backend),
                cross: cross?(index, backend), workspace: workspace(on: backend))
            try block.stream.during { try block(hidden, context) }
        }
        return (hidden, backend)
    }

    /// Final norm and projection of the stream's rows [n, E]; answers activations [n, width] and their backend.
    func finish(_ hidden: Tensor, on start: any Backend) throws -> (output: Tensor, backend: any Backend) {
        let (norm, backend) = stack.finalNorm ?? (nil, start)
        let stream = try moveStream(hidden, from: start, to: backend)
        let input = LinearInput(stream, after: norm, scratch: workspace(on: backend).normed(hidden.shape[0]))
        let output = try input.materialized(backend)
        guard let (layer, target) = stack.projectOut else { return (output, backend) }
        let projected = workspace(on: target).projections(hidden.shape[0], width: layer.outFeatures)
        try target.linear(try move(output, from: backend, to: target), layer, epilogue: .init(), into: projected)
        return (projected, target)
    }

    /// The residual stream on another backend.
    private func moveStream(_ hidden: Tensor, from source: any Backend, to target: any Backend) throws -> Tensor {
        guard source !== target else { return hidden }
        let destination = workspace(on: target).hidden(hidden.shape[0])
        try transfer(hidden, from: source, to: destination, on: target)
        return destination
    }

    /// Activations on another backend, in its dtype.
    func move(_ tensor: Tensor, from source: any Backend, to target: any Backend) throws -> Tensor {
        guard source !== target else { return tensor }
        let destination = workspace(on: target).normed(tensor.shape[0]).viewed(as: tensor.shape)
        if destination.dtype == tensor.dtype {
            try transfer(tensor, from: source, to: destination, on: target)
            return destination
        }
        let staged = try source.allocate(destination.dtype, tensor.shape)
        try source.convert(tensor, to: staged)
        try transfer(staged, from: source, to: destination, on: target)
        try target.synchronize()
        return destination
    }

    private func rotaryTable(_ attention: AttentionDescription, _ call: Call, _ backend: any Backend) throws -> RotaryTable? {
        guard let index = attention.rotary else { return nil }
        let description = stack.description.rotary[index]
        let key = RotaryKey(
            index: index, variant: description.variant(length: call.maximumLength), backend: ObjectIdentifier(backend))
        if let table = rotary[key] { return table }
        let table = try makeRotaryTable(description, length: call.maximumLength, backend)
        if description.dependsOnLength {
            // Tables of other lengths will not be asked for again, save the two of long rope.
            rotary = rotary.filter { $0.key.index != index || $0.key.variant <= 1 }
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
            caches[index] = try caches[index].enlarged(to: blocks, on: block.backend)
        }
        var limits = limits
        limits.blocksPerRow = blocksPerRow
        let buffers = try parts.map { try BatchBuffers(limits, backend: $0.backend) }
        for index in parts.indices { parts[index].buffers = buffers[index] }
        image = BatchBuffers.Image(limits)
        self.limits = limits
        self.layout = layout
        self.positions = positions
        rotary = [:]
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
    /// What a layer's cache looks like.
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
