internal import CNibbleCUDA
internal import Foundation
package import NibbleCore

/// One GPU, or a share of one: its context, one stream, a memory pool with a hard budget, and the kernels.
///
/// All work goes through one stream, so operations run in the order in which they were enqueued. A backend may be called
/// from any thread; calls are serialized. The methods are in `CUDABackend+….swift`, by theme.
package final class CUDABackend: Backend, @unchecked Sendable {
    package let device: Device
    /// The card behind ``device``.
    package let card: CUDADevice

    let context: CUDAContext
    let stream: CUDAStream
    let memory: DeviceMemory
    let staging: StagingRing
    let workspace: DeviceWorkspace
    let kernels: KernelLibrary
    /// `nil` if Nibble's own kernels compute all products.
    let products: MatrixProducts?
    let options: CUDAOptions
    /// Page-locked, for small reads.
    private(set) lazy var mailbox = Result { try PinnedMemory(context, byteCount: 64 << 10) }
    /// Recorded where another GPU has to wait for this one.
    private(set) lazy var mark = Result { try CUDAEvent(context) }
    /// GPUs that were given direct access, as far as possible.
    var linked: Set<Device> = []
    /// int32 [sets, blocks], made when first needed: counts the blocks of a split attention that have arrived. Calls take the
    /// sets in turn, since two of them may be in flight at a time.
    var arrivalCounters: Tensor?
    var arrivalSets = RoundRobin(count: 8)
    /// int32 [2], made when first needed: see `input_turns.cuh`.
    var inputTurns: Tensor?
    var isCapturing = false
    /// The form in which kernels of products are wanted.
    var form: KernelForm = []
    /// Whether the last operation enqueued is a kernel that the next kernel may overlap.
    var allowsOverlap = false
    /// Whether a kernel may begin while the one before it still runs. Set to false for good when a driver refuses to record it.
    var canOverlap: Bool
    /// See ``residentBlocks(_:_:block:shared:)``.
    private var residency: [ResidencyKey: Int] = [:]

    private let lock = NSRecursiveLock()

    /// - Parameters:
    ///   - card: the GPU.
    ///   - device: the name under which it appears; one GPU may appear under several, with a budget each.
    ///   - budget: bytes it may take from the GPU; by default what is free now, less a sixteenth for the driver's own needs.
    ///   - sharers: backends that divide the default budget among them.
    /// - Throws: ``CUDAUnavailable``, ``BackendError``
    package init(
        _ card: CUDADevice, as device: Device? = nil, budget: Int? = nil, sharers: Int = 1, options: CUDAOptions = .init()
    ) throws {
        guard card.level >= 75 else { throw CUDAUnavailable.tooOld(name: card.name, major: card.major, minor: card.minor) }
        let device = device ?? card.device
        let target = KernelTarget.best(for: card.level, levels: KernelCompiler.levels, forced: options.kernelLevel)
        context = try CUDAContext(card, as: device)
        stream = try CUDAStream(context)
        kernels = try KernelLibrary(context, target: target)
        let budget = try budget ?? CUDABackend.freeMemory(context) / 16 * 15 / max(sharers, 1)
        let options = options.within(budget: budget)
        memory = DeviceMemory(context, device: device, budget: budget)
        staging = StagingRing(stream)
        workspace = DeviceWorkspace(memory)
        products = options.usesLibraryProducts ? MatrixProducts(context, workspaceBytes: options.libraryLimit) : nil
        canOverlap = options.overlapsKernels && target.canOverlap(driverVersion: CUDALibraries.driverVersion)
        self.card = card
        self.device = device
        self.options = options
        CUDABackend.live.withLock { $0.append(Reference(backend: self)) }
    }

    /// The GPU with the driver's number `number`.
    package convenience init(number: Int, budget: Int? = nil, options: CUDAOptions = .init()) throws {
        try self.init(CUDADevice(number: number), budget: budget, options: options)
    }

    /// Every GPU, or those that `NIBBLE_CUDA_DEVICES` names.
    /// - Throws: ``CUDAUnavailable``, which says what was tried.
    package static func devices() throws -> [CUDADevice] {
        guard let list = ProcessInfo.processInfo.environment["NIBBLE_CUDA_DEVICES"] else { return try CUDADevice.all() }
        return try CUDADevice.listed(list, among: CUDADevice.all())
    }

    package var summary: String {
        let driver = CUDALibraries.driverVersion
        let library = products.map { "cuBLASLt \($0.version)" } ?? "own matrix kernels"
        return "\(card), driver for CUDA \(driver / 1000).\(driver % 1000 / 10), kernels for \(kernels.target), \(library)"
    }

    package var availableBytes: Int? { memory.budget - memory.used }
    package var memoryUse: MemoryUse { MemoryUse(held: memory.used, peak: memory.peak, budget: memory.budget) }

    package func activationDType(loadDType: DType) -> DType {
        switch loadDType {
        case .float16, .bfloat16: loadDType
        default: .float32
        }
    }

    /// Compiles, or reads from disk, the kernels that `request` calls for, on several threads.
    /// - Throws: ``KernelCompilationError``, ``BackendError``
    package func prepareKernels(_ request: KernelRequest) throws {
        let dtypes = Set(request.dtypes.map(activationDType))
        let elements = try dtypes.map { try element($0, for: "preparing kernels") }
        try context.makeCurrent()
        try kernels.prepare(request, elements)
    }

    // MARK: Calls

    /// Runs `body` exclusively, with the context current. Workspace that it takes is released at its end.
    func perform<Result>(_ body: () throws -> Result) throws -> Result {
        lock.lock()
        defer { lock.unlock() }
        try context.makeCurrent()
        let mark = workspace.mark()
        defer { workspace.release(mark) }
        return try body()
    }

    struct Grid {
        var x: Int
        var y = 1
        var z = 1
    }

    /// Enqueues a kernel. `arguments` is one of the structs of the kernels' header.
    /// - Parameter cluster: blocks of a cluster along x, or 0.
    func launch<Arguments>(
        _ kernel: Kernel, _ element: KernelElement = .f32, grid: Grid, block: Int, shared: Int = 0, cluster: Int = 0,
        _ arguments: Arguments
    ) throws {
        guard grid.x > 0, grid.y > 0, grid.z > 0 else { return }
        let function = try function(kernel, element, shared: shared)
        let overlaps = canOverlap && kernel.overlaps
        let size = NibbleLaunch(
            gridX: UInt32(grid.x), gridY: UInt32(grid.y), gridZ: UInt32(grid.z), blockX: UInt32(block),
            sharedBytes: UInt32(shared), overlaps: overlaps && allowsOverlap ? 1 : 0, cluster: UInt32(cluster))
        allowsOverlap = overlaps
        let status = withUnsafePointer(to: arguments) { nibble_cuLaunch(function, size, stream.handle, $0) }
        if status != 0 { throw failure(status, "cuLaunchKernel(\(kernel.symbol(element)))", on: device) }
    }

    /// The kernel, allowed to take `shared` bytes of dynamic shared memory.
    private func function(_ kernel: Kernel, _ element: KernelElement, shared: Int) throws -> NibbleFunction {
        let function = try kernels.function(kernel, element, form: form)
        // Static and dynamic memory count together against the 48 KiB that need no asking; kernels hold up to 20 KiB.
        if shared > 24 << 10 {
            try check(
                nibble_cuFuncSetAttribute(function, Int32(NIBBLE_FUNCTION_MAX_DYNAMIC_SHARED), Int32(shared)),
                "cuFuncSetAttribute", on: device)
        }
        // A multiprocessor that has set less memory aside for a small kernel takes no block of a product before that has ended.
        if kernel.precedesLargeBlocks || form.contains(.adapters) && (kernel == .shrinkWide || kernel == .stage4BitWide) {
            try check(
                nibble_cuFuncSetAttribute(function, Int32(NIBBLE_FUNCTION_SHARED_CARVEOUT), 100), "cuFuncSetAttribute",
                on: device)
        }
        return function
    }

    private struct ResidencyKey: Hashable {
        let kernel: Kernel
        let element: KernelElement
        let form: KernelForm
        let block, shared: Int
        var cluster = 0
    }

    /// Blocks of the kernel that the whole card holds at a time: the grid of a kernel whose blocks take work in turn.
    func residentBlocks(_ kernel: Kernel, _ element: KernelElement, block: Int, shared: Int) throws -> Int {
        let key = ResidencyKey(kernel: kernel, element: element, form: form, block: block, shared: shared)
        if let known = residency[key] { return known }
        var count: Int32 = 0
        try check(
            nibble_cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &count, function(kernel, element, shared: shared), Int32(block), shared),
            "cuOccupancyMaxActiveBlocksPerMultiprocessor", on: device)
        let blocks = max(Int(count), 1) * card.multiprocessors
        residency[key] = blocks
        return blocks
    }

    /// Clusters of `cluster` blocks of the kernel that the whole card holds at a time.
    func residentClusters(_ kernel: Kernel, of cluster: Int, block: Int, shared: Int) throws -> Int {
        let key = ResidencyKey(
            kernel: kernel, element: .f32, form: form, block: block, shared: shared, cluster: cluster)
        if let known = residency[key] { return known }
        let launch = NibbleLaunch(
            gridX: UInt32(cluster), gridY: 1, gridZ: 1, blockX: UInt32(block), sharedBytes: UInt32(shared), overlaps: 0,
            cluster: UInt32(cluster))
        var count: Int32 = 0
        try check(
            nibble_cuOccupancyMaxActiveClusters(&count, function(kernel, .f32, shared: shared), launch),
            "cuOccupancyMaxActiveClusters", on: device)
        residency[key] = Int(count)
        return Int(count)
    }

    /// Dynamic shared memory a block may have, as the architecture that is compiled for allows it, beside what kernels
    /// declare themselves.
    var sharedMemoryLimit: Int {
        let limit = kernels.target.level < 80 ? min(card.sharedMemoryPerBlock, 64 << 10) : card.sharedMemoryPerBlock
        return limit - (12 << 10)
    }

    func fill(_ address: UInt, _ value: UInt8, byteCount: Int) throws {
        guard byteCount > 0 else { return }
        allowsOverlap = false
        try check(
            nibble_cuMemsetD8Async(UInt64(address), value, byteCount, stream.handle), "cuMemsetD8Async", on: device)
    }

    /// The kernels' element type for an activation dtype.
    func element(_ dtype: DType, for operation: String) throws -> KernelElement {
        switch dtype {
        case .float32: .f32
        case .float16: .f16
        case .bfloat16: .bf16
        default: throw BackendError.unsupported(device: device, operation: operation, reason: "\(dtype) is not computed with")
        }
    }

    private static func freeMemory(_ context: CUDAContext) throws -> Int {
        var free = 0
        var total = 0
        try context.makeCurrent()
        try check(nibble_cuMemGetInfo(&free, &total), "cuMemGetInfo", on: context.device)
        return free
    }
}

