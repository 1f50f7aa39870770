import NibbleCheckpoint
import NibbleCore
import NibbleModels
import NibbleQuantization

/// Mixtures of experts that a checkpoint holds quantized.
extension KeyMatching {
    /// Paths of the sets of experts of which the checkpoint holds each weight in a tensor of its own.
    var separateExperts: Set<String> {
        Set(expertSources.keys.compactMap { ExpertNames.set(of: $0.text) })
    }

    /// Routers and sets of experts that the checkpoint holds quantized.
    func storedMixtures(_ tree: ModuleTree) -> QuantizationPlan.StoredMixtures {
        var stored = QuantizationPlan.StoredMixtures()
        let names = ExpertNames(tree, prefix: "")
        for module in tree.modules {
            let isRouter = if case .router = module.node.kind { true } else { false }
            guard isRouter || module.isExperts else { continue }
            var floats: [String: Int] = [:]
            for parameter in module.node.parameters {
                let path = module.path(of: parameter.name)
                let weights =
                    sources[path].map { [($0, parameter.shape)] }
                    ?? names.weights(of: path, in: module.path)
                    .compactMap { weight in expertSources[weight.path].map { ($0, weight.shape) } }
                if weights.contains(where: \.0.isQuantized) { stored.modules.insert(module.path) }
                floats[path] = weights.filter { !$0.0.isQuantized }.reduce(0) { $0 + $1.1.count }
            }
            if stored.modules.contains(module.path) { stored.floatCounts.merge(floats.filter { $0.value > 0 }) { $1 } }
        }
        return stored
    }

    /// Checks that the experts of a set are stored alike. Those that a skip entry of the checkpoint's config names may be floats
    /// beside quantized ones.
    /// - Throws: ``LoadError/malformedQuantization(tensor:file:expected:found:)`` for the first that differs from most.
    func requireUniformExperts(_ config: BitsAndBytesConfig?, _ checkpoint: any Checkpoint) throws {
        let rules = SkipRules(config?.int8SkipModules ?? [])
        let sets = Dictionary(grouping: expertSources.sorted { $0.key < $1.key }) { ExpertNames.set(of: $0.key.text) ?? "" }
        for (_, weights) in sets.sorted(by: { $0.key < $1.key }) {
            let compared = weights.filter { path, source in
                let names = [path.text, source.key].map { String($0.dropLast(".weight".count)) }
                let isFloat = checkpoint.descriptor(source.key)?.dtype.isFloatingPoint == true && !source.isQuantized
                return !(isFloat && names.contains(where: rules.skips))
            }
            try KeyMatching.requireUniform(compared.map(\.value), checkpoint)
        }
    }

    private static func requireUniform(_ weights: [WeightSource], _ checkpoint: any Checkpoint) throws {
        guard weights.contains(where: \.isQuantized) else { return }
        let forms = weights.map { $0.storedForm(checkpoint) }
        let counts = Dictionary(grouping: forms) { $0 }.mapValues(\.count)
        guard counts.count > 1, let usual = counts.max(by: { ($0.value, $1.key) < ($1.value, $0.key) })?.key else { return }
        for (source, form) in zip(weights, forms) where form != usual {
            throw LoadError.malformedQuantization(
                tensor: source.key, file: checkpoint.descriptor(source.key)?.file.path ?? "the checkpoint",
                expected: "\(usual), as most experts beside it", found: form)
        }
    }
}

extension KeyMatching.WeightSource {
    /// How the weight is stored, in words, as far as the names and dtypes of its tensors tell.
    fileprivate func storedForm(_ checkpoint: any Checkpoint) -> String {
        if companions[QuantizedNames.rowScales] != nil { return "int8 codes" }
        for codebook in FourBitFormat.Codebook.allCases where companions[QuantizedNames.quantState(codebook)] != nil {
            return "\(codebook) codes"
        }
        if companions[QuantizedNames.absmax] != nil { return "4-bit codes without quant_state" }
        return checkpoint.descriptor(key).map { "\($0.dtype) without scales" } ?? "nothing"
    }
}
