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
    private let storedMixtures: QuantizationPlan.StoredMixtures
    let plan: QuantizationPlan
    let options: LoaderOptions
    let dtype: DType
    let placement: ResolvedPlacement
    let host: HostTensors
    private let backends: [Device: any Backend]
    let offload: OffloadStore
    /// Mapped tensors of each block.
    private(set) var streams: [String: MappedWeights] = [:]
    private let blockOfModule: [String: String]
    var weights: ModelWeights
    /// Weights of linear modules, whose biases may still have to be loaded.
    private var linearWeights: [String: LinearWeight] = [:]
    private var readBytes = 0

    /// - Parameter backends: every device that `placement` runs on has one.
    init(_ matched: MatchedCheckpoint, _ placement: ResolvedPlacement, _ backends: [Device: any Backend]) {
        architecture = matched.architecture
        checkpoint = matched.checkpoint
        matching = matched.matching
        storedMixtures = matched.storedMixtures
        plan = matched.plan
        options = matched.options
        dtype = matched.dtype
        self.placement = placement
        self.backends = backends
        host = HostTensors(cpu: matched.cpu)
        offload = OffloadStore(options.offloadFolder)
        var blocks: [String: String] = [:]
        for block in architecture.tree.located.all(.block) {
            for module in block.descendants { blocks[module.path] = block.path }
        }
        blockOfModule = blocks
        let cpu = matched.cpu
        weights = ModelWeights { backends[placement.device(of: $0)] ?? cpu }
    }

    func backend(_ module: String) -> any Backend { weights.backend(module) }

    /// A parameter, and the tensor that holds it.
    private struct ParameterSource {
        var parameter: LocatedParameter
        var source: KeyMatching.WeightSource

        var key: String { source.key }
    }

    /// Loads everything. `tree` knows which parameters are tied.
    /// - Parameter isLoaded: whether a set of experts is loaded.
    func load(_ tree: ModuleTree, experts isLoaded: (String) -> Bool = { _ in true }) throws -> ModelWeights {
        let parameters = parametersInFileOrder(tree)
        func byteCount(_ parameter: ParameterSource) -> Int { checkpoint.descriptor(parameter.key)?.byteCount ?? 0 }
        let total = parameters.reduce(0) { $0 + byteCount($1) }
        for (index, parameter) in parameters.enumerated() {
            if index + 1 < parameters.count { checkpoint.prefetch(parameters[index + 1].key) }
            try load(parameter)
            dropPages(parameter)
            readBytes += byteCount(parameter)
            options.progress?(LoadProgress(bytes: readBytes, totalBytes: total, tensor: parameter.parameter.path))
        }
        try loadBuffers(tree)
        try loadExperts(tree, where: isLoaded)
        shareTied(tree)
        try assembleLinears(tree)
        weights.streams = streams
        try streamToDevice()
        return weights
    }

    /// Gives back the pages of tensors that were copied.
    private func dropPages(_ parameter: ParameterSource) {
        for key in [parameter.key] + parameter.source.companions.values { checkpoint.dropPages(key) }
    }

    private func parametersInFileOrder(_ tree: ModuleTree) -> [ParameterSource] {
        var positions: [ByteText: Int] = [:]
        for (index, name) in checkpoint.namesInFileOrder.enumerated() { positions[name] = index }
        let parameters = tree.parameters.compactMap { parameter -> ParameterSource? in
            guard parameter.tiedTo == nil, !parameter.module.isExperts, let source = matching.sources[parameter.path]
            else { return nil }
            return ParameterSource(parameter: parameter, source: source)
        }
        return parameters.sorted { (positions[$0.key] ?? 0) < (positions[$1.key] ?? 0) }
    }

    private func load(_ parameter: ParameterSource) throws {
        let (path, key, module) = (parameter.parameter.path, parameter.key, parameter.parameter.module)
        let backend = backend(module.path)
        if module.isMatrix, path.hasSuffix(".weight") {
            linearWeights[module.path] = try linearWeight(
                parameter.source, module, shape: parameter.parameter.shape, on: backend)
            return
        }
        let file = try checkpoint.tensor(key)
        let stored = try castToStored(file, parameter: path, key: key)
        switch module.node.kind {
        case .embedding where module.node.role != .relativeBias:
            weights.tensors[path] =
                isOnDisk(path)
                ? try mapped(stored, name: path, file: file, key: key, module: module.path)
                : try host.resident(stored, on: backend, unlessBackedBy: file) { checkpoint.dropPages(key) }
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

    /// Loads buffers that the checkpoint holds, as float32 without rounding to the load dtype, to the device of their module;
    /// those of the root to that of the output embedding, which reads them.
    private func loadBuffers(_ tree: ModuleTree) throws {
        for (path, _) in tree.persistentBuffers {
            guard let source = matching.sources[path] else { continue }
            let file = try checkpoint.tensor(source.key)
            // Eight bits may be codes that mean something with scales alone.
            let stored = file.dtype.byteCount == 1 ? try castToStored(file, parameter: path, key: source.key) : file
            let module = path.split(separator: ".").dropLast().joined(separator: ".")
            weights.tensors[path] = try host.resident(
                try host.cast(stored, to: .float32), on: backend(module.isEmpty ? tree.outputEmbedding : module),
                unlessBackedBy: file)
        }
    }

    /// Records that a block reads these tensors of the mapped file for each use.
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
            } else if let copy = try quantizedHead(module) {
                weight = copy
            } else if let table = weights.tensors[module.path(of: "weight")] {
                weight = try tiedWeight(table, module)
            } else {
                continue
            }
            weights.linears[module.path] = Linear(
                name: module.path, weight: weight, bias: weights.tensors[module.path(of: "bias")], arithmetic: arithmetic)
        }
    }

    /// The quantized copy of the embedding table that a tied head uses where ``LoaderOptions/headFormat`` asks for one. It is
    /// made from the file, so that head and table may lie on different devices.
    private func quantizedHead(_ module: LocatedModule) throws -> LinearWeight? {
        let path = module.path(of: "weight")
        guard options.headFormat != nil, module.path == architecture.tree.outputEmbedding,
            let table = tiedSource(of: path), let source = matching.sources[table]
        else { return nil }
        let file = try checkpoint.tensor(source.key)
        let tensor = try castToStored(file, parameter: table, key: source.key)
        defer { checkpoint.dropPages(source.key) }
        return try linearWeight(
            tensor, of: module.path, parameter: path, name: path, key: source.key, file: file, on: backend(module.path))
    }

    private func tiedSource(of target: String) -> String? { architecture.tree.tied.first { $0.target == target }?.source }

    /// A head that shares the embedding table: the table itself where both lie on one device, else a copy.
    private func tiedWeight(_ table: Tensor, _ module: LocatedModule) throws -> LinearWeight {
        let backend = backend(module.path)
        guard table.device != backend.device else { return .dense(table) }
        let source = tiedSource(of: module.path(of: "weight")) ?? ""
        let origin = self.backend(String(source.dropLast(".weight".count)))
        let copy = try backend.allocate(table.dtype, table.shape)
        try transfer(table, from: origin, to: copy, on: backend)
        return .dense(copy)
    }

    var arithmetic: LinearArithmetic { options.arithmetic(plan.config, dtype: dtype) }

    /// The weight of one linear module, quantized as planned, on its device.
    func linearWeight(
        _ source: KeyMatching.WeightSource, _ module: LocatedModule, shape: Shape, on backend: any Backend
    ) throws -> LinearWeight {
        let path = module.path(of: "weight")
        guard source.isQuantized else {
            var isTransposed = false
            if case .transposedLinear = module.node.kind { isTransposed = true }
            let rows = try isTransposed ? nil : checkpoint.weightRows(source.key, matrix: nil)
            if let weight = try quantized(rows, of: module.path, parameter: path, key: source.key, on: backend) { return weight }
            let file = try checkpoint.tensor(source.key)
            var tensor = try castToStored(file, parameter: path, key: source.key)
            if isTransposed { tensor = try host.transposed(tensor) }
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

    /// Quantizes a weight slab by slab as its rows are computed, so that the whole of it is never in memory. `nil` where it stays
    /// dense, or the device wants a tensor.
    /// - Parameter parameter: the weight lies on this parameter's device.
    func quantized(
        _ rows: (any WeightRows)?, of module: String, parameter: String, key: String, on backend: any Backend
    ) throws -> LinearWeight? {
        guard let format = format(of: module), backend.device == .cpu, !isOnDisk(parameter), !options.followsReference,
            let rows, rows.dtype == architecture.tree.storedDType(of: parameter, loadDType: dtype)
        else { return nil }
        do {
            return try backend.quantize(rows, to: format).map { try prepared($0, on: backend) }
        } catch BackendError.nonFiniteWeight(let index) {
            throw LoadError.nonFinite(tensor: key, file: file(of: key), index: index)
        }
    }

    /// Quantizes [N, K] as planned for `module`, or keeps it dense.
    /// - Parameters:
    ///   - parameter: the weight lies on this parameter's device.
    ///   - name: a unique name, such as that of one expert's weight.
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
                let weight = try host.quantized(
                    tensor, to: format, on: backend, followsReference: options.followsReference)
                return try prepared(weight, on: backend)
            }
            return try offloaded(
                name, key: key, module: module, form: "\(format) of \(tensor.dtype), \(options.followsReference)"
            ) {
                // The file is written by the host, wherever the block runs.
                try host.quantized(tensor, to: format, on: host.cpu, followsReference: options.followsReference)
            }
        } catch BackendError.nonFiniteWeight(let index) {
            throw LoadError.nonFinite(tensor: key, file: self.file(of: key), index: index)
        }
    }

    /// The format to quantize `module` to. What the checkpoint holds as floats beside quantized experts stays so.
    private func format(of module: String) -> WeightFormat? {
        if storedMixtures.modules.contains(module) { return nil }
        if module == architecture.tree.outputEmbedding, let format = options.headFormat { return format }
        return plan.isQuantized(module) ? plan.config?.format : nil
    }

    /// Repacking reads the mapped file directly. Only a weight that stays canonical needs a copy.
    private func dense(_ tensor: Tensor, key: String, file: Tensor, on backend: any Backend) throws -> LinearWeight {
        if backend.device == .cpu, options.preparesWeights, case .prepared(let weight) = try backend.prepare(.dense(tensor)) {
            return .prepared(weight)
        }
        let mapped = checkpoint.isView(file, of: key) ? file : nil
        let resident = try host.resident(tensor, on: backend, unlessBackedBy: mapped) { checkpoint.dropPages(key) }
        return backend.device == .cpu ? .dense(resident) : try prepared(.dense(resident), on: backend)
    }

    func prepared(_ weight: LinearWeight, on backend: any Backend) throws -> LinearWeight {
        options.preparesWeights ? try backend.prepare(weight) : weight
    }
}
