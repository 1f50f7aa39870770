package import NibbleCore
package import NibbleModels

extension MatchedAdapter {
    /// Whether the adapter changes more than what low-rank sums add to linear layers: embeddings, whole modules, rows of tables,
    /// biases of the base. It is then for all rows of a model or for none.
    package var changesBase: Bool { !baseChanges.isEmpty }

    /// What of the base it changes, by name.
    package var baseChanges: [String] {
        let embeddings = lowRanks.filter { $0.value.isEmbedding }.keys
        return (Array(replaced.keys) + Array(tokenRows.keys) + embeddings.map { $0 + ".weight" }).sorted()
    }

    /// What the adapter adds to the memory of parameters, by path. Tables that it changes are held a second time.
    func storedBytes(_ tree: ModuleTree, loadDType: DType) -> [String: Int] {
        var bytes: [String: Int] = [:]
        func add(_ path: String, _ count: Int) { bytes[path, default: 0] += count }
        for (path, update) in lowRanks where !update.isEmbedding {
            let vectors = [update.biasB, update.magnitude].compactMap { $0?.count }.reduce(0, +)
            add(path + ".weight", update.a.byteCount + update.b.byteCount + vectors * DType.float32.byteCount)
        }
        for (set, updates) in experts {
            for update in updates { add(set + ".down_proj", update.a.byteCount + update.b.byteCount) }
        }
        let tables = Set(tokenRows.keys).union(lowRanks.filter(\.value.isEmbedding).keys.map { $0 + ".weight" })
        for parameter in tree.parameters {
            let dtype = tree.storedDType(of: parameter.path, loadDType: loadDType)
            if let tensor = replaced[parameter.path] {
                add(parameter.path, tensor.count * dtype.byteCount)
            } else if tables.contains(parameter.path) {
                add(parameter.path, parameter.shape.count * dtype.byteCount)
            }
        }
        return bytes
    }

    /// The sums of linear layers, for a model that has the adapter's other changes.
    /// - Parameters:
    ///   - name: for messages.
    ///   - weights: the model's. DoRA's norms are taken over them.
    /// - Throws: `BackendError`, ``LoadError/wrongAdapter(file:place:expected:found:)``.
    package func sums(name: String, _ weights: ModelWeights, cpu: any Backend) throws -> LowRankAdapter {
        var layers: [String: LowRankFactors] = [:]
        let arithmetic = AdapterArithmetic(cpu)
        for (path, update) in lowRanks where !update.isEmbedding {
            guard let layer = weights.linears[path] else { continue }
            var factors = LowRankFactors(a: update.a, b: update.b, scale: Float(update.scale))
            factors.bias = update.biasB.map { bias in
                .host(bias.floats.map { $0 * Float(update.scale) }, .float32, bias.shape)
            }
            if let magnitude = update.magnitude {
                let weight = try weights.dense(layer, path)
                let sum = try arithmetic.sum(
                    weight, arithmetic.delta(update), scale: update.scale, magnitude: nil)
                let gains = AdapterArithmetic.magnitudeFactors(sum, magnitude, axis: 1)
                factors.gain = .host(gains, .float32, [gains.count])
            }
            layers[path] = factors
        }
        for (set, updates) in experts { layers.merge(try expertFactors(set, updates, weights)) { $1 } }
        return LowRankAdapter(name: name, layers: layers)
    }

    private func expertFactors(
        _ set: String, _ updates: [ExpertUpdate], _ weights: ModelWeights
    ) throws -> [String: LowRankFactors] {
        var layers: [String: LowRankFactors] = [:]
        for (index, expert) in (weights.experts[set] ?? []).enumerated() {
            let own = updates.filter { $0.expert == index }
            for layer in expert.gateUp.layers + [expert.down] {
                let name = String(layer.name.splitBytes(at: ".").last ?? "")
                let parts = own.compactMap { $0.factors(of: name, rows: layer.outFeatures) }
                if !parts.isEmpty { layers[layer.name] = LowRankFactors.joined(parts) }
            }
        }
        return layers
    }
}

