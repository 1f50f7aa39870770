package import Foundation
public import NibbleCore
public import NibbleDeviceMap
public import NibbleQuantization

/// What a ``ModelLoader`` is told of how to load a model, beside the placement.
package struct LoaderOptions: Sendable {
    /// `nil`: the dtype that the config or the checkpoint names ("auto").
    package var dtype: DType?
    package var quantization: BitsAndBytesConfig?
    /// Takes precedence over a pre-quantized checkpoint's own, unless ``followsReference`` is set.
    package var computeDType: DType?
    /// Takes precedence over a pre-quantized checkpoint's own, unless ``followsReference`` is set.
    package var int8Threshold: Double?
    /// Skip entries added to the default list or to the config's.
    package var addedSkipModules: [String] = []
    /// Behaves as transformers does wherever Nibble deliberately differs.
    package var followsReference = false
    /// Stores the output head in this format.
    package var headFormat: WeightFormat?
    /// Also quantizes the modules that the family keeps in float32 (T5 `wo`).
    package var quantizesFloat32Modules = false
    /// Allows 4-bit products with activations quantized to int8.
    package var int8Activations = false
    /// `false` keeps weights in their canonical layout (for writing them).
    package var preparesWeights = true
    /// The form in which keys and values are stored; `nil`: in the load dtype.
    package var cacheQuantization: KeyValueQuantization?
    /// Tokens of a sequence that placement counts caches for; `nil`: ``ModelMemory/defaultContext``.
    package var context: Int?
    /// Sequences side by side that placement counts caches for.
    package var batchSize = 1
    /// Folder for weights that stay on the disk in a form that the checkpoint does not hold. `nil`: a temporary folder.
    package var offloadFolder: URL?
    package var progress: (@Sendable (LoadProgress) -> Void)?

    package init() {}
}

extension LoaderOptions {
    /// Warnings about the user's skip entries that match no module.
    func skipWarnings(_ source: ModelSource, _ config: BitsAndBytesConfig?) -> [String] {
        guard config != nil else { return [] }
        let named = source.storedQuantization == nil ? quantization?.int8SkipModules ?? [] : []
        let paths = source.architecture.tree.modules.map(\.path)
        return (named + addedSkipModules).filter { entry in
            let rules = SkipRules([entry], wholeParts: !followsReference)
            return !paths.contains { !$0.isEmpty && rules.skips($0) }
        }.map { "the skip entry \"\($0)\" matches no module of the model" }
    }

    /// How quantized products are computed.
    func arithmetic(_ config: BitsAndBytesConfig?, dtype: DType) -> LinearArithmetic {
        // By default the activations set the precision. A bfloat16 model asks for bfloat16 products on every device.
        let compute = config?.computeDType ?? (followsReference ? .float32 : dtype == .bfloat16 ? .bfloat16 : nil)
        return LinearArithmetic(
            computeDType: compute, allowsHalfPrecision: compute == nil && dtype == .float16,
            outlierThreshold: Float(config?.int8Threshold ?? BitsAndBytesConfig.defaultThreshold),
            outlierScope: followsReference ? .call : .token, roundsActivationsToHalf: followsReference,
            allowsInt8Activations: int8Activations)
    }
}

/// The progress of a load.
public struct LoadProgress: Sendable {
    /// Bytes of the checkpoint that have been read.
    public var bytes: Int
    /// Bytes of the checkpoint in all.
    public var totalBytes: Int
    /// The parameter that was loaded last.
    public var tensor: String
}

/// What a load did.
public struct LoadReport: Sendable {
    /// The quantization config in effect: the checkpoint's, or the user's.
    public var quantization: BitsAndBytesConfig?
    /// The dtype of everything that is not quantized.
    public var dtype: DType = .float32
    /// Modules whose weights are quantized.
    public var quantizedModules: [String] = []
    /// Linear modules that stay unquantized.
    public var skippedModules: [String] = []
    /// Tensors of the checkpoint that the model does not use.
    public var unexpected: [String] = []
    /// What a user should know about the checkpoint or the options.
    public var warnings: [String] = []
    /// Bytes as `get_memory_footprint` counts them.
    package var footprint = 0
    /// Bytes of weights and scales as Nibble stores them, by device.
    public var residentBytes: [Device: Int] = [:]
    /// Bytes of the checkpoint's tensors.
    package var checkpointBytes = 0
    /// Wall time of the load.
    public var seconds = 0.0
    /// Where everything went, and what it takes of each device.
    public var placement: PlacementPlan?
}
