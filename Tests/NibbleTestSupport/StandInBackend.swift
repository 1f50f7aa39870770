import NibbleCPU
package import NibbleCore

/// A CPU in the place of a GPU that captures graphs.
///
/// A graph knows its buffers by their addresses only, as on a GPU: it keeps nothing alive. What is freed is overwritten with
/// ones and never handed out again, and a launch that reads or writes it is counted. Allocations and waits are counted, too.
/// For one thread.
package final class StandInBackend: Backend, @unchecked Sendable {
    let base: CPUBackend
    private let activations: DType
    private let memory = Memory()
    /// The calls of the graph under construction.
    private var recording: [() throws -> Void]?
    package private(set) var allocations = 0
    package private(set) var synchronizations = 0
    package private(set) var captures = 0
    package fileprivate(set) var launches = 0
    /// Launches between a read's beginning and its end: steps that were enqueued before the last one's tokens were known.
    package fileprivate(set) var earlyLaunches = 0
    fileprivate var openReads = 0

    /// - Parameter activations: the dtype of activations. Only ``linear(_:_:epilogue:into:)`` takes another than float32.
    package init(as device: Device = .cuda(0), activations: DType = .float32) {
        base = CPUBackend(threads: 1, as: device)
        self.activations = activations
    }

    /// Uses of buffers by graphs after they were freed.
    package var usesAfterFree: Int { memory.violations }

    /// What was allocated, kept for ever so that no address comes twice.
    private final class Memory: @unchecked Sendable {
        var freed: [Tensor] = []
        var live: Set<UInt> = []
        var violations = 0

        func free(_ tensor: Tensor, _ base: CPUBackend) {
            live.remove(tensor.storage.address)
            UnsafeMutableRawPointer(bitPattern: tensor.storage.address)?
                .initializeMemory(as: UInt8.self, repeating: 0xFF, count: tensor.storage.byteCount)
            freed.append(tensor)
        }
    }

    package var device: Device { base.device }
    package var summary: String { "a stand-in, \(base.summary)" }
    package var memoryUse: MemoryUse { base.memoryUse }
    package func activationDType(loadDType: DType) -> DType { activations }
    package func reserve(_ workspace: WorkspaceRequest) throws { try base.reserve(workspace) }
    package func workspaceBytes(for request: WorkspaceRequest) -> Int { base.workspaceBytes(for: request) }

    // MARK: Memory

    package func allocate(_ dtype: DType, _ shape: Shape) throws -> Tensor {
        allocations += 1
        let tensor = try base.allocate(dtype, shape)
        let (memory, base, address) = (memory, base, tensor.storage.address)
        memory.live.insert(address)
        let storage = Storage(
            device: device, byteCount: tensor.storage.byteCount, address: address, isHostMemory: true
        ) { _ in memory.free(tensor, base) }
        return Tensor(storage: storage, dtype: dtype, shape: shape)
    }

    package func copy(_ source: Tensor, to destination: Tensor) throws {
        if recording != nil, source.device == .cpu || destination.device == .cpu {
            throw BackendError.unsupported(device: device, operation: "a copy", reason: "a graph is being captured")
        }
        try enqueue { place in
            let (source, destination) = (place(source), place(destination))
            return { [base] in try base.copy(source, to: destination) }
        }
    }

    package func read(_ source: Tensor, into destination: UnsafeMutableRawBufferPointer) throws {
        try base.read(source, into: destination)
    }

    package func synchronize() throws { synchronizations += 1 }

    package func makeDeferredRead(byteCount: Int) throws -> any DeferredRead { Read(owner: self, byteCount) }

    private final class Read: DeferredRead {
        private let owner: StandInBackend
        private let target: Tensor
        private var count = 0
        private var isOpen = false {
            didSet { owner.openReads += (isOpen ? 1 : 0) - (oldValue ? 1 : 0) }
        }

        init(owner: StandInBackend, _ byteCount: Int) {
            self.owner = owner
            target = .host(.uint8, [byteCount])
        }

        func begin(_ source: Tensor) throws {
            count = source.byteCount
            isOpen = true
            try owner.base.read(source, into: target.mutableHostBytes)
        }

        func wait() -> UnsafeRawBufferPointer {
            isOpen = false
            return UnsafeRawBufferPointer(rebasing: target.hostBytes[..<count])
        }
    }

    // MARK: Weights

    package func quantize(_ source: Tensor, to format: WeightFormat) throws -> LinearWeight {
        try base.quantize(source, to: format)
    }
    package func dequantize(_ weight: LinearWeight, to dtype: DType) throws -> Tensor { try base.dequantize(weight, to: dtype) }
    package func prepare(_ weight: LinearWeight) throws -> LinearWeight { try base.prepare(weight) }

    // MARK: Graphs

    package func capture(_ body: () throws -> Void) throws -> (any CapturedGraph)? {
        captures += 1
        recording = []
        defer { recording = nil }
        try body()
        return Graph(owner: self, calls: recording ?? [])
    }

    private final class Graph: CapturedGraph {
        let owner: StandInBackend
        let calls: [() throws -> Void]

        init(owner: StandInBackend, calls: [() throws -> Void]) {
            self.owner = owner
            self.calls = calls
        }

        func launch() throws {
            owner.launches += 1
            if owner.openReads > 0 { owner.earlyLaunches += 1 }
            for call in calls { try call() }
        }
    }

    /// Runs a call, or records it. `make` gets a function that every buffer of the call goes through.
    func enqueue(_ make: (_ place: (Tensor) -> Tensor) throws -> () throws -> Void) throws {
        guard recording != nil else { return try make({ $0 })() }
        var addresses: [UInt] = []
        let call = try make { tensor in
            addresses.append(tensor.storage.address)
            let storage = Storage(
                device: tensor.device, byteCount: tensor.storage.byteCount, address: tensor.storage.address, isHostMemory: true
            ) { _ in }
            return Tensor(storage: storage, byteOffset: tensor.byteOffset, dtype: tensor.dtype, shape: tensor.shape)
        }
        recording?.append { [memory, addresses] in
            memory.violations += addresses.count { !memory.live.contains($0) }
            try call()
        }
    }
}

