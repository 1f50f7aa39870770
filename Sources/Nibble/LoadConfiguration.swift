/// How a model is loaded. The load options of the command line set these fields.
///
/// The fields of ``LoaderOptions`` are fields of a configuration, too: `configuration.dtype = .bfloat16`.
@dynamicMemberLookup
public struct LoadConfiguration: Sendable {
    /// How weights are stored and computed with.
    package var loader = LoaderOptions()
    /// Where layers go.
    public var deviceMap: DeviceMapRequest = .auto
    /// Bytes that Nibble may take of each device. If any are given, devices that are not named are not used.
    public var maxMemory: [Device: MemoryLimit] = [:]
    /// Plans as transformers does; ``LoaderOptions/followsReference`` implies it.
    public var usesReferencePlanner = false
    /// Computes every row in one order whatever else is in its call, so that a text is the same alone and among others. Costs
    /// speed.
    public var batchInvariant = false
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
    /// Used instead of the machine's own backends, if not empty.
    package var backends: [any Backend] = []

    /// A configuration in which nothing is chosen.
    public init() {}

    /// A field of ``LoaderOptions``.
    public subscript<Value>(dynamicMember field: WritableKeyPath<LoaderOptions, Value>) -> Value {
        get { loader[keyPath: field] }
        set { loader[keyPath: field] = newValue }
    }
}
