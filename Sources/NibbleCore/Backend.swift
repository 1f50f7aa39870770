/// A device that can hold weights and run the operations a transformer needs, at the size that is fast.
///
/// Operations enqueue: they may return before the work is done, and run in the order in which they were enqueued. Only
/// ``read(_:into:)`` and ``synchronize()`` wait. Operations allocate no host memory, and on the device only workspace that
/// ``reserve(_:)`` announced.
///
/// Shapes are checked where models are built. A wrong shape here is a programmer's error and may trap. Failures that depend
/// on the device (memory, launches) are thrown as ``BackendError``.
package protocol Backend: AnyObject, Sendable {
    var device: Device { get }
    /// For `doctor` and reports: instruction set or card, threads, driver.
    var summary: String { get }

    /// Free bytes on this device, as its driver or operating system reports them; `nil` if unknown.
    var availableBytes: Int? { get }
    /// The bytes that this backend holds.
    var memoryUse: MemoryUse { get }

    /// The dtype of activations when a model is loaded in `loadDType`; float32 on the CPU.
    func activationDType(loadDType: DType) -> DType

    /// Compiles and loads the kernels that a model's steps call, ahead of the first one; others are made when they are first
    /// called. May take long; may run concurrently with loading.
    func prepareKernels(_ request: KernelRequest) throws

    // MARK: Memory

    /// Announces the total that a load will allocate, so that the backend can reserve it in one piece. A hint only.
    func expect(_ byteCount: Int) throws
    /// Uninitialised memory on this device.
    /// - Throws: ``BackendError/outOfMemory(device:requested:available:budget:)``
    func allocate(_ dtype: DType, _ shape: Shape) throws -> Tensor
    /// Enqueues a copy of equal byte counts. Either side may be a host tensor. At least one side lies on this device.
    ///
    /// A host source may be changed as soon as this returns. Between two devices, both wait for the copy: what either enqueues
    /// later comes after it.
    func copy(_ source: Tensor, to destination: Tensor) throws
    /// Enqueues `destination = convert(source)`; equal element counts, float dtypes, both on this device.
    func convert(_ source: Tensor, to destination: Tensor) throws
    /// Waits for everything enqueued, then copies to the host.
    func read(_ source: Tensor, into destination: UnsafeMutableRawBufferPointer) throws
    func synchronize() throws
    /// Makes an object that reads up to `byteCount` bytes from this device while later operations run.
    func makeDeferredRead(byteCount: Int) throws -> any DeferredRead
    /// Allocates workspace for the largest calls to come, so that none of them has to.
    func reserve(_ workspace: WorkspaceRequest) throws
    /// An upper bound of the bytes that ``reserve(_:)`` allocates.
    func workspaceBytes(for request: WorkspaceRequest) -> Int
    /// Makes an object that uploads weights from the host repeatedly, concurrently with running operations.
    /// - Parameter slots: how many pieces of device memory are filled in turn.
    func makeUploads(slots: Int) throws -> any Uploads

    // MARK: Weights

    /// Quantizes a float weight [N, K] (host or this device) into canonical bytes on this device (specification: the
    /// bitsandbytes formats; CUDA's results are canonical).
    /// - Throws: ``BackendError/nonFiniteWeight(index:)``
    func quantize(_ source: Tensor, to format: WeightFormat) throws -> LinearWeight
    /// The same of rows that are computed as they are needed. `nil` where the device quantizes tensors alone.
    /// - Throws: ``BackendError/nonFiniteWeight(index:)``
    func quantize(_ rows: any WeightRows, to format: WeightFormat) throws -> LinearWeight?
    /// The weight as a float tensor [N, K] on this device.
    func dequantize(_ weight: LinearWeight, to dtype: DType) throws -> Tensor
    /// Repacks a canonical weight on this device into the layout that its kernels prefer. May return it unchanged.
    func prepare(_ weight: LinearWeight) throws -> LinearWeight

    // MARK: Operations

    /// [T] → [T, E]
    func embed(_ call: EmbeddingCall, _ batch: BatchIndices, into output: Tensor) throws
    /// output = norm(input), plus `residual` where given. [T, E]; `output` may be `input` or `residual`.
    func normalize(_ input: Tensor, _ norm: Norm, residual: Tensor?, into output: Tensor) throws
    /// [T, K] → [T, ΣN]; `output` may be float32 whatever the activation dtype (logits, router).
    func linear(_ input: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor) throws
    /// `linear` of norm(input), or of the input itself, rounded to the dtype of `scratch`. One operation, so that a backend
    /// can fuse them. `scratch` [T, K] may be overwritten.
    func linear(
        _ input: Tensor, after norm: Norm?, scratch: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor)
        throws
    /// `linear` of gate(input), [T, 2K] → [T, ΣN]. One operation, so that a backend can fuse them. `scratch` [T, K] may be
    /// overwritten.
    func linear(
        _ input: Tensor, gatedBy activation: GateActivation, scratch: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue,
        into output: Tensor) throws
    /// Normalizes and rotates queries and keys in place, and stores keys and values in the cache.
    func rotateAndStore(_ call: RotateAndStoreCall, _ batch: BatchIndices) throws
    /// → [T, H·D]
    func attend(_ call: AttentionCall, _ batch: BatchIndices, into output: Tensor) throws
    /// ``rotateAndStore(_:_:)``, then ``attend(_:_:into:)`` of the queries that stand in its projections. One operation, so that a
    /// backend can fuse them; what it leaves in the projections is undefined.
    func attend(
        _ call: AttentionCall, rotating rotation: RotateAndStoreCall, _ batch: BatchIndices, into output: Tensor) throws
    /// [T, 2F] → [T, F]: the two halves of each row through a gate activation.
    func gate(_ input: Tensor, _ activation: GateActivation, into output: Tensor) throws
    /// output[t, i] = input[t, i] × factors[t, first + i]: a product with columns of a wider tensor. [T, P]; `output` may be
    /// `input`.
    func multiply(_ input: Tensor, by factors: Tensor, from first: Int, into output: Tensor) throws
    /// Chooses experts from router logits. `ids` int32 [T, k]: the best experts by the rule, the best first, the lower number among
    /// equals; `weights` float32 [T, k]. NaN counts as the largest value, so that it reaches the weights.
    func route(_ call: RouteCall, ids: Tensor, weights: Tensor) throws
    /// `route` by the logits router(norm(input)). Leaves norm(input), or the input itself, rounded, in `scratch` [T, K]. One
    /// operation, so that a backend can fuse them; `call.logits` may be overwritten.
    func route(
        _ input: Tensor, after norm: Norm?, scratch: Tensor, through router: LinearGroup, adapters: AdapterRows?,
        _ call: RouteCall, ids: Tensor, weights: Tensor) throws
    /// [T, E] → [T, E]: the weighted sum of each token's experts, plus a residual. Reads no expert that no token chose.
    func experts(_ input: Tensor, _ call: ExpertsCall, into output: Tensor) throws
    /// output = a + b × scale, element by element; `output` may be `a`.
    func add(_ a: Tensor, _ b: Tensor, scale: Float, into output: Tensor) throws
    /// output[i] = input[indices[i]]: rows of [T, E]; indices int32 [n].
    func gatherRows(_ input: Tensor, _ indices: Tensor, into output: Tensor) throws
    /// Copies whole cache blocks: `pairs` int32 [n, 2] of (from, to), for keys and values of `cache`.
    func copyBlocks(_ cache: KeyValueCache, pairs: Tensor) throws

    // MARK: Recurrent mixers

    /// → [T, C]; updates the inputs of the rows' states.
    func convolve(_ call: ConvolutionCall, _ batch: BatchIndices, into output: Tensor) throws
    /// → [T, Hv·V]; updates the matrices of the rows' states.
    func gatedDelta(_ call: GatedDeltaCall, _ batch: BatchIndices, into output: Tensor) throws
    /// → [T, H·P]; updates the matrices of the rows' states.
    func stateSpace(_ call: StateSpaceCall, _ batch: BatchIndices, into output: Tensor) throws
    /// [T, W] → [T, W]; `output` may be the call's input.
    func normalizeGated(_ call: GatedNormCall, into output: Tensor) throws

    // MARK: Selection

    /// One token id per row of float32 logits [R, V] into int32 [R], as the records of the rows' slots ask for. `slots` int32
    /// [R]: the slot of each row; `counters` int32 [R]: how many tokens its sequence was given before. A slot with penalties
    /// has one row at most.
    ///
    /// Logits are adjusted in place: the repetition penalty first, then presence and frequency, the bias, the end tokens
    /// while the counter is below the minimum, and the mask. Then temperature, top-k, top-p and min-p. The token that is
    /// chosen is counted if the record has penalties. A row without a token gets a ``SelectionStatus``.
    func select(_ logits: Tensor, _ state: SelectionState, slots: Tensor, counters: Tensor, into tokens: Tensor) throws
    /// Replaces each entry −1 − s of int32 [T] by entry s of `latest`, int32 [slots], or by 0 where that is negative. A step can
    /// be enqueued so before the host knows the tokens of the step before.
    func fillTokens(_ tokens: Tensor, latest: Tensor) throws
    /// Log probabilities from float32 logits [n, V], which are not changed. `chosen` int32 [n] is one token a row. `values`
    /// float32 [n, 2 + k] receives log-sum-exp, the log probability of `chosen`, and the k largest log probabilities; `ids`
    /// int32 [n, k] their tokens, the lowest first among equals. k is at most 20.
    ///
    /// Tokens of probability 0 have −∞. A `chosen` that is no token has NaN. Beyond the vocabulary ids are −1 with −∞. A row
    /// that holds NaN has only NaN and −1.
    func scores(_ logits: Tensor, chosen: Tensor, count k: Int, values: Tensor, ids: Tensor) throws
    /// Records the calls of `body` without running them, or returns `nil` where the device has no graphs. Run the same calls
    /// once before, so that kernels are loaded and workspace is large enough.
    ///
    /// A graph stores addresses: the caller keeps every buffer alive that the graph uses, for as long as it may be launched.
    func capture(_ body: () throws -> Void) throws -> (any CapturedGraph)?
}

