import NibbleCore
import NibbleModels

/// Modules that are placed together, and what they take.
struct ModelSegment {
    /// The modules (or parameters), by full name.
    var paths: [String]
    var bytes: ModelMemory.StoredBytes
    /// Bytes that are read for each token.
    var bytesPerToken: Int
    var cache = 0
    var isTable = false
    var isBlock = false
    /// A head with a weight of its own.
    var isHead = false
    var overhead = PlacementOverhead()

    /// Where the segment runs if its weights lie on `device`.
    ///
    /// From the disk, blocks run on the device they are streamed to, and norms, which are held in memory, beside them.
    /// Tables and single matrices on the disk run on the CPU.
    func runs(on device: Device, stream: Device) -> Device {
        guard device == .disk else { return device }
        return isBlock || overhead.held == bytes.total ? stream : .cpu
    }
}

/// A model as placement sees it: segments in the order in which tokens pass through them.
struct ModelSegments {
    /// The embedding tables with what is computed beside them, and a head that reads the token table.
    private(set) var tables: ModelSegment
    /// A head with a weight of its own: one that is not tied, or the quantized copy of one that is.
    private(set) var head: ModelSegment?
    /// Blocks, final norms and the rest.
    private(set) var chain: [ModelSegment] = []
    /// Modules without tensors, which go with their neighbours.
    private(set) var empty: [String] = []
    /// Whether the head shares the token table's weight, be it through a quantized copy.
    let isHeadTied: Bool
    /// Paths that are in a segment. Used while segments are made.
    private var placed = Set<String>()

    /// Whether the head is computed from the token table itself.
    var hasTiedHead: Bool { isHeadTied && head == nil }

    init(_ memory: ModelMemory) {
        let tree = memory.tree
        let stacks = [memory.architecture.encoder, memory.architecture.decoder].compactMap { $0 }
        isHeadTied = tree.tied.contains { $0.target == tree.outputEmbedding + ".weight" }
        tables = ModelSegment(paths: [], bytes: .init(), bytesPerToken: 0, isTable: true)
        for module in ModelSegments.front(tree, stacks) where placed.insert(module.path).inserted {
            tables.paths.append(module.path)
            tables.bytes = tables.bytes + memory.bytes(below: module)
            tables.overhead = tables.overhead + memory.overhead(below: module)
        }
        addHead(memory)
        for stack in stacks { addStack(stack, memory) }
        addRest(tree.located, memory)
    }

    /// The modules that turn tokens into hidden states; they run where the token table lies.
    static func front(_ tree: ModuleTree, _ stacks: [StackDescription]) -> [LocatedModule] {
        let tables = tree.located.all(.tokenEmbedding)
        let others = stacks.compactMap { tree.module(at: $0.path) }.flatMap { stack in
            [
                Role.positionEmbedding, .embeddingNorm, .projectIn, .perLayerEmbedding, .perLayerModelProjection,
                .perLayerInputNorm,
            ].flatMap { stack.all($0) }
        }
        return tables + others
    }

    private mutating func addHead(_ memory: ModelMemory) {
        let path = memory.tree.outputEmbedding
        guard let module = memory.tree.module(at: path), placed.insert(path).inserted else { return }
        if isHeadTied, memory.headFormat == nil {
            tables.paths.append(path)
            tables.bytesPerToken = memory.tree.located.all(.tokenEmbedding).reduce(0) { $0 + memory.bytes(below: $1).weights }
            tables.bytes.weights += memory.bufferBytes
            return
        }
        var segment = ModelSegment(paths: [path], bytes: .init(), bytesPerToken: 0, isHead: true)
        for parameter in module.node.parameters {
            segment.bytes = segment.bytes + memory.bytes(parameter, of: module)
            segment.overhead = segment.overhead + memory.overhead(parameter, of: module)
        }
        segment.bytes.weights += memory.bufferBytes
        segment.bytesPerToken = segment.bytes.total
        head = segment
    }

    private mutating func addStack(_ stack: StackDescription, _ memory: ModelMemory) {
        guard let module = memory.tree.module(at: stack.path) else { return }
        let isEncoder = stack.path == memory.architecture.encoder?.path
        for (block, layer) in zip(module.all(.block), stack.layers) where placed.insert(block.path).inserted {
            var segment = segment(block, memory)
            segment.cache = isEncoder ? 0 : memory.cacheBytes(layer)
            segment.isBlock = true
            chain.append(segment)
        }
        for module in module.all(.finalNorm) + module.all(.projectOut) where placed.insert(module.path).inserted {
            chain.append(segment(module, memory))
        }
    }

    private func segment(_ module: LocatedModule, _ memory: ModelMemory) -> ModelSegment {
        let bytes = memory.bytes(below: module)
        return ModelSegment(
            paths: [module.path], bytes: bytes, bytesPerToken: bytes.total, overhead: memory.overhead(below: module))
    }

    /// Adds what no role names: parameters of modules that hold other modules, and modules without parameters.
    private mutating func addRest(_ module: LocatedModule, _ memory: ModelMemory) {
        guard !placed.contains(module.path) else { return }
        let isLeaf = module.node.children.isEmpty
        if isLeaf, module.node.parameters.isEmpty {
            if !module.path.isEmpty { empty.append(module.path) }
            return
        }
        for parameter in module.node.parameters {
            let path = isLeaf ? module.path : module.path(of: parameter.name)
            let bytes = memory.bytes(parameter, of: module)
            let overhead = memory.overhead(parameter, of: module)
            if isLeaf, let last = chain.last, last.paths == [path] {
                chain[chain.count - 1].bytes = last.bytes + bytes
                chain[chain.count - 1].overhead = last.overhead + overhead
            } else {
                chain.append(ModelSegment(paths: [path], bytes: bytes, bytesPerToken: bytes.total, overhead: overhead))
            }
        }
        for child in module.children { addRest(child, memory) }
    }

    /// Every segment, in the order in which tokens pass.
    var all: [ModelSegment] { [tables] + chain + (head.map { [$0] } ?? []) }

    /// Memory of the device that streams blocks from the disk: two of the largest, which take turns.
    static func streamBytes(_ segments: some Sequence<ModelSegment>) -> Int {
        2 * (segments.lazy.filter(\.isBlock).map(\.bytesPerToken).max() ?? 0)
    }

    /// Host memory for conversions while weights are loaded, wherever they go.
    var hostLoadingBytes: Int { all.reduce(0) { max($0, $1.overhead.hostLoading) } }
}

extension Device {
    /// The device whose memory a weight passes through while it is loaded to this one.
    ///
    /// What lies on the disk is quantized on the CPU before it is written there.
    var loadingDevice: Device { self == .disk ? .cpu : self }
}
