public import Foundation

/// How a model is loaded. The load options of the command line set these fields.
public struct LoadConfiguration: Sendable {
    /// How linear layers are quantized while they are loaded. `nil`: as the checkpoint stores them.
    public var quantization: BitsAndBytesConfig?
    /// The dtype of everything that is not quantized. `nil`: as the config or the checkpoint says.
    public var dtype: DType?
    /// Where layers go.
    public var deviceMap: DeviceMapRequest = .auto
    /// Bytes that Nibble may take of each device. If any are given, devices that are not named are not used.
    public var maxMemory: [Device: MemoryLimit] = [:]
    /// Plans as transformers does; ``followsReference`` implies it.
    public var usesReferencePlanner = false
    /// Where weights that run from the disk are written, if the checkpoint does not hold them in the form in which they are used.
    /// `nil`: a temporary folder.
    public var offloadFolder: URL?
    /// The form in which keys and values are stored. `nil`: the load dtype.
    public var cacheQuantization: KeyValueQuantization?
    /// Tokens of the longest sequence that placement reserves caches for. `nil`: 512.
    public var context: Int?
    /// Sequences side by side that placement reserves caches for.
    public var batchSize = 1
    /// Overrides the compute dtype of a pre-quantized checkpoint.
    public var computeDType: DType?
    /// Overrides the outlier threshold of a pre-quantized checkpoint.
    public var int8Threshold: Double?
    /// Modules to leave unquantized in addition to the default list.
    public var addedSkipModules: [String] = []
    /// The form of the output embedding (head). `nil`: it is not quantized.
    public var headFormat: WeightFormat?
    /// Rounds activations to 8 bits before 4-bit products: faster on some CPUs, less exact.
    public var int8Activations = false
    /// Computes every row in one order whatever else is in its call, so that a text is the same alone and among others. Costs
    /// speed.
    public var batchInvariant = false
    /// Compatibility mode: turns off every deliberate difference from transformers and bitsandbytes.
    public var followsReference = false
    /// Loads `model.VARIANT.safetensors` instead of `model.safetensors`.
    public var variant: String?
    /// Of a repository or folder with GGUF files: the name of the one to load, or its quantization (`Q4_K_M`).
    package var ggufFile: String?
    /// Branch, tag or commit of a model on the Hub. `nil`: `main`.
    public var revision: String?
    /// The Hub's server, cache and token. `nil`: as the environment says, see ``HubConfiguration/standard``.
    public var hub: HubConfiguration?
    /// Called while files are downloaded.
    public var downloadProgress: (@Sendable (DownloadProgress) -> Void)?
    /// Called with messages for the user, such as that a cached copy is used.
    public var notice: (@Sendable (String) -> Void)?
    /// CPU threads. `nil`: one for each core.
    public var threads: Int?
    /// Whether backends may repack weights into layouts of their own. `false` keeps the canonical ones, for writing.
    package var preparesWeights = true
    /// Used instead of the machine's own backends, if not empty.
    package var backends: [any Backend] = []
    /// Called after each tensor that was placed.
    public var progress: (@Sendable (LoadProgress) -> Void)?

    /// A configuration in which nothing is chosen.
    public init() {}

    var loadOptions: LoaderOptions {
        var options = LoaderOptions()
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