/// A recorded sequence of operations over fixed buffers.
package protocol CapturedGraph: AnyObject {
    /// Enqueues the recorded operations.
    func launch() throws
}

extension Backend {
    package var availableBytes: Int? { nil }

    package func capture(_ body: () throws -> Void) throws -> (any CapturedGraph)? { nil }
    package func reserve(_ workspace: WorkspaceRequest) throws {}
    package func prepareKernels(_ request: KernelRequest) throws {}
    package func expect(_ byteCount: Int) throws {}
    package func quantize(_ rows: any WeightRows, to format: WeightFormat) throws -> LinearWeight? { nil }
    package func makeUploads(slots: Int) throws -> any Uploads { ImmediateUploads(self) }

    package func linear(
        _ input: Tensor, after norm: Norm?, scratch: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor
    ) throws {
        try activations(input, after: norm, into: scratch)
        try linear(scratch, group, epilogue: epilogue, into: output)
    }

    package func linear(
        _ input: Tensor, gatedBy activation: GateActivation, scratch: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue,
        into output: Tensor
    ) throws {
        try gate(input, activation, into: scratch)
        try linear(scratch, group, epilogue: epilogue, into: output)
    }

    package func attend(
        _ call: AttentionCall, rotating rotation: RotateAndStoreCall, _ batch: BatchIndices, into output: Tensor
    ) throws {
        try rotateAndStore(rotation, batch)
        try attend(call, batch, into: output)
    }

    /// [T, 2F] → [T, F]: activation(first half) ⊙ second half.
    package func gate(_ input: Tensor, _ activation: Activation, into output: Tensor) throws {
        try gate(input, .product(activation), into: output)
    }

    /// output = norm(input), or the input in the output's dtype.
    package func route(
        _ input: Tensor, after norm: Norm?, scratch: Tensor, through router: LinearGroup, adapters: AdapterRows?,
        _ call: RouteCall, ids: Tensor, weights: Tensor
    ) throws {
        try activations(input, after: norm, into: scratch)
        try linear(scratch, router, epilogue: LinearEpilogue(adapters: adapters), into: call.logits)
        try route(call, ids: ids, weights: weights)
    }

    package func activations(_ input: Tensor, after norm: Norm?, into output: Tensor) throws {
        if let norm {
            try normalize(input, norm, residual: nil, into: output)
        } else {
            try convert(input, to: output)
        }
    }
}

/// Copies between the memories of two backends. The GPU does it where one is involved: the CPU cannot reach its memory.
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