/// Settings of a backend.
package struct CUDAOptions: Sendable {
    /// 75 or 80: compile PTX for that compute capability, so that its code paths run on a newer card.
    package var kernelLevel: Int?
    /// Use cuBLASLt for large products where it is found.
    package var usesLibraryProducts = true
    /// Never choose a kernel by the number of tokens, so that a row's result does not depend on what else is in the call.
    /// Costs speed in long prompts.
    package var isBatchInvariant = false
    /// Let kernels begin while the one before still runs, where the card can.
    package var overlapsKernels = true
    /// Bytes that a large product may use for dequantized weights, and as many for its results before their epilogue.
    package var scratchLimit = 256 << 20
    /// Bytes that cuBLASLt's algorithms may use beside their operands.
    package var libraryLimit = 32 << 20

    /// These options with scratch limits reduced to suit the budget.
    package func within(budget: Int) -> CUDAOptions {
        var options = self
        // 64 MB from a budget of 4 GB on; more where that is a small part of it.
        options.scratchLimit = min(scratchLimit, max(min(budget / 64, 64 << 20), budget / 256, 1 << 20))
        options.libraryLimit = min(libraryLimit, max(budget / 128, 1 << 20))
        return options
    }

    /// Reads the environment: `NIBBLE_CUDA_ARCH=75` or `80` sets ``kernelLevel``, `NIBBLE_CUDA_BLAS=0` turns cuBLASLt off.
    package init() {
        let environment = ProcessInfo.processInfo.environment
        kernelLevel = environment["NIBBLE_CUDA_ARCH"].flatMap(CUDAOptions.level)
        usesLibraryProducts = environment["NIBBLE_CUDA_BLAS"] != "0"
    }

    /// Reads `75`, `7.5` and `sm_75`.
    static func level(_ text: String) -> Int? {
        Int(text.filter(\.isNumber)).flatMap { $0 >= 75 && $0 < 1000 ? $0 : nil }
    }
}

/// Addresses for the kernels' argument structs.
extension Tensor {
    var pointer: UInt64 { UInt64(address) }
}
extension Tensor? {
    /// 0 means absent.
    var pointer: UInt64 { self?.pointer ?? 0 }
}

extension DType {
    /// NIBBLE_F32 and so on. Callers have checked that the kernels support the type.
    var code: Int32 {
        switch self {
        case .float16: NIBBLE_F16
        case .bfloat16: NIBBLE_BF16
        default: NIBBLE_F32
        }
    }
}

func blocks(_ count: Int, per size: Int) -> Int { (count + size - 1) / size }
func blocks(_ count: Int, per size: Int32) -> Int { blocks(count, per: Int(size)) }