// MARK: - Operations

extension StandInBackend {
    package func convert(_ source: Tensor, to destination: Tensor) throws {
        try enqueue { place in
            let (source, destination) = (place(source), place(destination))
            return { [base] in try base.convert(source, to: destination) }
        }
    }

    package func embed(_ call: EmbeddingCall, _ batch: BatchIndices, into output: Tensor) throws {
        try enqueue { place in
            var call = call
            call.table = place(call.table)
            call.positionTable = call.positionTable.map(place)
            let (batch, output) = (batch.mapped(place), place(output))
            return { [base, call] in try base.embed(call, batch, into: output) }
        }
    }

    package func normalize(_ input: Tensor, _ norm: Norm, residual: Tensor?, into output: Tensor) throws {
        try enqueue { place in
            let (input, norm, residual, output) = (place(input), norm.mapped(place), residual.map(place), place(output))
            return { [base] in try base.normalize(input, norm, residual: residual, into: output) }
        }
    }

    package func linear(_ input: Tensor, _ group: LinearGroup, epilogue: LinearEpilogue, into output: Tensor) throws {
        try enqueue { place in
            var epilogue = epilogue
            epilogue.rowScale = epilogue.rowScale.map(place)
            epilogue.residual = epilogue.residual.map(place)
            let (input, output) = (place(input), place(output))
            return { [base, epilogue] in
                var operand = input
                if input.dtype != .float32 {
                    operand = try base.allocate(.float32, input.shape)
                    try base.convert(input, to: operand)
                }
                try base.linear(operand, group, epilogue: epilogue, into: output)
            }
        }
    }

    package func rotateAndStore(_ call: RotateAndStoreCall, _ batch: BatchIndices) throws {
        try enqueue { place in
            var call = call
            call.projections = place(call.projections)
            call.cache = call.cache.mapped(place)
            call.norm = call.norm.map { QueryKeyNorm(scope: $0.scope, query: $0.query.mapped(place), key: $0.key.mapped(place)) }
            call.rotary = call.rotary.map {
                RotaryTable(
                    cosines: place($0.cosines), sines: place($0.sines), rotated: $0.rotated, isInterleaved: $0.isInterleaved)
            }
            let batch = batch.mapped(place)
            return { [base, call] in try base.rotateAndStore(call, batch) }
        }
    }

