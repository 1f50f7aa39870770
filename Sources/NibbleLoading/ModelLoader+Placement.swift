package import NibbleCore
package import NibbleDeviceMap
package import NibbleModels
package import NibbleQuantization

extension ModelLoader {
    /// Everything that is decided about a load before a weight is read.
    package struct LoadPlan: Sendable {
        package var placement: PlacementPlan
        package var quantization: QuantizationPlan
        package var memory: ModelMemory
        /// The dtype of weights that are not quantized.
        package var dtype: DType
        /// The quantization config in effect.
        package var config: BitsAndBytesConfig?
        /// Bytes as `get_memory_footprint` counts them.
        package var footprint: Int
        package var warnings: [String] = []
    }

    /// Plans from `config.json`: no weight file need be present. Where the model is a quantized mixture of experts and its files are
    /// there, the names in them tell what is quantized.
    /// - Throws: `DeviceMapError`, ``LoadError``, `QuantizationConfigError`.
    package static func plan(
        _ source: ModelSource, options: LoaderOptions, _ request: PlacementRequest
    ) throws -> LoadPlan {
        var warnings = source.warnings
        let config = try quantization(source, options, &warnings)
        let search = PlacementSearch(
            request: request, source: source, options: options, tree: source.architecture.tree,
            dtype: try checked(options.dtype ?? source.configDType() ?? .float32), config: config,
            checkpointDType: try source.configDType(), storedMixtures: storedMixtures(source),
            adapterBytes: try adapterBytes(source, options, source.architecture.tree))
        var plan = try search.best()
        plan.placement.hints = try search.hints(for: plan)
        warnings += options.skipWarnings(source, config) + storedFormatNotice(source, config, plan.dtype)
        plan.warnings = warnings + plan.placement.warnings
        return plan
    }

    /// Routers and sets of experts that a quantized checkpoint holds quantized: by its tensors' names where its files are there,
    /// else as the library wrote it that `config.json` names. transformers 4 quantizes all linear layers of a mixture,
    /// transformers 5 none.
    private static func storedMixtures(_ source: ModelSource) -> QuantizationPlan.StoredMixtures {
        let tree = source.architecture.tree
        guard let config = source.storedQuantization, tree.modules.contains(where: \.isExperts) else { return .init() }
        if let checkpoint = try? source.checkpoint(variant: nil, dtype: nil),
            let matching = try? KeyMatching(source.architecture, checkpoint)
        {
            return matching.storedMixtures(tree)
        }
        let version = (try? source.config.optionalString("transformers_version")).flatMap { $0 } ?? "4"
        guard version.hasBytePrefix("4") else { return .init() }
        let rules = SkipRules((config.int8SkipModules ?? tree.defaultSkips))
        let mixtures = tree.modules.filter { module in
            if case .router = module.node.kind { true } else { module.isExperts }
        }
        var stored = QuantizationPlan.StoredMixtures()
        stored.modules = Set(mixtures.map(\.path).filter { !rules.skips($0) })
        return stored
    }

    func place(_ request: PlacementRequest, _ matched: MatchedCheckpoint) throws -> LoadPlan {
        try PlacementSearch(
            request: request, source: source, options: options, tree: matched.tree, dtype: matched.dtype,
            config: matched.config, checkpointDType: matched.checkpoint.firstFloatingPointDType,
            storedMixtures: matched.storedMixtures, adapterBytes: try ModelLoader.adapterBytes(source, options, matched.tree)
        ).best()
    }

    private static func adapterBytes(
        _ source: ModelSource, _ options: LoaderOptions, _ tree: ModuleTree
    ) throws -> [String: Int] {
        var bytes: [String: Int] = [:]
        let dtype = try options.dtype ?? source.configDType() ?? .float32
        for reference in options.adapters {
            let adapter = try MatchedAdapter(AdapterFile(folder: reference.folder), source.architecture, tree: tree)
            bytes.merge(adapter.storedBytes(tree, loadDType: dtype)) { $0 + $1 }
        }
        return bytes
    }
}

/// Looks for the best placement of one model.
struct PlacementSearch {
    let request: PlacementRequest
    let source: ModelSource
    var options: LoaderOptions
    let tree: ModuleTree
    let dtype: DType
    var config: BitsAndBytesConfig?
    let checkpointDType: DType?
    /// Routers and sets of experts that the checkpoint holds quantized.
    let storedMixtures: QuantizationPlan.StoredMixtures
    /// What adapters add to parameters, by path.
    var adapterBytes: [String: Int] = [:]

