package import Foundation
package import NibbleCore
package import NibbleDeviceMap
package import NibbleHub
package import NibbleLoading
package import NibbleQuantization

/// Everything that can be said about how a model is loaded. The command line's load options are these.
package struct LoadConfiguration: Sendable {
    package var quantization: BitsAndBytesConfig?
    /// `nil`: what the config or the checkpoint says ("auto").
    package var dtype: DType?
    package var deviceMap: DeviceMapRequest = .auto
    /// Only the devices named here exist for the plan.
    package var maxMemory: [Device: MemoryLimit] = [:]
    /// transformers' own planner; ``followsReference`` implies it.
    package var usesReferencePlanner = false
    /// Where weights on the disk are written that the checkpoint does not hold as they are used. `nil`: a temporary folder.
    package var offloadFolder: URL?
    /// Keys and values are stored in this form; `nil`: in the load dtype.
    package var cacheQuantization: KeyValueQuantization?
    /// Tokens a sequence may come to hold, as placement counts them. `nil`: ``ModelMemory/defaultContext``.
    package var context: Int?
    /// Sequences side by side, as placement counts them.
    package var batchSize = 1
    /// Beats a pre-quantized checkpoint's compute dtype.
    package var computeDType: DType?
    /// Beats a pre-quantized checkpoint's threshold.
    package var int8Threshold: Double?
    package var addedSkipModules: [String] = []
    /// Stores the output head quantized.
    package var headFormat: WeightFormat?
    package var int8Activations = false
    /// Turns off every deliberate difference from the reference.
    package var followsReference = false
    /// `model.VARIANT.safetensors`
    package var variant: String?
    /// Branch, tag or commit of a model on the Hub. `nil`: `main`.
    package var revision: String?
    /// Server, cache and token. `nil`: what the environment says.
    package var hub: HubConfiguration?
    /// Called while files are downloaded.
    package var downloadProgress: (@Sendable (DownloadProgress) -> Void)?
    /// Called with what a user should know about where the files come from.
    package var notice: (@Sendable (String) -> Void)?
    /// CPU threads; `nil` takes all cores.
    package var threads: Int?
    /// `false` keeps canonical layouts, for writing.
    package var preparesWeights = true
    /// In place of the machine's own.
    package var backends: [any Backend] = []
    package var progress: (@Sendable (LoadProgress) -> Void)?

    package init() {}

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
