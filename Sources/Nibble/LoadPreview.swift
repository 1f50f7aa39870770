package import Foundation
package import NibbleCore
package import NibbleDeviceMap
import NibbleLoading
import NibbleModels
package import NibbleQuantization

/// What a load would put where. Only `config.json` is read, no weight.
package struct LoadPreview: Sendable {
    package let placement: PlacementPlan
    /// The dtype the model would be loaded in.
    package let dtype: DType
    package let quantization: BitsAndBytesConfig?
    /// Bytes as transformers' `get_memory_footprint` counts them.
    package let footprint: Int
    /// Tokens of a sequence that caches are counted for.
    package let context: Int
    /// Sequences that caches are counted for.
    package let batchSize: Int
    package let estimate: MemoryEstimate
    package let warnings: [String]

    /// Plans the model in `folder`, of which only `config.json` need be present. Devices named in
    /// ``LoadConfiguration/maxMemory`` are taken as present.
    /// - Throws: `DeviceMapError`, `MemoryLimitError`, `LoadError`, `ModelError`, `QuantizationConfigError`.
    package init(folder: URL, _ configuration: LoadConfiguration) throws {
        let source = try ModelSource(folder: folder)
        try configuration.quantization?.validate()
        var warnings = [String]()
        let request = try configuration.placementRequest(present: nil, warnings: &warnings)
        let plan = try ModelLoader.plan(source, options: configuration.loadOptions, request)
        placement = plan.placement
        dtype = plan.dtype
        quantization = plan.config
        footprint = plan.footprint
        context = plan.memory.context
        batchSize = plan.memory.batch
        estimate = MemoryEstimate(source.architecture.tree)
        self.warnings = warnings + plan.warnings
    }
}
