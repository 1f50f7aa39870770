public import Foundation
public import NibbleCore
public import NibbleDeviceMap
public import NibbleHub
public import NibbleLoading
public import NibbleQuantization

/// Everything that can be said about how a model is loaded. The command line's load options are these.
public struct LoadConfiguration: Sendable {
    /// How linear layers are quantized while they are loaded. `nil`: as the checkpoint stores them.
    public var quantization: BitsAndBytesConfig?
    /// `nil`: what the config or the checkpoint says ("auto").
    public var dtype: DType?
    /// Where layers go.
    public var deviceMap: DeviceMapRequest = .auto
    /// Only the devices named here exist for the plan.
    public var maxMemory: [Device: MemoryLimit] = [:]
    /// transformers' own planner; ``followsReference`` implies it.
    public var usesReferencePlanner = false
    /// Where weights on the disk are written that the checkpoint does not hold as they are used. `nil`: a temporary folder.
    public var offloadFolder: URL?
    /// Keys and values are stored in this form; `nil`: in the load dtype.
    public var cacheQuantization: KeyValueQuantization?
    /// Tokens of the longest sequence that placement reserves caches for. `nil`: 512.
    public var context: Int?
    /// Sequences side by side that placement reserves caches for.
    public var batchSize = 1
    /// Beats a pre-quantized checkpoint's compute dtype.
    public var computeDType: DType?
    /// Beats a pre-quantized checkpoint's threshold.
    public var int8Threshold: Double?
    /// Modules to leave unquantized in addition to the default list.
    public var addedSkipModules: [String] = []
    /// Stores the output head quantized.
    public var headFormat: WeightFormat?
    /// Rounds activations to 8 bits before 4-bit products: faster on some CPUs, less exact.
    public var int8Activations = false
    /// Turns off every deliberate difference from the reference.
    public var followsReference = false
    /// `model.VARIANT.safetensors`
    public var variant: String?
    /// Branch, tag or commit of a model on the Hub. `nil`: `main`.
    public var revision: String?
    /// Server, cache and token. `nil`: what the environment says.
    public var hub: HubConfiguration?
    /// Called while files are downloaded.
    public var downloadProgress: (@Sendable (DownloadProgress) -> Void)?
    /// Called with what a user should know about where the files come from.
    public var notice: (@Sendable (String) -> Void)?
    /// CPU threads; `nil` takes all cores.
    public var threads: Int?
    /// `false` keeps canonical layouts, for writing.
    package var preparesWeights = true
    /// In place of the machine's own.
    package var backends: [any Backend] = []
    /// Called after each tensor that was placed.
    public var progress: (@Sendable (LoadProgress) -> Void)?

    /// A configuration in which nothing is chosen.
    public init() {}

    var loadOptions: LoadOptions {
        var options = LoadOptions()
        options.dtype = dtype
        options.quantization = quantization
        options.computeDType = computeDType
        options.int8Threshold = int8Threshold
        options.addedSkipModules = addedSkipModules
        options.followsReference = followsReference
        options.headFormat = headFormat
        options.int8Activations = int8Activations
        options.preparesWeights = preparesWeights
        options.cacheQuantization = cacheQuantization
        options.context = context
        options.batchSize = batchSize
        options.offloadFolder = offloadFolder
        options.progress = progress
        return options
    }
}
