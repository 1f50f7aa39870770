import NibbleCheckpoint
import NibbleCore
import NibbleDeviceMap
import NibbleModels
import NibbleQuantization

/// Streams a checkpoint's tensors to their devices, quantizing on the way, in one pass over the file.
final class WeightLoader {
    let architecture: ModelArchitecture
    let checkpoint: any Checkpoint
    let matching: KeyMatching
    let plan: QuantizationPlan
    let options: LoadOptions
    let dtype: DType
    let placement: ResolvedPlacement
    let host: HostTensors
    private let backends: [Device: any Backend]
    let offload: OffloadStore
    /// Mapped tensors of each block.
    private(set) var streams: [String: MappedWeights] = [:]
    private let blockOfModule: [String: String]
    var weights: ModelWeights
    /// Weights of linear modules, waiting for their biases.
    private var linearWeights: [String: LinearWeight] = [:]
    private var readBytes = 0

    init(
        _ architecture: ModelArchitecture, _ checkpoint: any Checkpoint, _ matching: KeyMatching, _ plan: QuantizationPlan,
        dtype: DType, options: LoadOptions, cpu: any Backend, backends: [Device: any Backend], placement: ResolvedPlacement
    ) {
        self.architecture = architecture
        self.checkpoint = checkpoint
        self.matching = matching
        self.plan = plan
        self.options = options
        self.dtype = dtype
        self.placement = placement
        self.backends = backends
        host = HostTensors(cpu: cpu)
        offload = OffloadStore(options.offloadFolder)
        var blocks: [String: String] = [:]
        for block in architecture.tree.located.all(.block) {
            for module in block.descendants { blocks[module.path] = block.path }
        }
        blockOfModule = blocks
        // Every device that is run on was found present before loading began.
        weights = ModelWeights { backends[placement.device(of: $0)] ?? cpu }
    }

    func backend(_ module: String) -> any Backend { weights.backend(module) }

    /// One parameter to load.
    private struct Job {
        var parameter: LocatedParameter
        var source: KeyMatching.Source
    }

    /// Loads everything. `tree` knows which parameters are tied.
    func load(_ tree: ModuleTree) throws -> ModelWeights {
        let jobs = try jobsInFileOrder(tree)
        let total = jobs.reduce(0) { $0 + (checkpoint.descriptor($1.source.key)?.byteCount ?? 0) }
        for (index, job) in jobs.enumerated() {
            if index + 1 < jobs.count { checkpoint.prefetch(jobs[index + 1].source.key) }
            try load(job)
            release(job)
            readBytes += checkpoint.descriptor(job.source.key)?.byteCount ?? 0
            options.progress?(LoadProgress(bytes: readBytes, totalBytes: total, tensor: job.parameter.path))
        }
        try loadBuffers(tree)
        try loadExperts(tree)
        shareTied(tree)
        try assembleLinears(tree)
        weights.streams = streams
        try streamToDevice()
        return weights
    }

    /// What was copied need not stay mapped.
    private func release(_ job: Job) {
        for key in [job.source.key] + job.source.companions.values { checkpoint.dropPages(key) }
    }

    private func jobsInFileOrder(_ tree: ModuleTree) throws -> [Job] {
        var place: [String: Int] = [:]
        for (index, name) in checkpoint.namesInFileOrder.enumerated() { place[name] = index }
        let jobs = tree.parameters.compactMap { parameter -> Job? in
            guard parameter.tiedTo == nil, !parameter.module.isExperts, let source = matching.sources[parameter.path]
            else { return nil }
            return Job(parameter: parameter, source: source)
        }
        return jobs.sorted { (place[$0.source.key] ?? 0) < (place[$1.source.key] ?? 0) }
    }

