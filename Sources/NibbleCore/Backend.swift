/// A device that can hold weights and run the operations a transformer needs, at the size that is fast.
///
/// Operations enqueue: they may return before the work is done, in order with everything enqueued before on the same
/// backend. Only ``read(_:into:)`` and ``synchronize()`` wait. Operations allocate nothing on the host and only from
/// workspace that ``reserve(_:)`` announced.
///
/// Shapes are checked where models are built; a wrong shape here is a programmer's error and may trap. What depends on the
/// device (memory, a failing launch) is thrown as ``BackendError``.
public protocol Backend: AnyObject, Sendable {
    var device: Device { get }
    /// For `doctor` and reports: instruction set or card, threads, driver.
    var summary: String { get }

    /// Bytes this device can give now, as its driver or system tells; `nil` where nobody says.
    var availableBytes: Int? { get }

    /// The dtype activations have when a model is loaded in `loadDType`. The CPU answers float32.
    func activationDType(loadDType: DType) -> DType

    // MARK: Memory

    /// Uninitialised memory on this device.
    /// - Throws: ``BackendError/outOfMemory(device:requested:available:)``
    func allocate(_ dtype: DType, _ shape: Shape) throws -> Tensor
    /// Enqueues a copy of equal byte counts. Either side may be a host tensor; source and destination may lie on two
    /// devices, one of which is this one.
    func copy(_ source: Tensor, to destination: Tensor) throws
    /// Enqueues `destination = convert(source)`; equal element counts, float dtypes, both on this device.
    func convert(_ source: Tensor, to destination: Tensor) throws
    /// Waits for everything enqueued, then copies to the host.
    func read(_ source: Tensor, into destination: UnsafeMutableRawBufferPointer) throws
    func synchronize() throws
    /// Announces the largest call to come, so that workspace is allocated once.
    func reserve(_ workspace: WorkspaceRequest) throws

    // MARK: Weights

    /// Quantizes a float weight [N, K] (host or this device) into canonical bytes on this device (specification: the
    /// bitsandbytes formats; CUDA's results are canonical).
    /// - Throws: ``BackendError/nonFiniteWeight(index:)``
    func quantize(_ source: Tensor, to format: WeightFormat) throws -> LinearWeight
    /// The weight as a float tensor [N, K] on this device.
    func dequantize(_ weight: LinearWeight, to dtype: DType) throws -> Tensor
    /// Repacks a canonical weight on this device into the layout its kernels like best. May return it unchanged.
    func prepare(_ weight: LinearWeight) throws -> LinearWeight

    // MARK: Operations

    /// [T] → [T, E]
    func embed(_ call: EmbeddingCall, _ batch: BatchIndices, into output: Tensor) throws
    /// output = norm(input), plus `residual` where given. [T, E]; `output` may be `input` or `residual`.
    func normalize(_ input: Tensor, _ norm: Norm, residual: Tensor?, into output: Tensor) throws
    /// [T, K] → [T, ΣN]; `output` may be float32 whatever the activation dtype (logits, router).
    func linear(_ input: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor) throws
    /// `linear` of norm(input), said together so that a backend can save a pass over memory. `scratch` [T, K], in the input's
    /// dtype, may be overwritten.
    func linear(
        _ input: Tensor, after norm: Norm, scratch: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor)
        throws
    func rotateAndStore(_ call: RotateAndStoreCall, _ batch: BatchIndices) throws
    /// → [T, H·D]
    func attend(_ call: AttentionCall, _ batch: BatchIndices, into output: Tensor) throws
    /// [T, 2F] → [T, F]: activation(first half) ⊙ second half.
    func gate(_ input: Tensor, _ activation: Activation, into output: Tensor) throws
    func experts(_ input: Tensor, _ call: ExpertsCall, into output: Tensor) throws
    /// output = a + b × scale, element by element; `output` may be `a`.
    func add(_ a: Tensor, _ b: Tensor, scale: Float, into output: Tensor) throws
    /// output[i] = input[indices[i]]: rows of [T, E]; indices int32 [n].
    func gatherRows(_ input: Tensor, _ indices: Tensor, into output: Tensor) throws
    /// Copies whole cache blocks: `pairs` int32 [n, 2] of (from, to), for keys and values of `cache`.
    func copyBlocks(_ cache: KeyValueCache, pairs: Tensor) throws

    // MARK: Selection

    /// One token id per row of float32 logits [R, V] into int32 [R]. Row r draws random number `counters[r]` (int32 [R]) of
    /// stream `parameters.firstStream + r`, see ``RandomStream``.
    func select(_ logits: Tensor, _ parameters: SamplingParameters, counters: Tensor, into tokens: Tensor) throws
    /// Prepares the next decode step on the device: for each row r, `batch.tokens[r] = tokens[r]`, positions, lengths and
    /// counters grow by one. Only for batches of one token a row.
    func advance(_ batch: BatchIndices, tokens: Tensor, counters: Tensor) throws

    /// Records what `body` enqueues for later replay, or returns `nil` where the device has no graphs.
    func capture(_ body: () throws -> Void) throws -> (any CapturedGraph)?
}

/// A recorded sequence of operations over fixed buffers.
public protocol CapturedGraph: AnyObject {
    func launch() throws
}

extension Backend {
    public var availableBytes: Int? { nil }
    public func capture(_ body: () throws -> Void) throws -> (any CapturedGraph)? { nil }
    public func reserve(_ workspace: WorkspaceRequest) throws {}

    public func linear(
        _ input: Tensor, after norm: Norm, scratch: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor
    ) throws {
        try normalize(input, norm, residual: nil, into: scratch)
        try linear(scratch, group, epilogue: epilogue, into: output)
    }
}

/// Copies between the memories of two backends, by the one that can: a GPU reaches host memory, not the other way round.
/// - Precondition: equal byte counts.
public func transfer(
    _ source: Tensor, from origin: any Backend, to destination: Tensor, on target: any Backend
) throws {
    try (origin.device == .cpu ? target : origin).copy(source, to: destination)
}

/// The largest sizes a session will ask of a backend.
public struct WorkspaceRequest: Sendable {
    /// T
    public var tokens: Int
    /// R
    public var rows: Int
    /// Keys a row can hold.
    public var context: Int
    /// The widest K and the widest ΣN of any linear call.
    public var inFeatures: Int
    public var outFeatures: Int
    /// H and D of attention.
    public var heads: Int
    public var headSize: Int
    public var vocabulary: Int

    public init(
        tokens: Int, rows: Int, context: Int, inFeatures: Int, outFeatures: Int, heads: Int, headSize: Int, vocabulary: Int
    ) {
        self.tokens = tokens
        self.rows = rows
        self.context = context
        self.inFeatures = inFeatures
        self.outFeatures = outFeatures
        self.heads = heads
        self.headSize = headSize
        self.vocabulary = vocabulary
    }
}

public enum BackendError: Error, Sendable, Equatable {
    case outOfMemory(device: Device, requested: Int, available: Int?)
    case nonFiniteWeight(index: Int)
    case unsupported(device: Device, operation: String, reason: String)
    case deviceFailure(device: Device, call: String, message: String)
}

extension BackendError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .outOfMemory(let device, let requested, let available):
            "\(device) cannot give \(requested) bytes" + (available.map { ": \($0) are free" } ?? "")
        case .nonFiniteWeight(let index):
            "the weight holds NaN or infinity (first at element \(index)) and cannot be quantized"
        case .unsupported(let device, let operation, let reason):
            "\(device) cannot run \(operation): \(reason)"
        case .deviceFailure(let device, let call, let message):
            "\(call) failed on \(device): \(message)"
        }
    }
}
