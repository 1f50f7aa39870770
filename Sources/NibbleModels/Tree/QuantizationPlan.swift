package import NibbleCore
package import NibbleQuantization

/// Which linear modules of a tree a quantization config turns into quantized layers.
package struct QuantizationPlan: Sendable {
    package let config: BitsAndBytesConfig?
    /// The format in which sets of experts stay that the checkpoint holds in it, and that no config quantizes.
    package var keptExperts: WeightFormat?
    /// Module paths, in definition order.
    package let quantized: [String]
    /// Linear modules that stay as they are, in definition order.
    package let skipped: [String]
    private let quantizedSet: Set<String>
    private let floatCounts: [String: Int]

    /// Mixtures of experts that a checkpoint holds quantized.
    package struct StoredMixtures: Sendable, Equatable {
        /// Paths of routers and sets of experts that are quantized, wholly or in part.
        package var modules: Set<String> = []
        /// By the path of a parameter of such a set: how many of its weights are floats.
        package var floatCounts: [String: Int] = [:]

        package init() {}
    }

    /// - Parameters:
    ///   - config: `nil` quantizes nothing.
    ///   - alsoSkipped: more modules to leave alone (those on the CPU under fp32 offload).
    ///   - reference: follow the reference where Nibble quantizes more: subclassed linear layers and fused experts stay
    ///     unquantized, and skip entries are compared as text.
    ///   - plainLayersOnly: of these differences, only the first: leave alone what the reference could not read back.
    ///   - quantizableExperts: sets of experts that `plainLayersOnly` does not leave alone.
    ///   - stored: what the checkpoint holds quantized, whatever the other rules say.
    ///   - keptInFloat32: whether the family's float32 modules (T5 `wo`) are skipped, as the reference does.
    package init(
        _ tree: ModuleTree, config: BitsAndBytesConfig?, alsoSkipped: [String] = [], addedSkips: [String] = [],
        reference: Bool = false, plainLayersOnly: Bool = false, quantizableExperts: Set<String> = [],
        stored: StoredMixtures = .init(), keptInFloat32: Bool = true
    ) {
        self.config = config
        floatCounts = stored.floatCounts
        // The reference does not see fused experts as linear layers at all.
        let linears = tree.modules.filter {
            stored.modules.contains($0.path) || (reference ? $0.isLinear && !$0.isExperts : $0.isLinear)
        }
        guard let config else {
            (quantized, skipped, quantizedSet) = ([], linears.map(\.path), [])
            return
        }
        let entries =
            (config.int8SkipModules ?? tree.defaultSkips) + addedSkips
            + (keptInFloat32 ? tree.keepInFloat32 : []) + alsoSkipped
        let rules = SkipRules(entries, wholeParts: !reference)
        func isQuantized(_ module: LocatedModule) -> Bool {
            if stored.modules.contains(module.path) { return true }
            let isQuantizable = !reference && quantizableExperts.contains(module.path)
            if reference || plainLayersOnly, !module.isPlainLinear, !isQuantizable { return false }
            return !rules.skips(module.path)
        }
        quantized = linears.filter(isQuantized).map(\.path)
        quantizedSet = Set(quantized)
        skipped = linears.map(\.path).filter { [quantizedSet] in !quantizedSet.contains($0) }
    }

    package func isQuantized(_ module: String) -> Bool { quantizedSet.contains(module) }

    /// How many weights of a quantized module's parameter stay floats: those of single experts.
    package func floatCount(_ parameter: String) -> Int { floatCounts[parameter] ?? 0 }
}

extension LocatedModule {
    /// A linear layer of any kind, or a set of them.
    package var isLinear: Bool {
        switch node.kind {
        case .linear, .transposedLinear, .linearSubclass, .experts: true
        default: false
        }
    }

    /// Whether it is multiplied with: a linear layer, or a router.
    package var isMatrix: Bool {
        if case .router = node.kind { true } else { isLinear && !isExperts }
    }

    package var isExperts: Bool {
        if case .experts = node.kind { true } else { false }
    }

    /// One that the reference would replace.
    var isPlainLinear: Bool {
        switch node.kind {
        case .linear, .transposedLinear: true
        default: false
        }
    }
}

extension ModuleTree {
    /// What stays unquantized when the user names nothing: tied parameters, the module of the last parameter (which may be a
    /// tied one), and the output embedding.
    package var defaultSkips: [String] {
        func module(_ parameter: String) -> String {
            parameter.hasSuffix(".weight") ? String(parameter.dropLast(".weight".count)) : parameter
        }
        var names = tied.flatMap { [module($0.target), module($0.source)] }
        if let last = parameters.last { names.append(module(last.path)) }
        names.append(outputEmbedding)
        return Set(names).sorted()
    }

    /// Bytes as `get_memory_footprint` counts them: each parameter once, 4-bit weights by their packed codes, no scales, and
    /// all buffers.
    package func footprint(_ plan: QuantizationPlan, loadDType: DType) -> Int {
        var bytes = 0
        for parameter in parameters where parameter.tiedTo == nil {
            bytes += footprint(parameter, plan, loadDType: loadDType)
        }
        for buffer in modules.flatMap(\.node.buffers) { bytes += buffer.byteCount(loadDType: loadDType) }
        return bytes
    }

    private func footprint(_ parameter: LocatedParameter, _ plan: QuantizationPlan, loadDType: DType) -> Int {
        let count = parameter.shape.count
        let stored = storedDType(of: parameter.path, loadDType: loadDType).byteCount
        guard let config = plan.config, plan.isQuantized(parameter.module.path) else { return count * stored }
        guard parameter.path.hasSuffix("weight") || parameter.path.hasSuffix("proj") else {
            // The reference casts a 4-bit layer's bias to the compute dtype when it first runs.
            return count * (config.loadIn4Bit ? (config.computeDType ?? loadDType).byteCount : stored)
        }
        let floats = plan.floatCount(parameter.path)
        return floats * stored + (config.loadIn4Bit ? (count - floats + 1) / 2 : count - floats)
    }
}
