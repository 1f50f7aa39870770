package import NibbleModels
import NibbleServing
import Synchronization

extension Engine {
    /// Numbers in a text's vector; `nil` where the model makes none.
    package var embeddingWidth: Int? { model.model.embeddingWidth }

    /// The vectors of texts: hidden states after the final norm, pooled. They run on the engine's thread, a chunk of tokens between
    /// two steps, with a cache of their own.
    ///
    /// - Parameters:
    ///   - texts: token ids, none empty.
    ///   - pooling: how the hidden states become vectors.
    ///   - adapters: `nil`: those that are active.
    /// - Throws: ``EngineError``, ``ModelError``, `BackendError`; `CancellationError` if the task is cancelled.
    package func embeddings(of texts: [[Int32]], _ pooling: Pooling, adapters: AdapterWeights? = nil) async throws -> [[Float]] {
        for text in texts {
            guard !text.isEmpty else { throw EngineError.emptyPrompt }
            guard text.count <= tokenEngine.capacity else {
                throw EngineError.promptTooLong(tokens: text.count, context: tokenEngine.capacity)
            }
            if let token = text.first(where: { $0 < 0 || Int($0) >= tokenEngine.vocabularySize }) {
                throw ModelError.tokenOutOfRange(token: token, vocabularySize: tokenEngine.vocabularySize)
            }
        }
        guard !texts.isEmpty else { return [] }
        let work = EmbeddingWork(model.model, texts, pooling, adapters ?? model.model.adapters.active)
        try await tokenEngine.perform { try work.runChunk() }
        return work.vectors
    }
}

/// Texts on their way through the model. Used by the engine's thread, and by its owner once that has finished.
private final class EmbeddingWork: @unchecked Sendable {
    private let model: LanguageModel
    private let pooling: Pooling
    private let adapters: AdapterWeights
    private let capacity: Int
    private var texts: ArraySlice<[Int32]>
    private var pass: EmbeddingPass?
    private var current: EmbeddingPass.Text?
    private(set) var vectors: [[Float]] = []

    init(_ model: LanguageModel, _ texts: [[Int32]], _ pooling: Pooling, _ adapters: AdapterWeights) {
        self.adapters = adapters
        self.model = model
        self.texts = texts[...]
        self.pooling = pooling
        capacity = texts.map(\.count).max() ?? 1
    }

    /// Returns whether all texts have run. The pass and its memory are gone then.
    func runChunk() throws -> Bool {
        let pass = try pass ?? EmbeddingPass(model, capacity: capacity)
        self.pass = pass
        var text = current ?? EmbeddingPass.Text(texts.removeFirst(), pooling, adapters: adapters)
        let vector = try pass.run(&text)
        current = vector == nil ? text : nil
        if let vector { vectors.append(vector) }
        guard current == nil, texts.isEmpty else { return false }
        self.pass = nil
        return true
    }
}
