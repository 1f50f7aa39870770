import NibbleCore

extension ModelArchitecture {
    /// Holds the description to the module tree: one description for each block, widths that fit heads and head sizes, every
    /// role that the decoder reads present, and every module with weights read by it.
    ///
    /// - Throws: ``ModelError/wrongDescription(module:expected:found:)``
    package func check() throws {
        var check = DescriptionCheck(self)
        try check.run()
    }
}

/// The state of one check. Widths come from the tree's shapes, counts from the description.
struct DescriptionCheck {
    let architecture: ModelArchitecture
    /// Paths of the modules whose weights the decoder reads.
    private var consumed: Set<String> = []
    /// Fused layouts that were found to be whole.
    private var checkedLayouts: Set<FusedLayout> = []

    private struct FusedLayout: Hashable {
        let layout: QueryKeyValueLayout
        let heads, keyValueHeads, headSize, width: Int
    }

    init(_ architecture: ModelArchitecture) { self.architecture = architecture }

    mutating func run() throws {
        try checkStack(architecture.decoder, isDecoder: true)
        if let encoder = architecture.encoder { try checkStack(encoder, isDecoder: false) }
        try checkHead()
        try checkConsumption()
    }

    // MARK: Stacks

    private mutating func checkStack(_ stack: StackDescription, isDecoder: Bool) throws {
        guard let module = architecture.tree.module(at: stack.path) else {
            throw wrong(stack.path, "a module with embeddings and blocks", "no module of that name")
        }
        let blocks = module.all(.block)
        try expect(
            blocks.count == stack.layers.count, module, "\(stack.layers.count) described blocks", "\(blocks.count) modules")
        try checkEmbedding(stack, module)
        try checkPositions(stack, module)
        try checkPerLayerInputs(stack, module)
        try checkRotary(stack)
        try checkNorm(module.first(.embeddingNorm), width: stack.width)
        try checkNorm(module.first(.finalNorm), width: stack.width)
        if let projectOut = module.first(.projectOut) { try linear(projectOut, in: stack.width) }
        let sharedBias = blocks.lazy.compactMap { $0.first(.relativeBias) }.first
        for (block, layer) in zip(blocks, stack.layers) {
            try checkBlock(block, layer, stack, isDecoder: isDecoder, sharedBias: sharedBias)
        }
    }

    private mutating func checkEmbedding(_ stack: StackDescription, _ module: LocatedModule) throws {
        let tree = architecture.tree.located
        let embedding = try role(.tokenEmbedding, in: module.first(.tokenEmbedding) == nil ? tree : module)
        var width = stack.width
        if let projectIn = module.first(.projectIn) {
            try linear(projectIn, out: stack.width)
            width = projectIn.inFeatures
        }
        try shape(embedding, [architecture.vocabularySize, width])
        consume(embedding)
        // A table that both stacks share stands above them.
        for shared in tree.children.flatMap({ [$0] + $0.children }) where shared.node.role == .tokenEmbedding {
            try shape(shared, [architecture.vocabularySize, width])
            consume(shared)
        }
    }

    private mutating func checkPositions(_ stack: StackDescription, _ module: LocatedModule) throws {
        let embedding = module.first(.positionEmbedding)
        switch stack.positions {
        case .none:
            guard let embedding else { return }
            throw wrong(embedding.path, "no position embedding", "one")
        case .learned(let offset):
            let embedding = try role(.positionEmbedding, in: module)
            let rows = embedding.node.parameters.first?.shape.dimensions.first ?? 0
            try expect(rows > offset, embedding, "a table of more than \(offset) rows", "\(rows)")
            try shape(embedding, [rows, stack.width])
            consume(embedding)
        case .sinusoidal(let positions, .transformer):
            guard let embedding else { return }
            try shape(embedding, [positions, stack.width])
            consume(embedding)
        case .sinusoidal(_, .fairseq):
            // The module has no parameters: the table is computed, whatever the checkpoint holds.
            consume(try role(.positionEmbedding, in: module))
        }
    }

