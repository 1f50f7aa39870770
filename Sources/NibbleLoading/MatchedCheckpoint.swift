import NibbleCheckpoint
import NibbleCore
import NibbleDeviceMap
import NibbleModels
import NibbleQuantization

/// A checkpoint whose names are matched to the model's, with its quantization planned. No weight has been read.
struct MatchedCheckpoint {
    var checkpoint: any Checkpoint
    var architecture: ModelArchitecture
    /// The dtype of weights that are not quantized.
    var dtype: DType
    /// The quantization config in effect.
    var config: BitsAndBytesConfig?
    var plan: QuantizationPlan
    var matching: KeyMatching
    /// Routers and sets of experts that the checkpoint holds quantized, wholly or in part. What it holds as floats in such a set
    /// stays so.
    var storedMixtures: QuantizationPlan.StoredMixtures
    /// The tree with ties as the checkpoint has them.
    var tree: ModuleTree
    var options: LoaderOptions
    var cpu: any Backend
    var warnings: [String]

    /// Names of the modules that are quantized, and of the linear modules that are not.
    ///
    /// The tree has a set of experts as one module. Where the checkpoint holds single experts quantized, all modules go by the
    /// checkpoint's names, as in the library that wrote it.
    var moduleNames: (quantized: [String], skipped: [String]) {
        guard matching.expertSources.contains(where: { $0.value.isQuantized }) else { return (plan.quantized, plan.skipped) }
        func name(_ weight: String) -> String { String(weight.dropLast(".weight".count)) }
        let matrices = tree.modules.filter(\.isMatrix).compactMap { module -> (name: String, isQuantized: Bool)? in
            let path = module.path(of: "weight")
            guard tree.tied.contains(where: { $0.target == path }) || matching.sources[path] != nil else { return nil }
            return (name(architecture.keys.fileName(path)), plan.isQuantized(module.path))
        }
        let experts = matching.expertSources.sorted { $0.key < $1.key }.map { path, source in
            let set = ExpertNames.set(of: path.text) ?? ""
            return (
                name: name(source.key),
                isQuantized: source.isQuantized || (plan.isQuantized(set) && !storedMixtures.modules.contains(set))
            )
        }
        let all = matrices + experts
        return (all.filter(\.isQuantized).map(\.name), all.filter { !$0.isQuantized }.map(\.name))
    }

    func loader(_ placement: ResolvedPlacement, _ backends: [Device: any Backend]) -> WeightLoader {
        WeightLoader(self, placement, backends)
    }
}

extension ModelLoader {
    /// - Parameters:
    ///   - plainLayersOnly: leave alone what the reference could not read back.
    ///   - keepsExperts: whether experts may stay in the form in which they are stored.
    /// - Throws: ``LoadError`` for missing weights and weights of another shape; `QuantizationConfigError`,
    ///   `CheckpointError`.
    func match(_ checkpoint: any Checkpoint, plainLayersOnly: Bool = false, keepsExperts: Bool = true) throws -> MatchedCheckpoint
    {
        var warnings = source.warnings
        let config = try ModelLoader.quantization(source, options, &warnings)
        warnings += options.skipWarnings(source, config)
        let dtype = try loadDType(checkpoint)
        warnings += ModelLoader.storedFormatNotice(source, config, dtype, keepsExperts: keepsExperts)
        let architecture = source.architecture
        let matching = try KeyMatching(architecture, checkpoint)
        guard matching.missing.isEmpty else {
            throw LoadError.missingWeights(matching.missing, files: checkpoint.files.map(\.path))
        }
        try matching.requireUniformExperts(config, checkpoint)
        guard matching.mismatched.isEmpty else { throw LoadError.mismatchedWeights(matching.mismatched) }
        let stored = matching.storedMixtures(architecture.tree)
        var plan = QuantizationPlan(
            architecture.tree, config: config, addedSkips: options.addedSkipModules, reference: options.followsReference,
            plainLayersOnly: plainLayersOnly,
            quantizableExperts: WrittenExperts.quantizable(architecture.tree, matching, config),
            stored: stored, keptInFloat32: !options.quantizesFloat32Modules)
        if keepsExperts, !plainLayersOnly { plan.keptExperts = ModelLoader.keptExperts(source, config) }
        if source.storedQuantization != nil { try matching.requireScales(of: plan.quantized, checkpoint) }
        return MatchedCheckpoint(
            checkpoint: checkpoint, architecture: architecture, dtype: dtype, config: config, plan: plan,
            matching: matching, storedMixtures: stored, tree: architecture.tree.tying(matching.tied), options: options, cpu: cpu,
            warnings: warnings + matching.warnings)
    }

    /// What becomes of weights that another method than bitsandbytes quantized.
    static func storedFormatNotice(
        _ source: ModelSource, _ config: BitsAndBytesConfig?, _ dtype: DType, keepsExperts: Bool = true
    ) -> [String] {
        guard let stored = source.storedFormat?.name else { return [] }
        if keepsExperts, keptExperts(source, config) != nil { return ["experts keep \(stored), other weights are \(dtype)"] }
        return [
            config.map { "weights are requantized from \(stored) to \($0.formatName)" }
                ?? "weights are dequantized from \(stored) to \(dtype)"
        ]
    }

    /// The format in which experts stay as they are stored, where no quantization was asked for.
    static func keptExperts(_ source: ModelSource, _ config: BitsAndBytesConfig?) -> WeightFormat? {
        config == nil && source.storedFormat?.keepsExperts == true ? .fourBit(.mxfp4) : nil
    }

    private func loadDType(_ checkpoint: any Checkpoint) throws -> DType {
        try ModelLoader.checked(
            options.dtype ?? source.configDType() ?? checkpoint.firstFloatingPointDType ?? .float32)
    }

    /// - Throws: ``LoadError/unknownDType(_:)`` for a dtype that models are not loaded in.
    static func checked(_ dtype: DType) throws -> DType {
        guard [.float32, .float16, .bfloat16].contains(dtype) else { throw LoadError.unknownDType(dtype.rawValue) }
        return dtype
    }

    /// The checkpoint's own config, or else the user's.
    static func quantization(
        _ source: ModelSource, _ options: LoaderOptions, _ warnings: inout [String]
    ) throws -> BitsAndBytesConfig? {
        guard var stored = source.storedQuantization else {
            try options.quantization?.validate()
            return options.quantization
        }
        if options.quantization != nil {
            warnings.append("the checkpoint is already quantized: its own quantization_config is used")
        }
        if !options.followsReference {
            if let computeDType = options.computeDType { stored.computeDType = computeDType }
            if let threshold = options.int8Threshold { stored.int8Threshold = threshold }
        }
        return stored
    }
}