extension MatchedAdapter.ExpertUpdate {
    /// The update of a layer of the expert, which may be a half of the update's projection or hold it as a half. `nil`: it does not
    /// concern the layer.
    fileprivate func factors(of name: String, rows: Int) -> LowRankFactors? {
        if let own = part(name, rows: rows) { return LowRankFactors(a: own.a, b: own.b, scale: Float(own.scale)) }
        guard name == "gate_up_proj", projection != "down_proj" else { return nil }
        let rank = a.shape[0]
        let whole = Tensor.host(.float32, [rows, rank])
        whole.mutableHostElements(Float.self).initialize(repeating: 0)
        let first = projection == "up_proj" ? rows - b.shape[0] : 0
        whole.rows(first..<first + b.shape[0]).mutableHostBytes.copyMemory(from: b.hostBytes)
        return LowRankFactors(a: a, b: whole, scale: Float(scale))
    }
}

extension LowRankFactors {
    /// Float32 factors of one layer, side by side along the rank. Scales are multiplied into B where they differ.
    fileprivate static func joined(_ parts: [LowRankFactors]) -> LowRankFactors {
        guard parts.count > 1 else { return parts[0] }
        let (rows, columns) = (parts[0].b.shape[0], parts[0].a.shape[1])
        let rank = parts.reduce(0) { $0 + $1.a.shape[0] }
        let (a, b) = (Tensor.host(.float32, [rank, columns]), Tensor.host(.float32, [rows, rank]))
        let target = b.mutableHostElements(Float.self)
        let isAlike = parts.allSatisfy { $0.scale == parts[0].scale }
        var first = 0
        for part in parts {
            let own = part.a.shape[0]
            a.rows(first..<first + own).mutableHostBytes.copyMemory(from: part.a.hostBytes)
            let source = part.b.hostElements(Float.self)
            for row in 0..<rows {
                for index in 0..<own {
                    target[row * rank + first + index] = source[row * own + index] * (isAlike ? 1 : part.scale)
                }
            }
            first += own
        }
        return LowRankFactors(a: a, b: b, scale: isAlike ? parts[0].scale : 1)
    }
}

extension ModelWeights {
    /// A layer's weight as float32 [N, K] on the host.
    fileprivate func dense(_ layer: Linear, _ path: String) throws -> Tensor {
        let backend = backend(path)
        let block = streams.keys.first { path.hasBytePrefix($0 + ".") || path.hasSameBytes(as: $0) }
        let stream = block.flatMap { streams[$0] }
        try stream?.acquire()
        defer { stream?.release() }
        return try read(try backend.dequantize(layer.weight, to: .float32), from: backend)
    }

    /// The tensor on the host.
    func read(_ tensor: Tensor, from backend: any Backend) throws -> Tensor {
        if tensor.device == .cpu { return tensor }
        let copy = Tensor.host(tensor.dtype, tensor.shape)
        try backend.read(tensor, into: copy.mutableHostBytes)
        return copy
    }
}

