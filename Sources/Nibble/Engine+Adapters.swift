package import NibbleModels

extension Engine {
    /// Adds an adapter to all copies of the model, between two steps of each. No request uses it yet.
    /// - Throws: ``EngineError``, ``ModelError``, ``BackendError``; no copy has it then.
    package func attach(_ adapter: LowRankAdapter) async throws -> AdapterID {
        let id = AdapterID()
        for (index, model) in models.enumerated() {
            do {
                try await tokenEngine.perform(onExecutor: index) {
                    try model.adapters.attach(adapter, as: id)
                    return true
                }
            } catch {
                for model in models[..<index] { try? model.adapters.detach(id) }
                throw error
            }
        }
        return id
    }

    /// Removes an adapter from all copies. Requests that still use it would go on without it.
    /// - Throws: ``EngineError``, ``BackendError``.
    package func detach(_ id: AdapterID) async throws {
        for (index, model) in models.enumerated() {
            try await tokenEngine.perform(onExecutor: index) {
                try model.adapters.detach(id)
                return true
            }
        }
    }
}
