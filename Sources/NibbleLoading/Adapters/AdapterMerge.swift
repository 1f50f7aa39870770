import NibbleCheckpoint
import NibbleCore
import NibbleModels

/// Merges adapters, one after the other, into the floating-point tensors of a checkpoint.
struct AdapterMerge {
    private let matched: MatchedCheckpoint
    private let adapters: [MatchedAdapter]
    private let arithmetic: AdapterArithmetic
    /// Whether a module's weight is left alone, because it is merged in its quantized form.
    private let isQuantized: (String) -> Bool

    init(
        _ matched: MatchedCheckpoint, _ adapters: [MatchedAdapter],
        except isQuantized: @escaping (String) -> Bool = { _ in false }
    ) {
        self.matched = matched
        self.adapters = adapters
        self.isQuantized = isQuantized
        arithmetic = AdapterArithmetic(matched.cpu)
    }

    /// What the adapters do to one parameter, in their order.
    enum Change: Sendable {
        case replace(Tensor)
        case lowRank(MatchedAdapter.LowRankUpdate)
        case bias(Tensor, scale: Double)
        case rows(MatchedAdapter.TokenRows)

        var isReplacement: Bool { if case .replace = self { true } else { false } }
    }

    struct Result {
        var checkpoint: MergedCheckpoint
        /// Tied pairs that the merge leaves tied.
        var tied: [(target: String, source: String)]
        var vocabularySize: Int?
    }

    /// - Throws: ``LoadError/unmergeable(_:reason:remedy:)``, ``LoadError/wrongAdapter(file:place:expected:found:)``.
    func merged() throws -> Result {
        var changes = try changes()
        let tied = settleTies(&changes)
        var tensors: [ByteText: MergedCheckpoint.ChangedTensor] = [:]
        for parameter in matched.tree.parameters {
            if parameter.module.isExperts {
                try addExperts(parameter, &tensors)
                continue
            }
            guard let list = changes[parameter.path], let key = key(of: parameter.path) else { continue }
            let isOwn = isTensor(key, of: parameter.path)
            // What stays tied is held once, unless the file holds it twice.
            if isOwn ? list.isEmpty : tied.contains(where: { $0.target == parameter.path }) { continue }
            let name = isOwn ? key : newName(parameter.path)
            tensors[ByteText(name)] = try tensor(parameter, key, list)
        }
        return Result(
            checkpoint: MergedCheckpoint(matched.checkpoint, tensors), tied: tied,
            vocabularySize: adapters.compactMap(\.vocabularySize).last)
    }

    // MARK: What changes

    private func changes() throws -> [String: [Change]] {
        var changes: [String: [Change]] = [:]
        func add(_ path: String, _ change: Change) { changes[path, default: []].append(change) }
        for adapter in adapters {
            for (path, tensor) in adapter.replaced { add(path, .replace(tensor)) }
            for (path, update) in adapter.lowRanks {
                guard let module = matched.tree.module(at: path) else { continue }
                if !isQuantized(path) { add(path + ".weight", .lowRank(update)) }
                guard let bias = update.biasB else { continue }
                guard module.node.parameters.contains(where: { $0.name == "bias" }) else {
                    throw LoadError.unmergeable(
                        path, reason: "the adapter has a bias (lora_bias) and the base's layer has none",
                        remedy: "Load the base with --adapter instead")
                }
                // peft adds it to a quantized layer without the adapter's scale.
                add(path + ".bias", .bias(bias, scale: isQuantized(path) ? 1 : update.scale))
            }
            for (path, rows) in adapter.tokenRows { add(path, .rows(rows)) }
        }
        return changes
    }

    /// What changes one of several tied parameters changes all of them, unless one is replaced: then they are tied no longer.
    private func settleTies(_ changes: inout [String: [Change]]) -> [(target: String, source: String)] {
        var groups: [String: [String]] = [:]
        for pair in matched.tree.tied { groups[pair.source, default: [pair.source]].append(pair.target) }
        var untied = Set<String>()
        for (source, members) in groups {
            let own = members.flatMap { changes[$0] ?? [] }
            guard !own.isEmpty else { continue }
            if own.contains(where: \.isReplacement) {
                guard !isReplacedAlike(members, changes) else { continue }
                for member in members where changes[member] == nil { changes[member] = [] }
                untied.formUnion(members.filter { !$0.hasSameBytes(as: source) })
            } else {
                for member in members { changes[member] = own }
            }
        }
        return matched.tree.tied.filter { !untied.contains($0.target) }
    }

    private func isReplacedAlike(_ members: [String], _ changes: [String: [Change]]) -> Bool {
        let tensors = members.map { member -> Tensor? in
            guard let list = changes[member], list.count == 1, case .replace(let tensor) = list[0] else { return nil }
            return tensor
        }
        guard let first = tensors[0] else { return false }
        return tensors.allSatisfy { tensor in
            guard let tensor, tensor.dtype == first.dtype, tensor.shape == first.shape else { return false }
            return tensor.hostBytes.elementsEqual(first.hostBytes)
        }
    }

    // MARK: Names

    /// The tensor of the file that holds a parameter, or one that it is tied to.
    private func key(of parameter: String) -> String? {
        if let source = matched.matching.sources[parameter] { return source.key }
        let source = matched.tree.tied.first { $0.target.hasSameBytes(as: parameter) }?.source
        return source.flatMap { matched.matching.sources[$0]?.key }
    }

    /// Whether the file's tensor `key` is the parameter itself, not one that it is tied to.
    private func isTensor(_ key: String, of parameter: String) -> Bool {
        matched.architecture.keys.parameter(for: key) { $0.hasSameBytes(as: parameter) } != nil
    }

