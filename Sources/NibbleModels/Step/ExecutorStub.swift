/// How large an executor is.
package struct ExecutorSize: Sendable, Equatable {
    /// Sequences side by side.
    package var slots: Int
    /// Positions that a sequence may have; `nil`: as many as the model was made for. Never more than the cache holds and the
    /// model has embeddings for.
    package var context: Int?
    /// Bytes for keys and values on each device; `nil`: three quarters of what is free there.
    package var cacheBytes: Int?
    /// Tokens of a step; `nil`: as the model was loaded.
    package var chunkTokens: Int?
    /// Physical cache blocks; `nil`: as many as ``cacheBytes`` allows, but no more than all slots can fill.
    package var blocks: Int?

    package init(
        slots: Int, context: Int? = nil, cacheBytes: Int? = nil, chunkTokens: Int? = nil, blocks: Int? = nil
    ) {
        self.slots = slots
        self.context = context
        self.cacheBytes = cacheBytes
        self.chunkTokens = chunkTokens
        self.blocks = blocks
    }
}

extension LanguageModel {
    /// Stands in until models have an executor.
    package func makeExecutor(_ size: ExecutorSize) throws -> any StepRunning {
        throw ModelError.wrongField("executor", file: "this build", expected: "a model that runs steps", found: "none")
    }
}