    private mutating func checkPerLayerInputs(_ stack: StackDescription, _ module: LocatedModule) throws {
        guard let inputs = stack.perLayer else { return }
        try expect(inputs.width > 0, module, "per-layer inputs of some elements", "\(inputs.width)")
        let all = stack.layers.count * inputs.width
        let table = try role(.perLayerEmbedding, in: module)
        let rows = table.node.parameters.first?.shape.dimensions.first ?? 0
        try expect(
            rows >= architecture.vocabularySize, table, "a row for each of \(architecture.vocabularySize) tokens", "\(rows)")
        try shape(table, [rows, all])
        consume(table)
        try linear(role(.perLayerModelProjection, in: module), in: stack.width, out: all)
        try checkNorm(role(.perLayerInputNorm, in: module), width: inputs.width)
    }

    private func checkRotary(_ stack: StackDescription) throws {
        for rotary in stack.rotary {
            // Bounds the work below whatever sizes a config claims.
            let limit = 1 << 16
            guard rotary.rotated <= limit else {
                throw wrong(stack.path, "at most \(limit) rotated elements", "\(rotary.rotated)")
            }
            let (inverse, attention) = rotary.frequencies(length: 1)
            guard rotary.rotated > 0, rotary.rotated % 2 == 0, attention.isFinite, inverse.allSatisfy(\.isFinite),
                inverse.count == rotary.rotated / 2
            else {
                throw wrong(
                    stack.path, "\(rotary.rotated / 2) finite rotary frequencies",
                    "\(inverse.filter(\.isFinite).count), attention factor \(attention)")
            }
        }
        for (index, layer) in stack.layers.enumerated() {
            guard let attention = layer.selfAttention, let place = attention.rotary else { continue }
            guard stack.rotary.indices.contains(place), stack.rotary[place].rotated <= attention.headSize else {
                throw wrong(
                    stack.path, "a rotary embedding within the head size for layer \(index)",
                    "number \(place) of \(stack.rotary.count)")
            }
        }
    }

    // MARK: Head and consumption

    private mutating func checkHead() throws {
        let (tree, decoder) = (architecture.tree, architecture.decoder)
        guard let head = tree.module(at: tree.outputEmbedding) else {
            throw wrong(tree.outputEmbedding, "the output embedding", "no module of that name")
        }
        try expect(head.node.role == .head, head, "a module with the role \(Role.head)", head.node.role.map { "\($0)" } ?? "none")
        let projectOut = tree.module(at: decoder.path)?.first(.projectOut)
        try linear(head, in: projectOut?.outFeatures ?? decoder.width, out: architecture.vocabularySize)
        if let path = architecture.head.biasPath {
            let count = tree.persistentBuffers.first { $0.path == path }?.buffer.count
            guard count == architecture.vocabularySize else {
                throw wrong(path, "a stored buffer of \(architecture.vocabularySize)", count.map(String.init) ?? "none")
            }
        }
    }

    private func checkConsumption() throws {
        let tree = architecture.tree
        let tied = tree.tied.flatMap { [$0.target, $0.source] }.map { $0.split(separator: ".").dropLast().joined(separator: ".") }
        let readable = consumed.union(tied)
        for module in tree.modules where !readable.contains(module.path) {
            // A norm without weights has to run, too.
            if module.node.parameters.isEmpty, !module.isNorm { continue }
            throw wrong(
                module.path, "a module that the decoder reads",
                module.node.role.map { "a second \($0), or one out of place" } ?? "no role")
        }
        for buffer in tree.persistentBuffers
        where buffer.path != architecture.head.biasPath && !consumed.contains(buffer.path) {
            throw wrong(buffer.path, "a buffer that the decoder reads", "one that it does not")
        }
    }
}

// MARK: - What the parts of a check use

extension DescriptionCheck {
    func wrong(_ module: String, _ expected: String, _ found: String) -> ModelError {
        .wrongDescription(module: module, expected: expected, found: found)
    }

