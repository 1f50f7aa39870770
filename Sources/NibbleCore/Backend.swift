/// A device that can hold weights and run the operations a transformer needs, at the size that is fast.
///
/// Operations enqueue: they may return before the work is done, in order with everything enqueued before on the same
/// backend. Only ``read(_:into:)`` and ``synchronize()`` wait. Operations allocate nothing on the host and only from
/// workspace that ``reserve(_:)`` announced.
///
/// Shapes are checked where models are built; a wrong shape here is a programmer's error and may trap. What depends on the
/// device (memory, a failing launch) is thrown as ``BackendError``.
package protocol Backend: AnyObject, Sendable {
    var device: Device { get }
    /// For `doctor` and reports: instruction set or card, threads, driver.
    var summary: String { get }

    /// Bytes this device can give now, as its driver or system tells; `nil` where nobody says.
    var availableBytes: Int? { get }
    /// What this backend has allocated.
    var memoryUse: MemoryUse { get }

    /// The dtype activations have when a model is loaded in `loadDType`. The CPU answers float32.
    func activationDType(loadDType: DType) -> DType

    /// Makes ready whatever a model of this load dtype may call, so that its first step does not have to. Takes long where
    /// kernels are compiled; may run beside everything else.
    func prepareKernels(loadDType: DType) throws

    // MARK: Memory

    /// Announces how much a load will allocate in all, so that it may be taken in one piece. Promises nothing.
    func expect(_ byteCount: Int) throws
    /// Uninitialised memory on this device.
    /// - Throws: ``BackendError/outOfMemory(device:requested:available:budget:)``
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
    /// The bytes that ``reserve(_:)`` takes, or less.
    func workspaceBytes(for request: WorkspaceRequest) -> Int
    /// A way to bring weights here from the host, over and over, beside the operations that run.
    /// - Parameter slots: pieces of this device's memory that take turns.
    func makeUploads(slots: Int) throws -> any Uploads

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
    /// `linear` of norm(input), or of the input itself, rounded to the dtype of `scratch`: said together so that a backend can save
    /// a pass over memory. `scratch` [T, K] may be overwritten.
    func linear(
        _ input: Tensor, after norm: Norm?, scratch: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor)
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
    /// stream `parameters.firstStream + r`, see ``RandomStream``. With masks, logits are changed in place.
    func select(
        _ logits: Tensor, _ parameters: SamplingParameters, masks: SelectionMasks, counters: Tensor, into tokens: Tensor
    ) throws
    /// Prepares the next decode step on the device: for each row r, `batch.tokens[r] = tokens[r]`, positions, lengths and
    /// counters grow by one. Only for batches of one token a row.
    func advance(_ batch: BatchIndices, tokens: Tensor, counters: Tensor) throws

    /// Records what `body` enqueues for later replay, or returns `nil` where the device has no graphs. The same calls should have
    /// been made once before: what they load or grow is then there.
    func capture(_ body: () throws -> Void) throws -> (any CapturedGraph)?
}

/// A recorded sequence of operations over fixed buffers.
package protocol CapturedGraph: AnyObject {
    func launch() throws
}

extension Backend {
    package var availableBytes: Int? { nil }

    /// Without masks.
    package func select(_ logits: Tensor, _ parameters: SamplingParameters, counters: Tensor, into tokens: Tensor) throws {
        try select(logits, parameters, masks: .none, counters: counters, into: tokens)
    }

    package func capture(_ body: () throws -> Void) throws -> (any CapturedGraph)? { nil }
    package func reserve(_ workspace: WorkspaceRequest) throws {}
    package func prepareKernels(loadDType: DType) throws {}
    package func expect(_ byteCount: Int) throws {}
    package func makeUploads(slots: Int) throws -> any Uploads { ImmediateUploads(self) }

    package func linear(
        _ input: Tensor, after norm: Norm?, scratch: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor
    ) throws {
        try activations(input, after: norm, into: scratch)
        try linear(scratch, group, epilogue: epilogue, into: output)
    }

    /// output = norm(input), or the input in the output's dtype.
    package func activations(_ input: Tensor, after norm: Norm?, into output: Tensor) throws {
        if let norm {
            try normalize(input, norm, residual: nil, into: output)
        } else {
            try convert(input, to: output)
        }
    }
}

/// Copies between the memories of two backends, by the one that can: a GPU reaches host memory, not the other way round.
/// - Precondition: equal byte counts.
package func transfer(
    _ source: Tensor, from origin: any Backend, to destination: Tensor, on target: any Backend
) throws {
    try (origin.device == .cpu ? target : origin).copy(source, to: destination)
}

/// Why a device cannot do what it was asked to.
public enum BackendError: Error, Sendable, Equatable {
    /// `budget`: the limit that was set for the device, if one was.
    case outOfMemory(device: Device, requested: Int, available: Int?, budget: Int? = nil)
    /// A weight to be quantized holds NaN or infinity; `index` is the first such element.
    case nonFiniteWeight(index: Int)
    /// The device has no form of the operation for these operands.
    case unsupported(device: Device, operation: String, reason: String)
    /// A call of the device's driver or library failed.
    case deviceFailure(device: Device, call: String, message: String)
}

extension BackendError: CustomStringConvertible {
    /// The error as a sentence for the user.
    public var description: String {
        switch self {
        case .outOfMemory(let device, let requested, let available, let budget):
            "\(device) cannot give \(ByteCount.text(requested))"
                + (available.map { ": \(ByteCount.text($0)) are free" } ?? "")
                + (budget.map { (available == nil ? " within" : " of") + " its budget of \(ByteCount.text($0))" } ?? "")
                + BackendError.waysOut(device, budget: budget)
        case .nonFiniteWeight(let index):
            "the weight holds NaN or infinity (first at element \(index)) and cannot be quantized"
        case .unsupported(let device, let operation, let reason):
            "\(device) cannot run \(operation): \(reason)"
        case .deviceFailure(let device, let call, let message):
            "\(call) failed on \(device): \(message)"
        }
    }
}

extension BackendError {
    private static func waysOut(_ device: Device, budget: Int?) -> String {
        let more = budget == nil ? "free memory on \(device)" : "give \(device) more (--max-memory)"
        return ". Either \(more), or ask for less: shorter sequences (--context), fewer at a time (--batch-size), 4-bit weights"
    }
}