    /// Tried in this order where a larger chunk leaves part of the model where it is slow. Activations and the operations'
    /// own memory grow with the chunk.
    static let smallerChunks = [256, 128, 64, 32]

    /// Tried in this order where everything lies on GPUs. Quantized weights are dequantized once a chunk, and larger products run
    /// at a higher rate.
    static let largerChunks = [2048, 1024]

    /// The placement with the largest chunks of prompt tokens among those that keep most of the model where it is fast.
    func best() throws -> ModelLoader.LoadPlan {
        try options.checkRoom()
        let best = try bestWithinUsualChunks()
        for chunkTokens in PlacementSearch.largerChunks where try hasRoom(for: chunkTokens, in: best) {
            return try place(chunkTokens: chunkTokens)
        }
        return best
    }

    private func bestWithinUsualChunks() throws -> ModelLoader.LoadPlan {
        var best = try place(chunkTokens: SessionOptions.defaultChunkTokens)
        for chunkTokens in PlacementSearch.smallerChunks where best.placement.residency < .complete {
            let smaller = try place(chunkTokens: chunkTokens)
            if smaller.placement.residency > best.placement.residency || best.placement.residency == .refused { best = smaller }
        }
        return best
    }

    /// Whether sessions may feed chunks of this size. A larger chunk moves nothing: the map must stay as it is, and all of it must
    /// lie on GPUs. Sessions longer than the planned context feed full chunks, too, so room is counted for a context of one chunk
    /// at least. An engine leaves a quarter of the memory beside the weights to its workspace.
    private func hasRoom(for chunkTokens: Int, in plan: ModelLoader.LoadPlan) throws -> Bool {
        guard plan.memory.chunkTokens == SessionOptions.defaultChunkTokens, plan.placement.refusal == nil,
            plan.placement.deviceMap.devices.allSatisfy(\.isGPU),
            source.architecture.decoder.layers.allSatisfy({ $0.recurrence == nil })
        else { return false }
        var search = self
        search.options.context = max(plan.memory.context, min(chunkTokens, source.architecture.maximumPositions ?? chunkTokens))
        let larger = try search.place(chunkTokens: chunkTokens).placement
        return larger.deviceMap == plan.placement.deviceMap && larger.planner == plan.placement.planner && larger.refusal == nil
            && larger.devices.allSatisfy { $0.total + 3 * $0.workspace <= $0.budget ?? .max }
    }

    private func place(chunkTokens: Int) throws -> ModelLoader.LoadPlan {
        var plan = quantization()
        var memory = memory(plan, chunkTokens)
        let reference = quantization(reference: true)
        var placement = try PlacementPlanner(memory, referencePlan: reference).plan(request)
        let floats = modulesLeftFloat(placement)
        if !floats.isEmpty {
            // The plan was made with quantized sizes, as the reference makes it. Here it gets the sizes of the load.
            plan = quantization(skipping: floats)
            memory = self.memory(plan, chunkTokens)
            var fixed = request
            fixed.deviceMap = .explicit(placement.deviceMap)
            let planner = placement.planner
            placement = try PlacementPlanner(memory, referencePlan: reference).plan(fixed)
            placement.planner = planner
        }
        return ModelLoader.LoadPlan(
            placement: placement, quantization: plan, memory: memory, dtype: dtype, config: config,
            footprint: tree.footprint(plan, loadDType: dtype))
    }

    private func quantization(skipping: [String] = [], reference: Bool? = nil) -> QuantizationPlan {
        var plan = QuantizationPlan(
            source.architecture.tree, config: config, alsoSkipped: skipping, addedSkips: options.addedSkipModules,
            reference: reference ?? options.followsReference, stored: storedMixtures,
            keptInFloat32: !options.quantizesFloat32Modules)
        plan.keptExperts = ModelLoader.keptExperts(source, config)
        return plan
    }