/// Applies what adapters change of a base beside the low-rank sums of its linear layers.
package struct BaseAdaptation {
    private let arithmetic: AdapterArithmetic
    /// With ties as the checkpoint has them.
    private let tree: ModuleTree
    private let dtype: DType
    private var weights: ModelWeights

    private init(_ weights: ModelWeights, _ tree: ModuleTree, dtype: DType, cpu: any Backend) {
        self.weights = weights
        self.tree = tree
        self.dtype = dtype
        arithmetic = AdapterArithmetic(cpu)
    }

    /// The weights of a model with the adapters' changes, in their order. What does not change is shared, but for the places of
    /// low-rank sums.
    /// - Throws: ``LoadError/unsupportedAdapter(file:field:found:remedy:)``, `BackendError`.
    package static func apply(
        _ adapters: [MatchedAdapter], to weights: ModelWeights, _ tree: ModuleTree, dtype: DType, cpu: any Backend
    ) throws -> ModelWeights {
        var adaptation = BaseAdaptation(weights, tree, dtype: dtype, cpu: cpu)
        for (path, layer) in weights.linears { adaptation.weights.linears[path] = layer.detached }
        adaptation.weights.experts = weights.experts.mapValues { experts in
            experts.map { Expert(gateUp: LinearGroup($0.gateUp.layers.map(\.detached)), down: $0.down.detached) }
        }
        for adapter in adapters { try adaptation.apply(adapter) }
        return adaptation.weights
    }

    private mutating func apply(_ adapter: MatchedAdapter) throws {
        let arithmetic = arithmetic
        for (path, tensor) in adapter.replaced.sorted(by: { $0.key < $1.key }) { try replace(path, tensor, adapter) }
        for (path, rows) in adapter.tokenRows {
            try changeTable(path, isShared: true, adapter) { try arithmetic.replacing(rows, in: $0) }
        }
        for (path, update) in adapter.lowRanks where update.isEmbedding {
            try changeTable(path + ".weight", isShared: false, adapter) { try arithmetic.merged($0, update) }
        }
    }

    // MARK: Whole parameters

    private mutating func replace(_ path: String, _ tensor: Tensor, _ adapter: MatchedAdapter) throws {
        guard let parameter = tree.parameters.first(where: { $0.path.hasSameBytes(as: path) }) else { return }
        let module = parameter.module
        let backend = weights.backend(module.path)
        if module.isExperts { throw refusal(path, adapter) }
        if module.isMatrix, let layer = weights.linears[module.path] {
            let isBias = path.hasByteSuffix(".bias")
            weights.linears[module.path] =
                try isBias
                ? layer.replacing(bias: placed(arithmetic.host.cast(tensor, to: .float32), on: backend))
                : layer.replacing(weight: weight(tensor, module, on: backend))
            return
        }
        var stored = try arithmetic.host.cast(tensor, to: .float32)
        switch module.node.kind {
        case .embedding where module.node.role != .relativeBias:
            stored = try arithmetic.host.cast(tensor, to: tree.storedDType(of: path, loadDType: dtype))
        case .norm(let norm) where norm.weightOffset != 0 && path.hasByteSuffix(".weight"):
            stored = .host(stored.floats.map { $0 + norm.weightOffset }, .float32, stored.shape)
        default: break
        }
        weights.tensors[path] = try placed(stored, on: backend)
    }

    /// A dense weight in the load dtype, [N, K].
    private func weight(_ tensor: Tensor, _ module: LocatedModule, on backend: any Backend) throws -> LinearWeight {
        let dtype = tree.storedDType(of: module.path(of: "weight"), loadDType: dtype)
        var tensor = try arithmetic.host.cast(tensor, to: dtype)
        if case .transposedLinear = module.node.kind { tensor = try arithmetic.host.transposed(tensor) }
        return try backend.prepare(.dense(placed(tensor, on: backend)))
    }

    private func placed(_ tensor: Tensor, on backend: any Backend) throws -> Tensor {
        let copy = try backend.allocate(tensor.dtype, tensor.shape)
        try backend.copy(tensor, to: copy)
        return copy
    }

    private func refusal(_ path: String, _ adapter: MatchedAdapter) -> LoadError {
        .unsupportedAdapter(
            file: adapter.file, field: "modules_to_save", found: path,
            remedy: "experts cannot be replaced while the model is loaded: merge the adapter with nibble merge")
    }

    // MARK: Tables

    /// - Parameter isShared: whether a head that is tied to the table changes with it.
    private mutating func changeTable(
        _ path: String, isShared: Bool, _ adapter: MatchedAdapter, _ change: (Tensor) throws -> Tensor
    ) throws {
        let sources = tree.tied.filter { $0.target == path || $0.source == path }.map(\.source) + [path]
        let tied = Set(tree.tied.filter { sources.contains($0.source) }.flatMap { [$0.target, $0.source] }).union([path])
        guard let table = weights.tensors[path] else { return }
        let module = String(path.dropLast(".weight".count))
        let backend = weights.backend(module)
        let changed = try placed(change(weights.read(table, from: backend)), on: backend)
        for name in tied where weights.tensors[name]?.address == table.address { weights.tensors[name] = changed }
        weights.tensors[path] = changed
        guard isShared, tied.contains(tree.outputEmbedding + ".weight"), let head = weights.linears[tree.outputEmbedding]
        else { return }
        guard case .dense = try head.weight.canonical() else {
            throw LoadError.unsupportedAdapter(
                file: adapter.file, field: "trainable_token_indices", found: path,
                remedy: "the tied head is quantized and cannot change with the table: load without --quantize-head")
        }
        let target = weights.backend(tree.outputEmbedding)
        let copy = target.device == backend.device ? changed : try placed(weights.read(changed, from: backend), on: target)
        weights.linears[tree.outputEmbedding] = head.replacing(weight: .dense(copy))
    }
}

extension Linear {
    /// The same layer with a place of its own for low-rank sums.
    fileprivate var detached: Linear { Linear(name: name, weight: weight, bias: bias, arithmetic: arithmetic) }

    fileprivate func replacing(weight: LinearWeight) -> Linear {
        Linear(name: name, weight: weight, bias: bias, arithmetic: arithmetic)
    }

    fileprivate func replacing(bias: Tensor) -> Linear {
        Linear(name: name, weight: weight, bias: bias, arithmetic: arithmetic)
    }
}
