package import Foundation
import NibbleCore
package import NibbleDeviceMap
package import NibbleGeneration
package import NibbleLoading
package import NibbleModels

/// A model loaded from a checkpoint, ready to generate.
///
/// Sessions made from it are independent; the model itself never changes and may be used from several tasks.
package final class PretrainedModel: Sendable {
    /// The folder, or the GGUF file.
    package let folder: URL
    package let model: LanguageModel
    package let report: LoadReport
    /// The module tree, ties as the checkpoint has them.
    package let tree: ModuleTree
    package let plan: QuantizationPlan
    /// By module path; what `nibble quantize` writes.
    package let weights: ModelWeights
    package let deviceMap: DeviceMap
    /// What generation_config.json, or the config, says.
    package let generationConfig: GenerationConfig

    private init(_ source: ModelSource, _ loaded: ModelLoader.LoadedModel, deviceMap: DeviceMap) throws {
        folder = source.folder
        model = loaded.model
        report = loaded.report
        tree = loaded.tree
        plan = loaded.plan
        weights = loaded.weights
        self.deviceMap = deviceMap
        generationConfig =
            try ModelSource.isGGUF(folder)
            ? GenerationConfig(modelConfig: .object(source.config.values), source: folder.path)
            : GenerationConfig(modelFolder: folder)
    }

    /// Loads the model in `folder`, which may be a GGUF file, too.
    ///
    /// - Throws: `LoadError`, `ModelError`, `CheckpointError`, `QuantizationConfigError`, `DeviceMapError`, `BackendError`: each names the file and
    ///   what was expected and found.
    package static func load(folder: URL, _ configuration: LoadConfiguration = .init()) throws -> PretrainedModel {
        let source = try ModelSource(folder: folder)
        try configuration.quantization?.validate()
        let checkpoint = try source.checkpoint(variant: configuration.variant, dtype: configuration.dtype)
        let backends = try configuration.machine()
        var warnings = [String]()
        let request = try configuration.placementRequest(present: backends, warnings: &warnings)
        let loader = ModelLoader(source, options: configuration.loadOptions, backends: backends)
        var loaded = try loader.load(checkpoint, placement: request)
        loaded.report.warnings = warnings + loaded.report.warnings
        let map = loaded.report.placement?.deviceMap ?? .all(on: .cpu)
        return try PretrainedModel(source, loaded, deviceMap: map)
    }

    package var isEncoderDecoder: Bool { model.isEncoderDecoder }

    /// Bytes as transformers' `get_memory_footprint` counts them.
    package var memoryFootprint: Int { report.footprint }
}
