package import NibbleCore
import Synchronization

/// The adapters that are attached to a model. They can be attached and detached while sessions and executors exist.
///
/// The sums of all adapters of a layer are stacked in its ``LowRankPlace``. Each change makes new tensors, and sessions capture
/// their graphs anew: memory is what the adapters take, and no rank is reserved. Weights of rows are kept by column, and every
/// adapter keeps its column while it is attached, so rows of other adapters may run meanwhile.
package final class AdapterRegistry: Sendable {
    /// The most adapters that are attached at once.
    package static let limit = 64

    /// A linear layer that adapters can change, and where it runs.
    private struct Target: Sendable {
        let layer: Linear
        let backend: any Backend
    }

    private struct Attached {
        let id: AdapterID
        let adapter: LowRankAdapter
        let column: Int
    }

    private struct State {
        var attached: [Attached] = []
        var active: AdapterWeights = [:]
    }

    private let targets: [String: Target]
    private let state = Mutex(State())
    private let changes = Atomic<Int>(0)

    init(_ weights: ModelWeights) {
        var targets: [String: Target] = [:]
        for (path, layer) in weights.linears { targets[path] = Target(layer: layer, backend: weights.backend(path)) }
        for (path, experts) in weights.experts {
            let backend = weights.backend(path)
            for layer in experts.flatMap({ $0.gateUp.layers + [$0.down] }) {
                targets[layer.name] = Target(layer: layer, backend: backend)
            }
        }
        self.targets = targets
    }

    /// The linear layers that adapters can change, by name.
    package var layerNames: some Collection<String> & Sendable { targets.keys }

    /// The layer of a name, with the base's weight, and the backend that runs it.
    package func layer(_ name: String) -> (layer: Linear, backend: any Backend)? {
        targets[name].map { ($0.layer, $0.backend) }
    }

    /// Grows with each change: captured graphs of an older generation are void.
    var generation: Int { changes.load(ordering: .acquiring) }

    /// What sequences use that do not say.
    package var active: AdapterWeights {
        get { state.withLock { $0.active } }
        set { state.withLock { $0.active = newValue } }
    }

    /// Whether an adapter is attached.
    package func contains(_ id: AdapterID) -> Bool { column(of: id) != nil }

    /// The place of an adapter's weight in the rows of ``AdapterRows/weights``.
    func column(of id: AdapterID) -> Int? { state.withLock { $0.attached.first { $0.id == id }?.column } }

    /// The tensors that captured graphs may use.
    var tensors: [Tensor] {
        targets.values.compactMap(\.layer.lowRank).flatMap { sums in
            [sums.a, sums.b, sums.scales, sums.adapters] + [sums.biases, sums.gains].compactMap(\.self)
        }
    }

    /// Bytes that the attached adapters take on all devices.
    package var byteCount: Int { tensors.reduce(0) { $0 + $1.byteCount } }
}

// MARK: Changes

extension AdapterRegistry {
    /// Adds an adapter, which no sequence uses yet.
    /// - Parameters:
    ///   - adapter: its matrices, on the host. The registry keeps them.
    ///   - id: its name from now on. Copies of a model give an adapter the same.
    /// - Throws: ``ModelError/adapterMismatch(adapter:layer:expected:found:)`` for layers that the model does not have or that have
    ///   other shapes, ``ModelError/tooManyAdapters(limit:)``, `BackendError` where memory runs out. Nothing has changed then.
    @discardableResult
    package func attach(_ adapter: LowRankAdapter, as id: AdapterID = AdapterID()) throws -> AdapterID {
        try check(adapter)
        return try state.withLock { state in
            let taken = Set(state.attached.map(\.column))
            guard let column = (0..<AdapterRegistry.limit).first(where: { !taken.contains($0) }) else {
                throw ModelError.tooManyAdapters(limit: AdapterRegistry.limit)
            }
            let attached = state.attached + [Attached(id: id, adapter: adapter, column: column)]
            try place(attached, in: adapter.layers.keys)
            state.attached = attached
            return id
        }
    }

    /// Removes an adapter. Sequences that still name it go on without it.
    /// - Throws: `BackendError` where memory for the others runs out; nothing has changed then.
    package func detach(_ id: AdapterID) throws {
        try state.withLock { state in
            guard let removed = state.attached.first(where: { $0.id == id }) else { return }
            let attached = state.attached.filter { $0.id != id }
            try place(attached, in: removed.adapter.layers.keys)
            state.attached = attached
            state.active[id] = nil
        }
    }

    private func place(_ attached: [Attached], in names: some Sequence<String>) throws {
        let sorted = attached.sorted { $0.column < $1.column }
        var stacks: [(place: LowRankPlace, lowRank: LowRank?)] = []
        for name in names {
            guard let target = targets[name] else { continue }
            let parts = sorted.compactMap { entry in entry.adapter.layers[name].map { (entry.column, $0) } }
            let stack = parts.isEmpty ? nil : LowRankStack(parts, limit: AdapterRegistry.limit)
            stacks.append((target.layer.lowRankPlace, try stack?.lowRank(on: target.backend)))
        }
        for stack in stacks { stack.place.lowRank = stack.lowRank }
        changes.add(1, ordering: .releasing)
    }

    private func check(_ adapter: LowRankAdapter) throws {
        for (name, factors) in adapter.layers {
            func mismatch(_ expected: String, _ found: String) -> ModelError {
                .adapterMismatch(adapter: adapter.name, layer: name, expected: expected, found: found)
            }
            guard let layer = targets[name]?.layer else { throw mismatch("a linear layer of the model", "none of this name") }
            let rank = factors.a.shape.rank == 2 ? factors.a.shape[0] : 0
            let (n, k) = (layer.outFeatures, layer.inFeatures)
            guard rank > 0, factors.a.shape == [rank, k] else { throw mismatch("lora_A of [r, \(k)]", "\(factors.a.shape)") }
            guard factors.b.shape == [n, rank] else { throw mismatch("lora_B of [\(n), \(rank)]", "\(factors.b.shape)") }
            for (kind, tensor) in [("lora_A", factors.a), ("lora_B", factors.b)] where !LowRankStack.dtypes.contains(tensor.dtype)
            {
                throw mismatch("\(kind) of floats", "\(tensor.dtype)")
            }
            for (kind, vector) in [("bias", factors.bias), ("magnitude", factors.gain)] {
                guard let vector, vector.count != n || vector.dtype != .float32 else { continue }
                throw mismatch("a \(kind) of float32 [\(n)]", "\(vector.dtype) \(vector.shape)")
            }
        }
    }
}