    private func load(_ job: Job) throws {
        let path = job.parameter.path
        let backend = backend(job.parameter.module.path)
        if job.parameter.module.isMatrix, path.hasSuffix(".weight") {
            linearWeights[job.parameter.module.path] = try linearWeight(
                job.source, job.parameter.module, shape: job.parameter.shape, on: backend)
            return
        }
        let file = try checkpoint.tensor(job.source.key)
        let stored = try castToStored(file, parameter: path, key: job.source.key)
        switch job.parameter.module.node.kind {
        case .embedding where job.parameter.module.node.role != .relativeBias:
            weights.tensors[path] =
                isOnDisk(path)
                ? try mapped(stored, name: path, file: file, key: job.source.key, module: job.parameter.module.path)
                : try host.resident(stored, on: backend, unlessBackedBy: file) { checkpoint.dropPages(job.source.key) }
        case .norm(let norm) where norm.weightOffset != 0 && path.hasSuffix(".weight"):
            weights.tensors[path] = try host.resident(
                try shifted(stored, by: norm.weightOffset), on: backend, unlessBackedBy: file)
        default:
            weights.tensors[path] = try host.resident(
                try host.cast(stored, to: .float32), on: backend, unlessBackedBy: file)
        }
    }

    /// The tensor in the dtype the model is loaded in. Integers and 8-bit floats are cast, as the reference casts them.
    /// - Throws: ``LoadError/malformedQuantization(tensor:file:expected:found:)`` where the numbers are codes that only
    ///   mean something with scales.
    func castToStored(_ tensor: Tensor, parameter: String, key: String) throws -> Tensor {
        if tensor.dtype.byteCount == 1, let scales = scales(of: key) {
            throw LoadError.malformedQuantization(
                tensor: key, file: file(of: key), expected: "weights without scales",
                found: "\(tensor.dtype) with the scales \(scales), a form of quantization that is not read")
        }
        return try host.cast(tensor, to: architecture.tree.storedDType(of: parameter, loadDType: dtype))
    }

    /// The tensor that other quantizers store scales in.
    private func scales(of key: String) -> String? {
        let module = String(key.dropLast(key.hasByteSuffix("weight") ? "weight".count : 0))
        return [key + "_scale_inv", key + "_scale", module + "scale_weight", module + "scales", module + "SCB"].first {
            checkpoint.descriptor($0) != nil
        }
    }

    func file(of key: String) -> String { checkpoint.descriptor(key)?.file.path ?? "the checkpoint" }

    /// float32 copy with `offset` added.
    private func shifted(_ tensor: Tensor, by offset: Float) throws -> Tensor {
        let source = try host.cast(tensor, to: .float32)
        let result = try host.cpu.allocate(.float32, tensor.shape)
        let values = source.hostElements(Float.self)
        let target = result.mutableHostElements(Float.self)
        for index in values.indices { target[index] = values[index] + offset }
        return result
    }

    /// Buffers that the checkpoint holds, as float32 beside the output embedding, which is what reads them.
    private func loadBuffers(_ tree: ModuleTree) throws {
        let backend = backend(tree.outputEmbedding)
        for (path, _) in tree.persistentBuffers {
            guard let source = matching.sources[path] else { continue }
            let file = try checkpoint.tensor(source.key)
            let stored = try castToStored(file, parameter: path, key: source.key)
            weights.tensors[path] = try host.resident(
                try host.cast(stored, to: .float32), on: backend, unlessBackedBy: file)
        }
    }

    /// Notes that a block reads these tensors for each use.
    func stream(_ names: some Sequence<String>, of file: any Checkpoint, module: String) {
        streams[blockOfModule[module] ?? module, default: MappedWeights()].add(Array(names), of: file)
    }

    func setExperts(_ experts: [Expert], of module: String) { weights.experts[module] = experts }

    private func shareTied(_ tree: ModuleTree) {
        for (target, source) in tree.tied where weights.tensors[target] == nil {
            if let tensor = weights.tensors[source] { weights.tensors[target] = tensor }
        }
    }

    // MARK: Linear layers

    private func assembleLinears(_ tree: ModuleTree) throws {
        for module in tree.modules where module.isMatrix {
            let weight: LinearWeight
            if let loaded = linearWeights[module.path] {
                weight = loaded
            } else if let table = weights.tensors[module.path(of: "weight")] {
                weight = try tiedWeight(table, module)
            } else {
                continue
            }
            weights.linears[module.path] = Linear(
                name: module.path, weight: weight, bias: weights.tensors[module.path(of: "bias")], arithmetic: arithmetic)
        }
    }

