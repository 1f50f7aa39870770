package import Foundation
package import NibbleCheckpoint
package import NibbleCore
package import NibbleDeviceMap
package import NibbleModels
package import NibbleQuantization

/// What a folder, or a GGUF file, says of its model before a weight is read.
package struct ModelSource: Sendable {
    /// The folder, or the file.
    package let folder: URL
    package let config: ConfigReader
    package let architecture: ModelArchitecture
    /// The config's `quantization_config`, if the checkpoint is pre-quantized.
    package let storedQuantization: BitsAndBytesConfig?
    package private(set) var warnings: [String] = []

    /// Reads `config.json`, or the file's header, only.
    /// - Throws: ``LoadError``, ``ModelError``, `QuantizationConfigError`, `JSONError`, `CheckpointError`.
    package init(folder: URL) throws {
        let isGGUF = ModelSource.isGGUF(folder)
        let file = isGGUF ? folder : folder.appending(path: "config.json")
        let object = isGGUF ? try GGUFNames.config(GGUFFile(folder)) : try ModelSource.config(file, in: folder)
        self.folder = folder
        config = ConfigReader(object, file: file.path)
        architecture = try ModelRegistry.architecture(config)
        var unknown = [String]()
        storedQuantization = try config.object("quantization_config").map { reader in
            try BitsAndBytesConfig(reader.values) { unknown.append($0) }
        }
        warnings = unknown.map { "\(file.path): the quantization option \($0) is not known and is ignored" }
    }

    /// Whether a name is that of a file that holds a whole model.
    package static func isGGUF(_ url: URL) -> Bool { GGUFFile.isGGUF(url) }

    /// Where a folder written from a GGUF file keeps the tokenizer: a GGUF file without tensors.
    package static let vocabularyFile = "tokenizer.gguf"

    private static func config(_ file: URL, in folder: URL) throws -> JSONObject {
        guard FileManager.default.fileExists(atPath: file.path) else {
            let adapter = folder.appending(path: "adapter_config.json")
            guard FileManager.default.fileExists(atPath: adapter.path) else { throw LoadError.noConfig(folder: folder.path) }
            let base = try? JSONValue(contentsOf: adapter)["base_model_name_or_path"]?.string
            throw LoadError.adapterWithoutBase(folder: folder.path, base: base)
        }
        guard let object = try JSONValue(contentsOf: file).object else {
            throw LoadError.unreadable(file: file.path, reason: "it does not hold a JSON object")
        }
        return object
    }

    /// Opens the weights.
    /// - Parameters:
    ///   - variant: of a folder's files.
    ///   - dtype: what the model is to be loaded in, if it is known: a GGUF file's blocks come out in it.
    /// - Throws: `CheckpointError`
    package func checkpoint(variant: String?, dtype: DType?) throws -> any Checkpoint {
        guard ModelSource.isGGUF(folder) else {
            return try CheckpointFiles.open(
                folder: folder, variant: variant, named: config.optionalString("transformers_weights"))
        }
        return try GGUFCheckpoint(folder, dequantizedTo: ModelLoader.checked(dtype ?? configDType() ?? .float32))
    }

    /// The dtype that `config.json` names.
    package func configDType() throws -> DType? {
        guard let word = try config.optionalString("dtype", "torch_dtype") else { return nil }
        guard let dtype = DType(name: word) else { throw LoadError.unknownDType(word) }
        return dtype
    }
}

