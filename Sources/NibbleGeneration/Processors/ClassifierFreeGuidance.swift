internal import NibbleCore
internal import NibbleModels

/// Moves scores away from those for another prompt (Sanchez et al. 2023): with log-probabilities s for the prompt and u for the
/// other one, u + g·(s − u).
///
/// A second session holds the other prompts, each followed by its row's new tokens. Before each step it is rolled back to the
/// prefix it shares with the row, so rows may be reordered and rolled back.
final class ClassifierFreeGuidance {
    private let scale: Float
    private let prompts: [[Int32]]
    private let session: any DecodingSession

    /// - Parameters:
    ///   - prompts: for each decoding row, the tokens that replace its prompt.
    ///   - newTokens: the most tokens that may follow a prompt.
    ///   - adapters: of each decoding row; `nil`: those that are active.
    init(
        scale: Double, model: any GenerativeModel, prompts: [[Int32]], newTokens: Int, adapters: [AdapterWeights]?,
        cacheQuantization: KeyValueQuantization?
    ) throws {
        self.scale = Float(scale)
        self.prompts = prompts
        let longest = prompts.map(\.count).max() ?? 0
        session = try model.makeSession(
            SessionRequest(
                rows: prompts.count, capacity: longest + newTokens, adapters: adapters, cacheQuantization: cacheQuantization))
    }

    func process(_ batch: LogitsBatch, _ contexts: [RowContext]) throws {
        let inputs = try contexts.map { RowTokens(row: $0.row, tokens: try advance($0)) }
        try session.feed(inputs, logits: .last) { unguided in
            for (index, _) in contexts.enumerated() { combine(batch[index], unguided[index]) }
        }
    }

    /// Rolls a row back to the prefix it shares with its sequence; returns the missing tokens, at least one.
    private func advance(_ context: RowContext) throws -> [Int32] {
        let target = prompts[context.row] + context.ids.dropFirst(context.promptLength)
        return Array(target[try session.keepPrefix(row: context.row, of: target)...])
    }

    private func combine(_ scores: UnsafeMutableBufferPointer<Float>, _ other: UnsafeMutableBufferPointer<Float>) {
        scores.normalizeLogarithms()
        other.normalizeLogarithms()
        for index in scores.indices { scores[index] = other[index] + scale * (scores[index] - other[index]) }
    }
}
