public import Foundation
public import NibbleCore
public import NibbleDeviceMap
public import NibbleQuantization

/// How a checkpoint's weights are stored and computed with, and for how many tokens there has to be room.
public struct LoaderOptions: Sendable {
    /// How linear layers are quantized while they are loaded. `nil`: as the checkpoint stores them.
    public var quantization: BitsAndBytesConfig?
    /// The dtype of everything that is not quantized. `nil`: as the config or the checkpoint says.
    public var dtype: DType?
    /// Overrides the compute dtype of a pre-quantized checkpoint, unless ``followsReference`` is set.
    public var computeDType: DType?
    /// Overrides the outlier threshold of a pre-quantized checkpoint, unless ``followsReference`` is set.
    public var int8Threshold: Double?
    /// Modules to leave unquantized in addition to the default list, or to the checkpoint's.
    public var addedSkipModules: [String] = []
    /// Compatibility mode: turns off every deliberate difference from transformers and bitsandbytes.
    public var followsReference = false
    /// The form of the output embedding (head). `nil`: it is not quantized.
    public var headFormat: WeightFormat?
    /// Also quantizes the modules that the family keeps in float32 (T5 `wo`). What overflows there are activations in float16, not
    /// weights: load in bfloat16.
    public var quantizesFloat32Modules = false
    /// Rounds activations to 8 bits before 4-bit products: faster on some CPUs, less exact.
    public var int8Activations = false
    /// The form in which keys and values are stored. `nil`: the load dtype.
    public var cacheQuantization: KeyValueQuantization?
    /// Tokens of the longest sequence that placement reserves caches for. `nil`: 512.
    public var context: Int?
    /// Sequences side by side that placement reserves caches for.
    public var batchSize = 1
    /// Where weights that run from the disk are written, if the checkpoint does not hold them in the form in which they are used.
    /// `nil`: a temporary folder.
    public var offloadFolder: URL?
    /// Adapters that are added to the model, in this order.
    package var adapters: [AdapterReference] = []
    /// Called after each tensor that was placed.
    public var progress: (@Sendable (LoadProgress) -> Void)?
    /// Whether backends may repack weights into layouts of their own. `false` keeps the canonical ones, for writing.
    package var preparesWeights = true

    package init() {}
}

extension LoaderOptions {
    /// The largest ``context``: backends hold positions as 32-bit numbers.
    package static let maximumContext = Int(Int32.max)
    /// The largest ``batchSize``.
    package static let maximumBatchSize = 1 << 16
    /// The most tokens of all sequences together.
    private static let maximumTokens = 1 << 36

    /// Keeps the arithmetic of placement within 64 bits.
    /// - Throws: ``LoadError/impossibleRoom(field:expected:found:)``
    func checkRoom() throws {
        func check(_ field: String, _ value: Int, _ limit: Int) throws {
            guard !(1...limit ~= value) else { return }
            throw LoadError.impossibleRoom(field: field, expected: "from 1 to \(limit)", found: value)
        }
        try check("batch_size", batchSize, LoaderOptions.maximumBatchSize)
        try check("context", context ?? 1, min(LoaderOptions.maximumContext, LoaderOptions.maximumTokens / batchSize))
    }

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