    private func memory(_ plan: QuantizationPlan, _ chunkTokens: Int) -> ModelMemory {
        ModelMemory(
            source.architecture, tree: tree, plan, loadDType: dtype, headFormat: options.headFormat, context: options.context,
            batch: options.batchSize, chunkTokens: chunkTokens, cacheQuantization: options.cacheQuantization,
            arithmetic: options.arithmetic(config, dtype: dtype), checkpointDType: checkpointDType,
            isStoredQuantized: source.storedQuantization != nil, decodesLayers: source.storedFormat != nil,
            adapterBytes: adapterBytes,
            operationBytes: request.operationBytes)
    }

    /// Under fp32 CPU offload, modules off the GPUs stay unquantized. A model that was planned wholly on the CPU is not
    /// offloaded. A map of the user's is taken literally.
    private func modulesLeftFloat(_ placement: PlacementPlan) -> [String] {
        guard config?.int8EnableFP32CPUOffload == true else { return [] }
        if placement.planner != .explicit, placement.deviceMap.devices.allSatisfy({ !$0.isGPU }) { return [] }
        return placement.deviceMap.entries.filter { !$0.value.isGPU }.keys.sorted()
    }
}

// MARK: Hints

extension PlacementSearch {
    /// At most this many options are named.
    private static let hintLimit = 2

    /// Options that would bring back to fast memory what does not fit there now.
    func hints(for plan: ModelLoader.LoadPlan) throws -> [String] {
        try float32Hint(for: plan).map { [$0] } ?? headHints(for: plan)
    }

    /// Modules that a family keeps in float32 may take as much as all others together (T5 `wo`).
    private func float32Hint(for plan: ModelLoader.LoadPlan) throws -> String? {
        guard plan.placement.residency < .complete, config != nil, source.storedQuantization == nil, !options.followsReference,
            !options.quantizesFloat32Modules, !tree.keepInFloat32.isEmpty
        else { return nil }
        var search = self
        search.options.quantizesFloat32Modules = true
        guard try search.best().placement.residency > plan.placement.residency else { return nil }
        return "more of the model would be in fast memory with --quantize-wo, which quantizes what is kept in float32 otherwise"
    }

    /// What would bring a tied head back to the GPUs: options that do it alone, or else together.
    private func headHints(for plan: ModelLoader.LoadPlan) throws -> [String] {
        guard plan.placement.residency == .headOffGPUs else { return [] }
        let context = plan.memory.context
        let alone = try alternatives(context: context).filter { try $0.search.best().placement.residency == .complete }
        if !alone.isEmpty {
            let options = alone.prefix(PlacementSearch.hintLimit).map(\.option).joined(separator: ", or with ")
            return ["the tied head would stay on the GPUs with \(options)"]
        }
        guard let nested = doubleQuantized else { return [] }
        let pair = try nested.alternatives(context: context).first { try $0.search.best().placement.residency == .complete }
        return pair.map { ["the tied head would stay on the GPUs with --double-quant and \($0.option)"] } ?? []
    }

    /// The same load with one option changed, those first that change results least.
    private func alternatives(context: Int) -> [(option: String, search: PlacementSearch)] {
        var alternatives: [(option: String, search: PlacementSearch)] = []
        if let nested = doubleQuantized { alternatives.append(("--double-quant", nested)) }
        if let shorter = shorterContext(than: context) { alternatives.append(shorter) }
        if options.cacheQuantization == nil, let quantization = KeyValueQuantization(bits: 8) {
            var search = self
            search.options.cacheQuantization = quantization
            alternatives.append(("--cache-bits 8", search))
        }
        if options.headFormat == nil {
            var search = self
            search.options.headFormat = .fourBit(FourBitFormat(codebook: .nf4))
            alternatives.append(("--quantize-head nf4", search))
        }
        return alternatives
    }

    private var doubleQuantized: PlacementSearch? {
        guard source.storedQuantization == nil, var config, config.loadIn4Bit, !config.useDoubleQuant else { return nil }
        config.useDoubleQuant = true
        var search = self
        search.config = config
        return search
    }

    /// The longest context, of those halved from `context`, that keeps the head on the GPUs.
    private func shorterContext(than context: Int) -> (option: String, search: PlacementSearch)? {
        var search = self
        for shorter in sequence(first: context / 2, next: { $0 / 2 }).prefix(while: { $0 >= 64 }) {
            search.options.context = shorter
            if (try? search.best().placement.residency) == .complete { return ("--context \(shorter)", search) }
        }
        return nil
    }
}