/// Makes a resident model of a folder: matches names, plans quantization, streams weights to their devices.
package struct ModelLoader: Sendable {
    package let source: ModelSource
    package let options: LoadOptions
    /// Every device the map names, the CPU always among them.
    let backends: [Device: any Backend]
    let cpu: any Backend

    /// - Parameter backends: one for each device in use; the first for a device wins. One must be the CPU's.
    package init(_ source: ModelSource, options: LoadOptions, backends: [any Backend]) {
        guard let cpu = backends.first(where: { $0.device == .cpu }) else {
            preconditionFailure("loading needs the CPU backend")
        }
        self.source = source
        self.options = options
        self.cpu = cpu
        self.backends = Dictionary(backends.map { ($0.device, $0) }, uniquingKeysWith: { first, _ in first })
    }

    package struct Loaded: Sendable {
        package let model: LanguageModel
        package let weights: ModelWeights
        /// The tree with ties as the checkpoint has them.
        package let tree: ModuleTree
        package let plan: QuantizationPlan
        package var report: LoadReport
    }

    /// What is known once names are matched and quantization is planned, before a weight is read.
    struct Prepared {
        var checkpoint: any Checkpoint
        var architecture: ModelArchitecture
        var dtype: DType
        var config: BitsAndBytesConfig?
        var plan: QuantizationPlan
        var matching: KeyMatching
        /// Ties as the checkpoint has them.
        var tree: ModuleTree
        var options: LoadOptions
        var cpu: any Backend
        var warnings: [String]

        func loader(_ placement: ResolvedPlacement, _ backends: [Device: any Backend]) -> WeightLoader {
            WeightLoader(
                architecture, checkpoint, matching, plan, dtype: dtype, options: options, cpu: cpu, backends: backends,
                placement: placement)
        }
    }

    /// - Parameter plainLayersOnly: leave alone what the reference could not read back.
    func prepare(_ checkpoint: any Checkpoint, plainLayersOnly: Bool = false) throws -> Prepared {
        var warnings = source.warnings
        let config = try ModelLoader.quantization(source, options, &warnings)
        let architecture = source.architecture
        let matching = try KeyMatching(architecture, checkpoint)
        guard matching.missing.isEmpty else {
            throw LoadError.missingWeights(matching.missing, files: checkpoint.files.map(\.path))
        }
        guard matching.mismatched.isEmpty else { throw LoadError.mismatchedWeights(matching.mismatched) }
        let plan = QuantizationPlan(
            architecture.tree, config: config, addedSkips: options.addedSkipModules,
            reference: options.followsReference, plainLayersOnly: plainLayersOnly,
            keptInFloat32: !options.quantizesFloat32Modules)
        if source.storedQuantization != nil { try matching.requireScales(of: plan.quantized, checkpoint) }
        return Prepared(
            checkpoint: checkpoint, architecture: architecture, dtype: try loadDType(checkpoint), config: config, plan: plan,
            matching: matching, tree: architecture.tree.tying(matching.tied), options: options, cpu: cpu,
            warnings: warnings + matching.warnings)
    }

    /// - Throws: ``LoadError``, `DeviceMapError`, `CheckpointError`, `BackendError` …; nothing stays allocated.
    package func load(_ checkpoint: any Checkpoint, placement request: PlacementRequest) throws -> Loaded {
        let start = ContinuousClock.now
        var prepared = try prepare(checkpoint)
        let placed = try place(request, prepared)
        if let refusal = placed.placement.refusal { throw refusal }
        prepared.plan = placed.quantization
        let resolved = try resolve(
            prepared.tree, placed.placement.deviceMap, streamDevice: placed.placement.streamDevice)
        let running = backends.values.filter { resolved.devices.contains($0.device) }
        try makeRoom(placed, resolved, head: prepared.tree.outputEmbedding)
        let kernels = KernelPreparation(running, loadDType: prepared.dtype)
        let weights = try prepared.loader(resolved, backends).load(prepared.tree)
        for backend in backends.values { try backend.synchronize() }
        try kernels.wait()
        let model = try LanguageModel(
            prepared.architecture, weights,
            options: SessionOptions(
                loadDType: prepared.dtype, cacheFormat: placed.memory.cacheFormat, chunkTokens: placed.memory.chunkTokens))

        var report = report(prepared, weights, resolved)
        report.placement = placed.placement
        report.warnings += placed.placement.warnings
        report.seconds = (ContinuousClock.now - start) / .seconds(1)
        return Loaded(model: model, weights: weights, tree: prepared.tree, plan: prepared.plan, report: report)
    }

    /// Takes a GPU's memory in one piece, and first of all its workspace: once weights lie behind it, it cannot grow in place.
    private func makeRoom(_ placed: Placed, _ resolved: ResolvedPlacement, head: String) throws {
        for use in placed.placement.devices where use.device.isGPU && resolved.devices.contains(use.device) {
            guard let backend = backends[use.device], use.budget.map({ use.total <= $0 }) ?? true else { continue }
            try backend.expect(use.total - use.context)
            try backend.reserve(placed.memory.workspaceRequest(holdsHead: resolved.device(of: head) == use.device))
        }
    }

    private func report(_ prepared: Prepared, _ weights: ModelWeights, _ placement: ResolvedPlacement) -> LoadReport {
        var report = LoadReport()
        report.dtype = prepared.dtype
        report.quantization = prepared.config
        report.quantizedModules = prepared.plan.quantized
        report.skippedModules = prepared.plan.skipped
        report.unexpected = prepared.matching.unexpected
        report.warnings = prepared.warnings + placement.warnings
        report.footprint = prepared.tree.footprint(prepared.plan, loadDType: prepared.dtype)
        report.residentBytes = weights.storedBytes(placement)
        let checkpoint = prepared.checkpoint
        report.checkpointBytes = checkpoint.names.reduce(0) { $0 + (checkpoint.descriptor($1)?.byteCount ?? 0) }
        return report
    }

    private func loadDType(_ checkpoint: any Checkpoint) throws -> DType {
        try ModelLoader.checked(
            options.dtype ?? source.configDType() ?? checkpoint.firstFloatingPointDType ?? .float32)
    }

    static func checked(_ dtype: DType) throws -> DType {
        guard [.float32, .float16, .bfloat16].contains(dtype) else { throw LoadError.unknownDType(dtype.rawValue) }
        return dtype
    }

    /// The user's config, or the checkpoint's own, which beats it.
    static func quantization(
        _ source: ModelSource, _ options: LoadOptions, _ warnings: inout [String]
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

    /// Makes `map` definite, and sees that every device it names is there.
    func resolve(_ tree: ModuleTree, _ map: DeviceMap, streamDevice: Device = .cpu) throws -> ResolvedPlacement {
        let placement = try ResolvedPlacement(
            map, tree, stacks: source.architecture.stacks, streamDevice: streamDevice)
        for device in placement.devices.sorted() where device != .disk && backends[device] == nil {
            throw LoadError.noDevice(device, present: backends.keys.sorted())
        }
        return placement
    }
}

extension ModelArchitecture {
    /// The stacks, in the order in which tokens pass through them.
    var stacks: [StackDescription] { [encoder, decoder].compactMap { $0 } }
}

extension ModelWeights {
    /// Bytes of weights, scales and tables by the device they are stored on; shared memory counts once.
    func storedBytes(_ placement: ResolvedPlacement) -> [Device: Int] {
        var bytes: [Device: Int] = [:]
        var tables = Set<ObjectIdentifier>()
        for linear in linears.values {
            let stored = placement.storage(of: linear.name + ".weight")
            bytes[stored, default: 0] += linear.weight.byteCount
            if case .dense(let tensor) = linear.weight { tables.insert(ObjectIdentifier(tensor.storage)) }
        }
        for (module, experts) in experts {
            let stored = placement.storage(of: module + ".down_proj")
            for expert in experts {
                for layer in expert.gateUp.layers + [expert.down] { bytes[stored, default: 0] += layer.weight.byteCount }
            }
        }
        for (path, tensor) in tensors where tables.insert(ObjectIdentifier(tensor.storage)).inserted {
            bytes[placement.storage(of: path), default: 0] += tensor.byteCount
        }
        return bytes
    }
}
