import NibbleCheckpoint
import NibbleCore
import NibbleModels
import NibbleQuantization

/// The experts of a checkpoint that is written.
///
/// Experts that the source holds one by one are quantized one by one, as transformers 4 does. A fused parameter is quantized as
/// one 4-bit tensor, as bitsandbytes' `replace_parameter_4bit` does; bitsandbytes has no such form in 8 bits.
struct WrittenExperts {
    private let matched: MatchedCheckpoint
    /// Single experts' weights by the path of their set, in the order of their names.
    private let separate: [String: [KeyMatching.WeightSource]]

    init(_ matched: MatchedCheckpoint) {
        self.matched = matched
        let sources = matched.matching.expertSources.sorted { ByteText($0.value.key) < ByteText($1.value.key) }
        separate = Dictionary(grouping: sources) { ExpertNames.set(of: $0.key.text) ?? "" }.mapValues { $0.map(\.value) }
    }

    /// Paths of the sets of experts that a written checkpoint can hold quantized.
    static func quantizable(
        _ tree: ModuleTree, _ matching: KeyMatching, _ config: BitsAndBytesConfig?
    ) -> Set<String> {
        let separate = matching.separateExperts
        let sets = tree.modules.filter(\.isExperts).filter { module in
            if separate.contains(module.path) { return true }
            // Readers of a fused 4-bit tensor take its rows for those of the matrices.
            guard module.node.expertsLayout == .rows else { return false }
            guard let config, config.loadIn4Bit else { return false }
            return module.node.parameters.allSatisfy { $0.shape.count / max($0.shape[0], 1) % config.blockSize == 0 }
        }
        return Set(sets.map(\.path))
    }

    /// The tensors of a parameter of a set of experts. Those of single experts come with the set's first parameter.
    /// - Throws: `LoadError/nonFinite(tensor:file:index:)`, ``LoadError/malformedQuantization(tensor:file:expected:found:)``,
    ///   `CheckpointError`.
    func tensors(_ parameter: LocatedParameter, _ host: HostTensors) throws -> [(name: String, tensor: Tensor)] {
        let module = parameter.module
        if let source = matched.matching.sources[parameter.path] {
            let dtype = matched.tree.storedDType(of: parameter.path, loadDType: matched.dtype)
            return try tensors(source, named: matched.architecture.keys.fileName(parameter.path), of: module, dtype, host)
        }
        guard parameter.path == module.node.parameters.first.map({ module.path(of: $0.name) }) else { return [] }
        let biases = matched.matching.expertBiases.filter { ExpertNames.set(of: $0.key.text) == module.path }.map(\.value.key)
        return try (separate[module.path] ?? []).flatMap { source in
            try tensors(source, named: source.key, of: module, matched.dtype, host)
        }
            + biases.sorted().map { ($0, try host.cast(matched.checkpoint.tensor($0), to: matched.dtype)) }
    }

    private func tensors(
        _ source: KeyMatching.WeightSource, named name: String, of module: LocatedModule, _ dtype: DType, _ host: HostTensors
    ) throws -> [(name: String, tensor: Tensor)] {
        if source.isQuantized { return try copy(source, named: name) }
        let tensor = try host.cast(matched.checkpoint.tensor(source.key), to: dtype)
        defer { matched.checkpoint.dropPages(source.key) }
        guard matched.plan.isQuantized(module.path), !matched.storedMixtures.modules.contains(module.path),
            let config = matched.config
        else { return [(name: name, tensor: tensor)] }
        let flat = tensor.viewed(as: [
            tensor.count / max(tensor.shape[tensor.shape.rank - 1], 1), tensor.shape[tensor.shape.rank - 1],
        ])
        do {
            switch try matched.cpu.quantize(flat, to: config.format) {
            case .fourBit(let weight):
                return try QuantizedTensors.fourBit(weight, name: name, storage: config.quantStorage, shape: tensor.shape)
            case .int8(let weight): return QuantizedTensors.int8(weight, module: String(name.dropLast(".weight".count)))
            case .dense, .prepared: return [(name: name, tensor: tensor)]
            }
        } catch BackendError.nonFiniteWeight(let index) {
            let file = matched.checkpoint.descriptor(source.key)?.file.path ?? "the checkpoint"
            throw LoadError.nonFinite(tensor: source.key, file: file, index: index)
        }
    }

    /// A stored quantized weight and what describes it, as they are.
    private func copy(_ source: KeyMatching.WeightSource, named name: String) throws -> [(name: String, tensor: Tensor)] {
        let names = [source.key] + source.companions.sorted { $0.key < $1.key }.map(\.value)
        // A companion's name begins with the weight's, or for int8 with the module's.
        let stem = source.companions[QuantizedNames.rowScales] == nil ? "" : ".weight"
        let (old, new) = (source.key.dropLast(stem.count).count, String(name.dropLast(stem.count)))
        return try names.map { (name: new + String($0.dropFirst(old)), tensor: try matched.checkpoint.tensor($0)) }
    }

    // MARK: What readers need to know

    /// Names, in files, of routers that are not quantized. transformers 4 takes them for quantized linear layers unless a skip
    /// entry names them.
    var plainRouters: [String] {
        guard matched.plan.quantized.contains(where: { separate[$0] != nil }) else { return [] }
        return matched.tree.modules.compactMap { module in
            guard case .router = module.node.kind, !matched.plan.isQuantized(module.path) else { return nil }
            return String(matched.architecture.keys.fileName(module.path(of: "weight")).dropLast(".weight".count))
        }
    }

    /// Which libraries read the quantized experts.
    var warnings: [String] {
        let quantized = matched.tree.modules.filter { $0.isExperts && matched.plan.isQuantized($0.path) }.map(\.path)
        let forms = [
            (quantized.filter { separate[$0] != nil }, "quantized one by one, as transformers 4 writes and reads them"),
            (
                quantized.filter { separate[$0] == nil },
                "quantized in one tensor, as replace_parameter_4bit of bitsandbytes writes it"
            ),
        ]
        return forms.filter { !$0.0.isEmpty }.map { names, form in
            "\(LayerFolding.fold(names).joined(separator: ", ")): \(form). transformers 5 reads experts in floating point only; "
                + "--reference-behaviour writes them so"
        }
    }
}