    /// The name of a tensor that the file does not hold, as it names others.
    private func newName(_ parameter: String) -> String {
        let name = matched.architecture.keys.fileName(parameter)
        let isNested = matched.checkpoint.names.contains { $0.hasBytePrefix("language_model.model.") }
        return isNested ? "language_model." + name : name
    }

    // MARK: Tensors

    private func tensor(
        _ parameter: LocatedParameter, _ key: String, _ changes: [Change]
    ) throws -> MergedCheckpoint.ChangedTensor {
        let dtype = matched.tree.storedDType(of: parameter.path, loadDType: matched.dtype)
        let isTransposed = if case .transposedLinear = parameter.module.node.kind { true } else { false }
        var shape = parameter.shape
        for case .replace(let tensor) in changes { shape = tensor.shape }
        if matched.matching.sources[parameter.path]?.isQuantized == true, parameter.path.hasByteSuffix(".weight") {
            throw LoadError.unmergeable(
                parameter.module.path, reason: "its weight is quantized",
                remedy: "Merge into the 16-bit base, or into the quantized weights with --reference-behaviour")
        }
        let (checkpoint, arithmetic) = (matched.checkpoint, arithmetic)
        return MergedCheckpoint.ChangedTensor(dtype: dtype, shape: shape, origin: key) {
            var tensor = try arithmetic.host.cast(checkpoint.tensor(key), to: dtype)
            for change in changes {
                switch change {
                case .replace(let replacement): tensor = try arithmetic.host.cast(replacement, to: dtype)
                case .bias(let bias, let scale): tensor = try arithmetic.merged(bias: tensor, bias, scale: scale)
                case .rows(let rows): tensor = try arithmetic.replacing(rows, in: tensor)
                case .lowRank(let update):
                    let weight = isTransposed ? try arithmetic.host.transposed(tensor) : tensor
                    let sum = try arithmetic.merged(weight, update)
                    tensor = isTransposed ? try arithmetic.host.transposed(sum) : sum
                }
            }
            return tensor
        }
    }

    // MARK: Experts

    /// The tensors of a parameter of a set of experts, fused or one for each expert.
    private func addExperts(
        _ parameter: LocatedParameter, _ tensors: inout [ByteText: MergedCheckpoint.ChangedTensor]
    ) throws {
        let set = parameter.module.path
        let updates = adapters.flatMap { $0.experts[set] ?? [] }.filter { update in
            parameter.path.hasByteSuffix("down_proj") == (update.projection == "down_proj")
        }
        guard !updates.isEmpty else { return }
        let dtype = matched.tree.storedDType(of: parameter.path, loadDType: matched.dtype)
        if let source = matched.matching.sources[parameter.path] {
            try requireFloats(source, set)
            tensors[ByteText(source.key)] = fused(parameter, source.key, dtype, updates)
            return
        }
        for (path, source) in matched.matching.expertSources {
            let words = path.text.splitBytes(at: ".").suffix(3).map(String.init)
            guard ExpertNames.set(of: path.text) == set, let expert = Int(words[0]),
                let shape = matched.matching.expertShapes[path]
            else { continue }
            let own = updates.filter { $0.expert == expert }.compactMap { $0.part(words[1], rows: shape[0]) }
            guard !own.isEmpty else { continue }
            try requireFloats(source, set)
            let (checkpoint, arithmetic) = (matched.checkpoint, arithmetic)
            tensors[ByteText(source.key)] = MergedCheckpoint.ChangedTensor(dtype: dtype, shape: shape, origin: source.key) {
                try own.reduce(arithmetic.host.cast(checkpoint.tensor(source.key), to: dtype)) {
                    try arithmetic.merged($0, $1)
                }
            }
        }
    }

    private func requireFloats(_ source: KeyMatching.WeightSource, _ set: String) throws {
        guard source.isQuantized else { return }
        throw LoadError.unmergeable(
            set, reason: "its experts are quantized", remedy: "Merge into the 16-bit base")
    }

    private func fused(
        _ parameter: LocatedParameter, _ key: String, _ dtype: DType, _ updates: [MatchedAdapter.ExpertUpdate]
    ) -> MergedCheckpoint.ChangedTensor {
        let (checkpoint, arithmetic) = (matched.checkpoint, arithmetic)
        let shape = parameter.shape
        return MergedCheckpoint.ChangedTensor(dtype: dtype, shape: shape, origin: key) {
            let result = try arithmetic.copy(arithmetic.host.cast(checkpoint.tensor(key), to: dtype))
            for update in updates {
                let matrix = result.rows(update.expert..<update.expert + 1).viewed(as: [shape[1], shape[2]])
                // The last rows: all of them where there is no gate.
                let first = update.projection == "up_proj" ? shape[1] - update.b.shape[0] : 0
                let rows = matrix.rows(first..<first + update.b.shape[0])
                rows.mutableHostBytes.copyMemory(from: try arithmetic.merged(rows, update).hostBytes)
            }
            return result
        }
    }
}

extension MatchedAdapter.ExpertUpdate {
    /// The update of one matrix [rows, K] of the expert: of a fused one, its half. `nil`: it does not concern the matrix.
    func part(_ name: String, rows: Int) -> MatchedAdapter.ExpertUpdate? {
        if projection.hasSameBytes(as: name) { return self }
        guard projection == "gate_up_proj", name != "down_proj" else { return nil }
        let first = name == "up_proj" ? rows : 0
        return MatchedAdapter.ExpertUpdate(
            expert: expert, projection: name, a: a, b: b.rows(first..<first + rows), scale: scale)
    }
}
