import NibbleCore
import NibbleModels

/// A model's modules as placement moves them: parts that must lie together, and a chain of blocks in the order tokens pass
/// through them.
struct ModelSegments {
    /// Something placed as a whole.
    struct ModelSegment {
        /// Its modules (or parameters), by full name.
        var paths: [String]
        var bytes: ModelMemory.StoredBytes
        /// Bytes read for each token that passes.
        var streamed: Int
        var cache = 0
        var isTable = false
        /// A block may be streamed to a GPU.
        var isBlock = false
        var costs = PlacementOverhead()

        /// Where it runs if its weights lie on `device`. Of what lies on the disk, blocks run where they are streamed to, and
        /// norms, which are held in memory, beside them; tables and single matrices on the CPU.
        func runs(on device: Device, stream: Device) -> Device {
            guard device == .disk else { return device }
            return isBlock || costs.held == bytes.total ? stream : .cpu
        }
    }

    /// Embedding tables with what is computed beside them; the tied head, too.
    private(set) var tables: ModelSegment
    /// A head with its own weight.
    private(set) var head: ModelSegment?
    /// Blocks, final norms and the rest.
    private(set) var chain: [ModelSegment] = []
    /// Modules without tensors, which lie where their neighbours do.
    private(set) var empty: [String] = []
    let hasTiedHead: Bool

    init(_ memory: ModelMemory) {
        let tree = memory.tree
        let stacks = [memory.architecture.encoder, memory.architecture.decoder].compactMap { $0 }
        let tiedTargets = Set(tree.tied.map(\.target))
        let headPath = tree.outputEmbedding
        hasTiedHead = tiedTargets.contains(headPath + ".weight")

        var placed = Set<String>()
        tables = ModelSegment(paths: [], bytes: .init(), streamed: 0, isTable: true)
        for module in ModelSegments.front(tree, stacks) where placed.insert(module.path).inserted {
            tables.paths.append(module.path)
            tables.bytes = tables.bytes + memory.bytes(below: module)
            tables.costs = tables.costs + memory.overhead(below: module)
        }
        if let module = tree.module(at: headPath), placed.insert(headPath).inserted {
            var bytes = memory.bytes(below: module)
            bytes.weights += memory.bufferBytes
            if hasTiedHead {
                // A quantized head is a copy beside the table.
                if let format = memory.headFormat, let shape = module.node.parameters.first?.shape {
                    let head = ModelMemory.bytes(format, count: shape.count, rows: shape[0])
                    bytes = bytes + head
                    tables.costs.deviceLoading = max(tables.costs.deviceLoading, head.total)
                }
                tables.paths.append(headPath)
                tables.streamed = memory.headFormat == nil ? tables.bytes.weights : bytes.total
                tables.bytes = tables.bytes + bytes
            } else {
                head = ModelSegment(
                    paths: [headPath], bytes: bytes, streamed: bytes.total, costs: memory.overhead(below: module))
            }
        }
        for stack in stacks {
            guard let module = tree.module(at: stack.path) else { continue }
            for (block, layer) in zip(module.all(.block), stack.layers) where placed.insert(block.path).inserted {
                let bytes = memory.bytes(below: block)
                let isEncoder = stack.path == memory.architecture.encoder?.path
                chain.append(
                    ModelSegment(
                        paths: [block.path], bytes: bytes, streamed: bytes.total, cache: isEncoder ? 0 : memory.cacheBytes(layer),
                        isBlock: true, costs: memory.overhead(below: block)))
            }
            for module in module.all(.finalNorm) + module.all(.projectOut) where placed.insert(module.path).inserted {
                let bytes = memory.bytes(below: module)
                chain.append(
                    ModelSegment(
                        paths: [module.path], bytes: bytes, streamed: bytes.total, costs: memory.overhead(below: module)))
            }
        }
        addRest(tree.located, memory, placed)
    }

    /// Where tokens become hidden states: the backend of the token table runs all of it.
    static func front(_ tree: ModuleTree, _ stacks: [StackDescription]) -> [LocatedModule] {
        let tables = tree.located.all(.tokenEmbedding)
        let others = stacks.compactMap { tree.module(at: $0.path) }.flatMap { stack in
            [Role.positionEmbedding, .embeddingNorm, .projectIn].flatMap { stack.all($0) }
        }
        return tables + others
    }

    /// What no role names: parameters of modules that hold others, and modules without any.
    private mutating func addRest(_ module: LocatedModule, _ memory: ModelMemory, _ placed: Set<String>) {
        guard !placed.contains(module.path) else { return }
        let isLeaf = module.node.children.isEmpty
        if isLeaf, module.node.parameters.isEmpty {
            if !module.path.isEmpty { empty.append(module.path) }
            return
        }
        for parameter in module.node.parameters {
            let path = isLeaf ? module.path : module.path(of: parameter.name)
            let bytes = memory.bytes(parameter, of: module)
            let costs = memory.overhead(parameter, of: module)
            if isLeaf, let last = chain.last, last.paths == [path] {
                chain[chain.count - 1].bytes = last.bytes + bytes
                chain[chain.count - 1].costs = last.costs + costs
            } else {
                chain.append(ModelSegment(paths: [path], bytes: bytes, streamed: bytes.total, costs: costs))
            }
        }
        for child in module.children { addRest(child, memory, placed) }
    }

    /// Everything, in the order in which tokens pass.
    var all: [ModelSegment] { [tables] + chain + (head.map { [$0] } ?? []) }

    /// Device memory that blocks pass through on their way from the disk: two take turns.
    static func streamBytes(_ units: some Sequence<ModelSegment>) -> Int {
        2 * (units.lazy.filter(\.isBlock).map(\.streamed).max() ?? 0)
    }

    /// While weights are brought in, beside those already there.
    func loadingBytes(on device: Device) -> Int {
        let costs = all.reduce(PlacementOverhead()) { $0 + $1.costs }
        return costs.deviceLoading + (device == .cpu ? costs.hostLoading : 0)
    }
}