    func expect(_ condition: Bool, _ module: LocatedModule, _ expected: String, _ found: @autoclosure () -> String) throws {
        guard condition else { throw wrong(module.path, expected, found()) }
    }

    mutating func consume(_ module: LocatedModule) { consumed.insert(module.path) }

    /// A stored buffer of a module.
    mutating func checkBuffer(_ module: LocatedModule, _ name: String, count: Int) throws {
        let found = module.node.buffers.first { $0.name == name && $0.isPersistent }?.count
        try expect(found == count, module, "a stored buffer \(name) of \(count)", found.map(String.init) ?? "none")
        consume(buffer: module.path(of: name))
    }

    mutating func consume(buffer path: String) { consumed.insert(path) }

    /// The module that the decoder would take for `role`.
    func role(_ role: Role, in module: LocatedModule) throws -> LocatedModule {
        guard let found = module.first(role) else { throw wrong(module.path, "a module with the role \(role)", "none") }
        return found
    }

    func shape(_ module: LocatedModule, _ expected: Shape, _ name: String = "weight") throws {
        let found = module.node.parameters.first { $0.name == name }?.shape
        guard found == expected else {
            throw wrong(module.path(of: name), "of shape \(expected)", found.map { "\($0)" } ?? "no such parameter")
        }
    }

    /// A linear layer, or a router, of these widths; its bias goes with its outputs.
    mutating func linear(_ module: LocatedModule, in inFeatures: Int? = nil, out outFeatures: Int? = nil) throws {
        try expect(module.isMatrix, module, "a linear layer", "another kind of module")
        let (fanIn, fanOut) = (module.inFeatures, module.outFeatures)
        if let inFeatures { try expect(fanIn == inFeatures, module, "a layer that reads \(inFeatures) elements", "\(fanIn)") }
        if let outFeatures {
            try expect(fanOut == outFeatures, module, "a layer that gives \(outFeatures) elements", "\(fanOut)")
        }
        for bias in module.node.parameters where bias.name == "bias" { try shape(module, [fanOut], "bias") }
        consume(module)
    }

    /// A norm whose weights, if it has any, are `width` wide. Several shapes may be allowed.
    mutating func checkNorm(_ module: LocatedModule?, width: Int) throws { try checkNorm(module, shapes: [[width]]) }

    mutating func checkNorm(_ module: LocatedModule?, shapes: [Shape]) throws {
        guard let module else { return }
        try expect(module.isNorm, module, "a norm", "another kind of module")
        for parameter in module.node.parameters {
            try expect(shapes.contains(parameter.shape), module, "of shape \(shapes[0])", "\(parameter.shape)")
        }
        consume(module)
    }

    /// Whether a fused layout reads every element of a projection's output once.
    mutating func checkFused(_ module: LocatedModule, _ attention: AttentionDescription) throws {
        let fused = FusedLayout(
            layout: attention.layout, heads: attention.heads, keyValueHeads: attention.keyValueHeads,
            headSize: attention.headSize, width: module.outFeatures)
        guard !checkedLayouts.contains(fused) else { return }
        func starts(_ offsets: QueryKeyValueLayout.HeadOffsets, _ heads: Int) -> [Int] {
            let group = max(offsets.groupSize, 1)
            return (0..<heads).map { offsets.offset + $0 / group * offsets.stride + $0 % group * attention.headSize }
        }
        let all =
            starts(fused.layout.query, fused.heads) + starts(fused.layout.key, fused.keyValueHeads)
            + starts(fused.layout.value, fused.keyValueHeads)
        let isWhole = all.sorted().enumerated().allSatisfy { $1 == $0 * attention.headSize }
        try expect(
            isWhole && all.count * attention.headSize == fused.width, module,
            "\(fused.heads) queries and \(fused.keyValueHeads) keys and values of \(fused.headSize) elements side by side",
            "a layout of \(fused.width) elements that leaves some out or reads some twice")
        checkedLayouts.insert(fused)
    }
}

extension LocatedModule {
    fileprivate var isNorm: Bool {
        if case .norm = node.kind { true } else { false }
    }
}
