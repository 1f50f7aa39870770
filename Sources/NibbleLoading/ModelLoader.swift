public import Foundation
public import NibbleCheckpoint
public import NibbleCore
public import NibbleDeviceMap
public import NibbleModels
public import NibbleQuantization

/// What a folder says of its model before a weight is read.
public struct ModelSource: Sendable {
    public let folder: URL
    public let config: ConfigReader
    public let architecture: ModelArchitecture
    /// The config's `quantization_config`, if the checkpoint is pre-quantized.
    public let storedQuantization: BitsAndBytesConfig?
    public private(set) var warnings: [String] = []

    /// Reads `config.json` only.
    /// - Throws: ``LoadError``, ``ModelError``, `QuantizationConfigError`, `JSONError`.
    public init(folder: URL) throws {
        let file = folder.appending(path: "config.json")
        guard FileManager.default.fileExists(atPath: file.path) else { throw LoadError.noConfig(folder: folder.path) }
        guard let object = try JSONValue(contentsOf: file).object else {
            throw LoadError.unreadable(file: file.path, reason: "it does not hold a JSON object")
        }
        self.folder = folder
        config = ConfigReader(object, file: file.path)
        architecture = try ModelRegistry.architecture(config)
        var unknown = [String]()
        storedQuantization = try config.object("quantization_config").map { reader in
            try BitsAndBytesConfig(reader.values) { unknown.append($0) }
        }
        warnings = unknown.map { "\(file.path): the quantization option \($0) is not known and is ignored" }
    }

    /// The dtype that `config.json` names.
    public func configDType() throws -> DType? {
        guard let word = try config.optionalString("dtype", "torch_dtype") else { return nil }
        guard let dtype = DType(name: word) else { throw LoadError.unknownDType(word) }
        return dtype
    }
}

/// Makes a resident model of a folder: matches names, plans quantization, streams weights to their devices.
public struct ModelLoader: Sendable {
    public let source: ModelSource
    public let options: LoadOptions
    /// Every device the map names, the CPU always among them.
    let backends: [Device: any Backend]
    let cpu: any Backend

    /// - Parameter backends: one for each device in use; the first for a device wins. One must be the CPU's.
    public init(_ source: ModelSource, options: LoadOptions, backends: [any Backend]) {
        guard let cpu = backends.first(where: { $0.device == .cpu }) else {
            preconditionFailure("loading needs the CPU backend")
        }
        self.source = source
        self.options = options
        self.cpu = cpu
        self.backends = Dictionary(backends.map { ($0.device, $0) }, uniquingKeysWith: { first, _ in first })
    }

    public struct Loaded: Sendable {
        public let model: LanguageModel
        public let weights: ModelWeights
        /// The tree with ties as the checkpoint has them.
        public let tree: ModuleTree
        public let plan: QuantizationPlan
        public let report: LoadReport
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

        func loader(_ backend: @escaping @Sendable (String) throws -> any Backend) -> WeightLoader {
            WeightLoader(
                architecture, checkpoint, matching, plan, dtype: dtype, options: options, cpu: cpu, backend: backend)
        }
    }

    /// - Parameter plainLayersOnly: leave alone what the reference could not read back.
    func prepare(_ checkpoint: any Checkpoint, plainLayersOnly: Bool = false) throws -> Prepared {
        var warnings = source.warnings
        let config = try quantization(&warnings)
        let architecture = source.architecture
        let matching = try KeyMatching(architecture, checkpoint)
        guard matching.missing.isEmpty else {
            throw LoadError.missingWeights(matching.missing, files: checkpoint.files.map(\.path))
        }
        guard matching.mismatched.isEmpty else { throw LoadError.mismatchedWeights(matching.mismatched) }
        return Prepared(
            checkpoint: checkpoint, architecture: architecture, dtype: try loadDType(checkpoint), config: config,
            plan: QuantizationPlan(
                architecture.tree, config: config, addedSkips: options.addedSkipModules,
                reference: options.followsReference, plainLayersOnly: plainLayersOnly,
                keptInFloat32: !options.quantizesFloat32Modules),
            matching: matching, tree: architecture.tree.tying(matching.tied), options: options, cpu: cpu,
            warnings: warnings + matching.warnings)
    }

    /// - Throws: ``LoadError``, `CheckpointError`, `BackendError` …; nothing stays allocated.
    public func load(_ checkpoint: any Checkpoint, map: DeviceMap) throws -> Loaded {
        let start = ContinuousClock.now
        let prepared = try prepare(checkpoint)
        let weights = try prepared.loader(try placement(prepared.tree, map)).load(prepared.tree)
        for backend in backends.values { try backend.synchronize() }
        let model = try LanguageModel(
            prepared.architecture, weights, options: SessionOptions(loadDType: prepared.dtype))

        var report = LoadReport()
        report.dtype = prepared.dtype
        report.quantization = prepared.config
        report.quantizedModules = prepared.plan.quantized
        report.skippedModules = prepared.plan.skipped
        report.unexpected = prepared.matching.unexpected
        report.warnings = prepared.warnings
        report.footprint = prepared.tree.footprint(prepared.plan, loadDType: prepared.dtype)
        report.residentBytes = weights.residentBytes
        report.checkpointBytes = checkpoint.names.reduce(0) { $0 + (checkpoint.descriptor($1)?.byteCount ?? 0) }
        report.seconds = (ContinuousClock.now - start) / .seconds(1)
        return Loaded(model: model, weights: weights, tree: prepared.tree, plan: prepared.plan, report: report)
    }

    private func loadDType(_ checkpoint: any Checkpoint) throws -> DType {
        let dtype = try options.dtype ?? source.configDType() ?? checkpoint.firstFloatingPointDType ?? .float32
        guard [.float32, .float16, .bfloat16].contains(dtype) else { throw LoadError.unknownDType(dtype.rawValue) }
        return dtype
    }

    /// The user's config, or the checkpoint's own, which beats it.
    private func quantization(_ warnings: inout [String]) throws -> BitsAndBytesConfig? {
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

    /// Looks up every module once, so that later look-ups cannot fail.
    func placement(_ tree: ModuleTree, _ map: DeviceMap) throws -> @Sendable (String) throws -> any Backend {
        var byPath: [String: any Backend] = [:]
        for module in tree.modules {
            let device = map.device(of: module.path)
            if let device, let backend = backends[device] {
                byPath[module.path] = backend
            } else if !module.node.parameters.isEmpty {
                throw LoadError.noDevice(module: module.path)
            }
        }
        let found = byPath
        return { path in
            guard let backend = found[path] else { throw LoadError.noDevice(module: path) }
            return backend
        }
    }
}

extension ModelWeights {
    /// Bytes of weights, scales and tables by device; shared memory counts once.
    var residentBytes: [Device: Int] {
        var bytes: [Device: Int] = [:]
        for linear in linears.values { bytes[backend(linear.name).device, default: 0] += linear.weight.byteCount }
        for experts in experts.values {
            for expert in experts {
                for layer in expert.gateUp.layers + [expert.down] { bytes[.cpu, default: 0] += layer.weight.byteCount }
            }
        }
        var seen = Set<ObjectIdentifier>()
        let tables = linears.values.compactMap { linear -> ObjectIdentifier? in
            if case .dense(let tensor) = linear.weight { ObjectIdentifier(tensor.storage) } else { nil }
        }
        seen.formUnion(tables)
        for tensor in tensors.values where seen.insert(ObjectIdentifier(tensor.storage)).inserted {
            bytes[tensor.device, default: 0] += tensor.byteCount
        }
        return bytes
    }
}
