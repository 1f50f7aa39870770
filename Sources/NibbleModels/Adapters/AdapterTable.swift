import NibbleCore

/// What the rows of each slot take of a model's adapters: the host's records, and a buffer of weights on every backend.
final class AdapterTable {
    private let registry: AdapterRegistry
    private var devices: [(backend: any Backend, weights: Tensor)] = []
    private var records: [AdapterWeights]
    /// One slot's weights.
    private let staged = Tensor.host(.float32, [1, AdapterRegistry.limit])
    private var generation: Int

    /// No slot uses an adapter.
    /// - Throws: `BackendError`
    init(_ registry: AdapterRegistry, slots: Int, backends: [any Backend]) throws {
        self.registry = registry
        records = Array(repeating: [:], count: max(slots, 1))
        generation = registry.generation
        let zeros = Tensor.host(.float32, [records.count, AdapterRegistry.limit])
        zeros.mutableHostElements(Float.self).initialize(repeating: 0)
        for backend in backends {
            let weights = try backend.allocate(.float32, zeros.shape)
            try backend.copy(zeros, to: weights)
            devices.append((backend, weights))
        }
    }

    static func byteCount(slots: Int) -> Int { max(slots, 1) * AdapterRegistry.limit * DType.float32.byteCount }

    /// - Parameter slots: int32, the slot of each token.
    func rows(on backend: any Backend, slots: Tensor) -> AdapterRows {
        guard let device = devices.first(where: { $0.backend === backend }) else {
            preconditionFailure("the backend \(backend.device) runs no layer of this stack")
        }
        return AdapterRows(weights: device.weights, slots: slots)
    }

    func set(_ weights: AdapterWeights, slot: Int) throws {
        guard records[slot] != weights else { return }
        records[slot] = weights
        try write(slot)
    }

    /// Slot s gets what slot `sources[s]` has.
    func gather(_ sources: [Int]) throws {
        let old = records
        for (slot, source) in sources.enumerated() { try set(old[source], slot: slot) }
    }

    /// Follows changes of the registry. Answers whether there were any: graphs that were captured before are void then.
    func update() throws -> Bool {
        let current = registry.generation
        guard generation != current else { return false }
        generation = current
        for slot in records.indices where !records[slot].isEmpty { try write(slot) }
        return true
    }

    private func write(_ slot: Int) throws {
        let row = staged.mutableHostElements(Float.self)
        row.update(repeating: 0)
        for (id, weight) in records[slot] {
            // One that was detached is not used.
            if let column = registry.column(of: id) { row[column] = weight }
        }
        for device in devices { try device.backend.copy(staged, to: device.weights.rows(slot..<slot + 1)) }
    }
}
