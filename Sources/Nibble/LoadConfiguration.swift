public import NibbleCore
public import NibbleDeviceMap
public import NibbleLoading
public import NibbleQuantization

/// Everything that can be said about how a model is loaded. The command line's load options are these.
public struct LoadConfiguration: Sendable {
    public var quantization: BitsAndBytesConfig?
    /// `nil`: what the config or the checkpoint says ("auto").
    public var dtype: DType?
    public var deviceMap: DeviceMapRequest = .auto
    /// Only the devices named here exist for the plan.
    public var maxMemory: [Device: MemoryLimit] = [:]
    /// Beats a pre-quantized checkpoint's compute dtype.
    public var computeDType: DType?
    /// Beats a pre-quantized checkpoint's threshold.
    public var int8Threshold: Double?
    public var addedSkipModules: [String] = []
    /// Stores the output head quantized.
    public var headFormat: WeightFormat?
    public var int8Activations = false
    /// Turns off every deliberate difference from the reference.
    public var followsReference = false
    /// `model.VARIANT.safetensors`
    public var variant: String?
    /// CPU threads; `nil` takes all cores.
    public var threads: Int?
    /// `false` keeps canonical layouts, for writing.
    public var preparesWeights = true
    public var progress: (@Sendable (LoadProgress) -> Void)?

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
        options.progress = progress
        return options
    }
}
