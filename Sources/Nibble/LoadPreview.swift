public import Foundation
import NibbleLoading
import NibbleModels

/// What a load would put where. No weight is read: `config.json` tells, and of quantized mixtures of experts the names of tensors, if
/// weight files are there.
public struct LoadPreview: Sendable {
    /// Devices, module ranges and the memory they take.
    public let placement: PlacementPlan
    /// The dtype the model would be loaded in.
    public let dtype: DType
    /// The quantization in effect: the one asked for, or the checkpoint's own.
    public let quantization: BitsAndBytesConfig?
    /// Bytes as transformers' `get_memory_footprint` counts them.
    public let footprint: Int
    /// Tokens of a sequence that caches are counted for.
    public let context: Int
    /// Sequences that caches are counted for.
    public let batchSize: Int
    package let estimate: MemoryEstimate
    /// What a user should know about the request.
    public let warnings: [String]

    /// Plans the model in `folder`, of which only `config.json` need be present. Devices named in
    /// ``LoadConfiguration/maxMemory`` are taken as present.
    /// - Throws: `DeviceMapError`, `MemoryLimitError`, `LoadError`, `ModelError`, `QuantizationConfigError`.
    public init(folder: URL, _ configuration: LoadConfiguration) throws {
        let source = try ModelSource(folder: folder)
        try configuration.quantization?.validate()
        var warnings = [String]()
        let request = try configuration.placementRequest(present: nil, warnings: &warnings)
        let plan = try ModelLoader.plan(source, options: configuration.loader, request)
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