    /// A head that shares the embedding table: the table itself where both lie on one device, else a copy; a quantized copy
    /// on request.
    private func tiedWeight(_ table: Tensor, _ module: LocatedModule) throws -> LinearWeight {
        let backend = backend(module.path)
        if let format = options.headFormat, module.path == architecture.tree.outputEmbedding {
            return try prepared(try backend.quantize(table, to: format), on: backend)
        }
        guard table.device != backend.device else { return .dense(table) }
        let source = architecture.tree.tied.first { $0.target == module.path(of: "weight") }?.source ?? ""
        let origin = self.backend(String(source.dropLast(".weight".count)))
        let copy = try backend.allocate(table.dtype, table.shape)
        try transfer(table, from: origin, to: copy, on: backend)
        return .dense(copy)
    }

    var arithmetic: LinearArithmetic { options.arithmetic(plan.config, dtype: dtype) }

    /// The weight of one linear module, quantized as planned, on its device.
    func linearWeight(
        _ source: KeyMatching.Source, _ module: LocatedModule, shape: Shape, on backend: any Backend
    ) throws -> LinearWeight {
        let path = module.path(of: "weight")
        guard source.isQuantized else {
            let file = try checkpoint.tensor(source.key)
            var tensor = try castToStored(file, parameter: path, key: source.key)
            if case .transposedLinear = module.node.kind { tensor = try host.transposed(tensor) }
            return try linearWeight(
                tensor, of: module.path, parameter: path, name: path, key: source.key, file: file, on: backend)
        }
        // A quantized layer is [N, K] whatever orientation the family stores floats in.
        var expected = shape
        if case .transposedLinear = module.node.kind { expected = [shape[1], shape[0]] }
        if isOnDisk(path) {
            stream([source.key] + source.companions.values, of: checkpoint, module: module.path)
            return try StoredWeightReader(checkpoint: checkpoint) { $0 }.weight(source, shape: expected)
        }
        let reader = StoredWeightReader(checkpoint: checkpoint) { [host] in
            try host.resident($0, on: backend, unlessBackedBy: $0)
        }
        return try prepared(try reader.weight(source, shape: expected), on: backend)
    }

    /// Quantizes [N, K] as planned for `module`, or keeps it dense.
    /// - Parameters:
    ///   - parameter: whose device decides where the weight lies.
    ///   - name: tells it from all other weights (one expert's, for one).
    func linearWeight(
        _ tensor: Tensor, of module: String, parameter: String, name: String, key: String, file: Tensor,
        on backend: any Backend
    ) throws -> LinearWeight {
        guard let format = format(of: module) else {
            guard isOnDisk(parameter) else { return try dense(tensor, key: key, file: file, on: backend) }
            return .dense(try mapped(tensor, name: name, file: file, key: key, module: module))
        }
        do {
            guard isOnDisk(parameter) else {
                let weight = try quantizedOnCPUPath(tensor, to: format, on: backend) ?? backend.quantize(tensor, to: format)
                return try prepared(weight, on: backend)
            }
            return try offloaded(
                name, key: key, module: module, form: "\(format) of \(tensor.dtype), \(options.followsReference)"
            ) {
                // Wherever the block runs, its file is written from here.
                try quantizedOnCPUPath(tensor, to: format, on: host.cpu) ?? host.cpu.quantize(tensor, to: format)
            }
        } catch BackendError.nonFiniteWeight(let index) {
            throw LoadError.nonFinite(tensor: key, file: self.file(of: key), index: index)
        }
    }

    private func format(of module: String) -> WeightFormat? {
        if module == architecture.tree.outputEmbedding, let format = options.headFormat { return format }
        return plan.isQuantized(module) ? plan.config?.format : nil
    }

    /// Repacking reads the mapped file directly; only a weight that stays canonical needs its own copy.
    private func dense(_ tensor: Tensor, key: String, file: Tensor, on backend: any Backend) throws -> LinearWeight {
        if backend.device == .cpu, options.preparesWeights, case .prepared(let weight) = try backend.prepare(.dense(tensor)) {
            return .prepared(weight)
        }
        let resident = try host.resident(tensor, on: backend, unlessBackedBy: file) { checkpoint.dropPages(key) }
        return backend.device == .cpu ? .dense(resident) : try prepared(.dense(resident), on: backend)
    }

    func prepared(_ weight: LinearWeight, on backend: any Backend) throws -> LinearWeight {
        options.preparesWeights ? try backend.prepare(weight) : weight
    }
}