    package func attend(_ call: AttentionCall, _ batch: BatchIndices, into output: Tensor) throws {
        try enqueue { place in
            var call = call
            call.queries = place(call.queries)
            call.sinks = call.sinks.map(place)
            call.cache = call.cache.mapped(place)
            let (batch, output) = (batch.mapped(place), place(output))
            return { [base, call] in try base.attend(call, batch, into: output) }
        }
    }

    package func gate(_ input: Tensor, _ activation: GateActivation, into output: Tensor) throws {
        try enqueue { place in
            let (input, output) = (place(input), place(output))
            return { [base] in try base.gate(input, activation, into: output) }
        }
    }

    package func multiply(_ input: Tensor, by factors: Tensor, from first: Int, into output: Tensor) throws {
        try enqueue { place in
            let (input, factors, output) = (place(input), place(factors), place(output))
            return { [base] in try base.multiply(input, by: factors, from: first, into: output) }
        }
    }

    package func route(_ call: RouteCall, ids: Tensor, weights: Tensor) throws {
        try enqueue { place in
            var call = call
            call.logits = place(call.logits)
            call.rule.choiceBias = call.rule.choiceBias.map(place)
            call.rule.expertScale = call.rule.expertScale.map(place)
            let (ids, weights) = (place(ids), place(weights))
            return { [base, call] in try base.route(call, ids: ids, weights: weights) }
        }
    }

    package func experts(_ input: Tensor, _ call: ExpertsCall, into output: Tensor) throws {
        try enqueue { place in
            var call = call
            call.ids = place(call.ids)
            call.weights = place(call.weights)
            call.residual = call.residual.map(place)
            let (input, output) = (place(input), place(output))
            return { [base, call] in try base.experts(input, call, into: output) }
        }
    }

    package func add(_ a: Tensor, _ b: Tensor, scale: Float, into output: Tensor) throws {
        try enqueue { place in
            let (a, b, output) = (place(a), place(b), place(output))
            return { [base] in try base.add(a, b, scale: scale, into: output) }
        }
    }

    package func gatherRows(_ input: Tensor, _ indices: Tensor, into output: Tensor) throws {
        try enqueue { place in
            let (input, indices, output) = (place(input), place(indices), place(output))
            return { [base] in try base.gatherRows(input, indices, into: output) }
        }
    }

    package func copyBlocks(_ cache: KeyValueCache, pairs: Tensor) throws {
        try enqueue { place in
            let (cache, pairs) = (cache.mapped(place), place(pairs))
            return { [base] in try base.copyBlocks(cache, pairs: pairs) }
        }
    }

    package func select(
        _ logits: Tensor, _ state: SelectionState, slots: Tensor, counters: Tensor, into tokens: Tensor
    ) throws {
        try enqueue { place in
            let (logits, state, slots) = (place(logits), state.mapped(place), place(slots))
            let (counters, tokens) = (place(counters), place(tokens))
            return { [base] in try base.select(logits, state, slots: slots, counters: counters, into: tokens) }
        }
    }

    package func fillTokens(_ tokens: Tensor, latest: Tensor) throws {
        try enqueue { place in
            let (tokens, latest) = (place(tokens), place(latest))
            return { [base] in try base.fillTokens(tokens, latest: latest) }
        }
    }

    package func scores(_ logits: Tensor, chosen: Tensor, count k: Int, values: Tensor, ids: Tensor) throws {
        try enqueue { place in
            let (logits, chosen, values, ids) = (place(logits), place(chosen), place(values), place(ids))
            return { [base] in try base.scores(logits, chosen: chosen, count: k, values: values, ids: ids) }
        }
    }
}

extension Norm {
    func mapped(_ place: (Tensor) -> Tensor) -> Norm {
        Norm(kind: kind, epsilon: epsilon, weight: weight.map(place), bias: bias.map(place))
    }
}

extension KeyValueCache {
    func mapped(_ place: (Tensor) -> Tensor) -> KeyValueCache {
        KeyValueCache(geometry: geometry, keys: place(keys), values: place(values))
    }
}

extension BatchIndices {
    func mapped(_ place: (Tensor) -> Tensor) -> BatchIndices {
        BatchIndices(
            tokens: place(tokens), positions: place(positions), rows: place(rows), queryOffsets: place(queryOffsets),
            lengths: place(lengths), blockTable: place(blockTable), tokenCount: tokenCount, rowCount: rowCount,
            maximumQueryLength: maximumQueryLength, maximumLength: maximumLength)
    }
}
