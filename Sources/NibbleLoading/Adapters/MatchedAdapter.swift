import NibbleCheckpoint
package import NibbleCore
package import NibbleModels

/// An adapter whose tensors were matched to a model's modules.
package struct MatchedAdapter: Sendable {
    /// By the path of the linear module, or of the embedding.
    package internal(set) var lowRanks: [String: LowRankUpdate] = [:]
    /// By the path of the set of experts.
    package internal(set) var experts: [String: [ExpertUpdate]] = [:]
    /// Parameters of the base that the file replaces, by path.
    package internal(set) var replaced: [String: Tensor] = [:]
    /// Rows of embeddings that the file replaces, by the path of the table.
    package internal(set) var tokenRows: [String: TokenRows] = [:]
    /// Rows of the embedding and of the head, where the file holds both with another number than the base.
    package internal(set) var vocabularySize: Int?
    package internal(set) var warnings: [String] = []
    /// The file with the tensors, for messages.
    package let file: String

    /// B·A × scale, which is added to a weight.
    package struct LowRankUpdate: Sendable {
        /// [r, K]; of an embedding [r, V]
        package let a: Tensor
        /// [N, r]; of an embedding [E, r]
        package let b: Tensor
        /// [N]
        package let biasB: Tensor?
        /// DoRA's m: [N], of an embedding [E].
        package let magnitude: Tensor?
        package var scale: Double
        var isEmbedding = false
    }

    /// The same for a matrix of one expert.
    package struct ExpertUpdate: Sendable {
        let expert: Int
        /// `gate_up_proj`, or a half of it, or `up_proj` of experts without a gate, or `down_proj`.
        let projection: String
        /// float32 [r, K]
        let a: Tensor
        /// float32 [N, r]
        let b: Tensor
        var scale: Double
    }

    /// Rows of a table.
    package struct TokenRows: Sendable {
        let indices: [Int]
        /// [indices, E]
        let rows: Tensor
    }

    /// Everything multiplied by `factor`: low-rank sums grow, what replaces the base does not change.
    package func scaled(by factor: Double) -> MatchedAdapter {
        var adapter = self
        adapter.lowRanks = lowRanks.mapValues { update in
            var update = update
            update.scale *= factor
            return update
        }
        adapter.experts = experts.mapValues { updates in
            updates.map { update in
                var update = update
                update.scale *= factor
                return update
            }
        }
        return adapter
    }

    /// - Parameter tree: the model's, with ties as its checkpoint has them.
    /// - Throws: ``LoadError/wrongAdapter(file:place:expected:found:)`` for tensors that are missing, unexpected or of another
    ///   shape; `CheckpointError`, `JSONError`.
    package init(_ file: AdapterFile, _ architecture: ModelArchitecture, tree: ModuleTree) throws {
        self = try AdapterMatching(file, architecture, tree).matched()
    }

    init(file: AdapterFile) {
        self.file = file.path
        warnings = file.config.warnings
    }
}
