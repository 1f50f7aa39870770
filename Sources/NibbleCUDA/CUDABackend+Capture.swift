internal import CNibbleCUDA
package import NibbleCore

extension CUDABackend {
    /// Kernels are compiled and loaded while recording if they were not before; workspace that is taken is kept for the graph.
    /// Libraries load theirs when they first need them, which can end a recording: run the same calls once before. Copies from and
    /// to the host, reads and ``synchronize()`` cannot be recorded and throw.
    package func capture(_ body: () throws -> Void) throws -> (any CapturedGraph)? {
        try perform {
            try requireNoCapture("a capture")
            do {
                return try record(body)
            } catch BackendError.deviceFailure where canOverlap {
                // A driver that cannot record launches that overlap may still record plain ones.
                canOverlap = false
                return try record(body)
            }
        }
    }

    private func record(_ body: () throws -> Void) throws -> CUDAGraph {
        try check(nibble_cuStreamBeginCapture(stream.handle, Int32(NIBBLE_CAPTURE_RELAXED)), "cuStreamBeginCapture", on: device)
        isCapturing = true
        allowsOverlap = false
        workspace.beginRecording()
        let outcome = Result { try body() }
        isCapturing = false
        allowsOverlap = false
        let memory = workspace.endRecording()
        // Ended whatever happened, or the stream would stay unusable.
        var graph: NibbleGraph?
        let status = nibble_cuStreamEndCapture(stream.handle, &graph)
        defer { if let graph { _ = nibble_cuGraphDestroy(graph) } }
        try outcome.get()
        try check(status, "cuStreamEndCapture", on: device)
        var executable: NibbleGraphExec?
        try check(nibble_cuGraphInstantiate(&executable, graph), "cuGraphInstantiate", on: device)
        guard let executable else { throw failure(0, "cuGraphInstantiate", on: device) }
        return CUDAGraph(backend: self, executable: executable, memory: memory)
    }

    /// Sizes workspace so that no later call of these sizes needs more.
    package func reserve(_ workspace: WorkspaceRequest) throws {
        try perform {
            try requireNoCapture("reserving workspace")
            try self.workspace.reserve(CUDABackend.workspaceBytes(for: workspace, options: options))
        }
    }

    /// The bytes that ``reserve(_:)`` allocates, for planning: products of many tokens, quantized activations, split attention.
    /// - Parameter options: those that hold within the budget, see ``CUDAOptions/within(budget:)``.
    package static func workspaceBytes(for request: WorkspaceRequest, options: CUDAOptions = .init()) -> Int {
        let (tokens, columns) = (max(request.tokens, 1), request.inFeatures)
        let converted = tokens * columns * 4
        let results = min(tokens * request.outFeatures * 4, options.scratchLimit)
        let weights = min(request.outFeatures * columns * 4, options.scratchLimit)
        let library = options.usesLibraryProducts && tokens > 8 ? options.libraryLimit : 0
        let dense = converted + results + weights + library
        let staged = Int(nibble_staged_4bit_bytes(Int64(tokens), Int64(columns), 1))
        let int8 = tokens * (3 * columns + columns / 64 + 32 + 4096) + columns + 2 * results + library
        let wideInt8 = tokens * (5 * columns + columns / 64 + 256) + 2 * results
        let splits = blocks(request.context, per: NIBBLE_SPLIT_LENGTH)
        let attention = request.rows * request.heads * splits * (request.headSize + 4) * 4
        let most = max(dense, converted + staged, int8, wideInt8, attention, CUDABackend.chunkBytes)
        let elementSize = request.formats.isEmpty || request.formats.contains(.dense(.float32)) ? 4 : 2
        let experts = request.experts.map {
            ExpertsWorkspace.byteCount($0, tokens: tokens, elementSize: elementSize, limit: options.scratchLimit)
        }
        return most + (experts ?? 0) + 64 * PoolAllocator.granularity
    }

    package func workspaceBytes(for request: WorkspaceRequest) -> Int {
        CUDABackend.workspaceBytes(for: request, options: options)
    }
}

/// A recorded step and the workspace it uses.
final class CUDAGraph: CapturedGraph {
    private let backend: CUDABackend
    private let executable: NibbleGraphExec
    private let memory: [Storage]

    init(backend: CUDABackend, executable: NibbleGraphExec, memory: [Storage]) {
        self.backend = backend
        self.executable = executable
        self.memory = memory
    }

    func launch() throws {
        try backend.perform {
            backend.allowsOverlap = false
            try check(nibble_cuGraphLaunch(executable, backend.stream.handle), "cuGraphLaunch", on: backend.device)
        }
    }

    deinit {
        try? backend.context.makeCurrent()
        _ = nibble_cuGraphExecDestroy(executable)
    }
}
