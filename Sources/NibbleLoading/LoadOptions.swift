package import Foundation
public import NibbleCore
public import NibbleDeviceMap
public import NibbleQuantization

/// How a model is loaded.
package struct LoadOptions: Sendable {
    /// `nil`: the dtype that the config or the checkpoint names ("auto").
    package var dtype: DType?
    package var quantization: BitsAndBytesConfig?
    /// Beats a pre-quantized checkpoint's own, unless ``followsReference`` is set.
    package var computeDType: DType?
    /// Beats a pre-quantized checkpoint's own, unless ``followsReference`` is set.
    package var int8Threshold: Double?
    /// Skip entries added to the default list or to the config's.
    package var addedSkipModules: [String] = []
    /// Turns off everything in which Nibble deliberately differs from the reference.
    package var followsReference = false
    /// Stores the output head in this format.
    package var headFormat: WeightFormat?
    /// Quantizes the modules that the family keeps in float32, too (T5 `wo`).
    package var quantizesFloat32Modules = false
    /// Allows 4-bit products with activations quantized to int8.
    package var int8Activations = false
    /// `false` keeps weights in their canonical layout (for writing them).
    package var preparesWeights = true
    /// Keys and values are stored in this form; `nil`: in the load dtype.
    package var cacheQuantization: KeyValueQuantization?
    /// Tokens a sequence may come to hold, and sequences side by side, as placement counts them.
    package var context: Int?
    package var batchSize = 1
    /// Where weights on the disk are written that the checkpoint does not hold as they are used. `nil`: a temporary folder.
    package var offloadFolder: URL?
    package var progress: (@Sendable (LoadProgress) -> Void)?

    package init() {}
}

extension LoadOptions {
    /// How quantized products are computed.
    func arithmetic(_ config: BitsAndBytesConfig?, dtype: DType) -> LinearArithmetic {
        // Activations set the precision by default; a bf16 model asks for bf16 products wherever they run.
        let compute = config?.computeDType ?? (followsReference ? .float32 : dtype == .bfloat16 ? .bfloat16 : nil)
        return LinearArithmetic(
            computeDType: compute, allowsHalfPrecision: compute == nil && dtype == .float16,
            outlierThreshold: Float(config?.int8Threshold ?? BitsAndBytesConfig.defaultThreshold),
            outlierScope: followsReference ? .call : .token, roundsActivationsToHalf: followsReference,
            allowsInt8Activations: int8Activations)
    }
}

/// How far loading has come.
public struct LoadProgress: Sendable {
    /// Bytes of the checkpoint that have been read.
    public var bytes: Int
    /// Bytes of the checkpoint in all.
    public var totalBytes: Int
    /// The tensor that was just placed.
    public var tensor: String
}

/// What loading did.
public struct LoadReport: Sendable {
    /// The checkpoint's or the user's quantization, with everything filled in.
    public var quantization: BitsAndBytesConfig?
    /// The dtype of everything that is not quantized.
    public var dtype: DType = .float32
    /// Modules whose weights are quantized.
    public var quantizedModules: [String] = []
    /// Linear modules that stay unquantized.
    public var skippedModules: [String] = []
    /// Names in the checkpoint that mean nothing to the model.
    public var unexpected: [String] = []
    /// What a user should know about the checkpoint or the options.
    public var warnings: [String] = []
    /// Bytes as `get_memory_footprint` counts them.
    package var footprint = 0
    /// Bytes that weights and scales really take, by device.
    public var residentBytes: [Device: Int] = [:]
    /// Bytes of the checkpoint that were read.
    package var checkpointBytes = 0
    /// Wall time of the load.
    public var seconds = 0.0
    /// Where everything went, and what it takes.
    public var placement: PlacementPlan?
}
