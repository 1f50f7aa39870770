package import NibbleCore
package import NibbleModels
import NibbleQuantization

/// What makes models with adapters of one base.
package struct AdaptedModelMaker: Sendable {
    package let source: ModelSource
    package let base: LanguageModel
    package let weights: ModelWeights
    /// With ties as the checkpoint has them.
    package let tree: ModuleTree
    package let dtype: DType
    package let cpu: any Backend

    package init(
        _ source: ModelSource, base: LanguageModel, weights: ModelWeights, tree: ModuleTree, dtype: DType, cpu: any Backend
    ) {
        self.source = source
        self.base = base
        self.weights = weights
        self.tree = tree
        self.dtype = dtype
        self.cpu = cpu
    }

    /// - Throws: ``LoadError``, `CheckpointError`, `JSONError`.
    package func adapter(_ file: AdapterFile) throws -> MatchedAdapter {
        try MatchedAdapter(file, source.architecture, tree: tree)
    }

    /// The model with what the adapters change of the base beside low-rank sums; the base itself where they change nothing.
    /// - Throws: ``LoadError``, `ModelError`, `BackendError`.
    package func model(_ adapters: [MatchedAdapter]) throws -> (model: LanguageModel, weights: ModelWeights) {
        let changing = adapters.filter(\.changesBase)
        guard !changing.isEmpty else { return (base, weights) }
        let adapted = try BaseAdaptation.apply(changing, to: weights, tree, dtype: dtype, cpu: cpu)
        var architecture = source.architecture
        if let size = changing.compactMap(\.vocabularySize).last {
            var values = source.config.values
            values["vocab_size"] = .int(size)
            architecture = try source.replacingConfig(values).architecture
        }
        return (try LanguageModel(architecture, adapted, options: base.options), adapted)
    }
}
