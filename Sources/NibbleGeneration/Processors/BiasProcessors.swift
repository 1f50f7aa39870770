package import NibbleModels

/// Adds numbers to the scores of single tokens, or of tokens that would complete a sequence.
package struct SequenceBiasProcessor: LogitsProcessor {
    private let biases: [(prefix: [Int32], last: Int, bias: Float)]

    /// A later entry for the same sequence replaces an earlier one.
    package init(_ entries: [SequenceBias]) {
        var order: [[Int32]] = []
        var values: [[Int32]: Double] = [:]
        for entry in entries where !entry.tokens.isEmpty {
            if values.updateValue(entry.bias, forKey: entry.tokens) == nil { order.append(entry.tokens) }
        }
        biases = order.map { tokens in
            (Array(tokens.dropLast()), Int(tokens[tokens.count - 1]), Float(values[tokens] ?? 0))
        }
    }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        for entry in biases where scores.indices.contains(entry.last) && context.ids.ends(with: entry.prefix) {
            scores[entry.last] += entry.bias
        }
    }
}

/// Forbids tokens, or tokens that would complete a sequence.
package struct NoBadWordsProcessor: LogitsProcessor {
    private let bias: SequenceBiasProcessor
    package let deviceForm: DeviceForm?

    /// - Parameter eos: single-token entries equal to one of these are left out.
    package init(_ words: [[Int32]], eos: [Int32]) {
        let words = words.filter { word in !eos.contains { word == [$0] } }
        bias = SequenceBiasProcessor(words.map { SequenceBias(tokens: $0, bias: -.infinity) })
        deviceForm = words.allSatisfy { $0.count == 1 } ? .forbidden(words.flatMap { $0 }) : nil
    }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        bias.process(scores, context)
    }
}

extension UnsafeBufferPointer<Int32> {
    func ends(with suffix: [Int32]) -> Bool {
        guard suffix.count <= count else { return false }
        return suffix.isEmpty || self[(count - suffix.count)...].elementsEqual(suffix)
    }
}

/// Forbids tokens at every step.
package struct SuppressTokensProcessor: LogitsProcessor {
    private let tokens: [Int32]

    package init(_ tokens: [Int32]) { self.tokens = tokens }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) { scores.forbid(tokens) }

    package var deviceForm: DeviceForm? { .forbidden(tokens) }
}

/// Forbids tokens at the first step.
package struct SuppressTokensAtBeginProcessor: LogitsProcessor {
    private let tokens: [Int32]
    private let begin: Int

    /// - Parameter begin: the length at which it acts.
    package init(_ tokens: [Int32], begin: Int) {
        self.tokens = tokens
        self.begin = begin
    }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        if context.ids.count == begin { scores.forbid(tokens) }
    }
}

/// Which tokens may follow, decided by the caller from the item's number and the tokens so far.
public typealias PrefixAllowedTokens = @Sendable (_ item: Int, _ ids: [Int32]) -> [Int32]

/// Keeps only the tokens that the caller's function allows.
///
/// If an item is left without any finite score, its allowed tokens become equally likely.
package struct PrefixConstrainedProcessor: LogitsProcessor {
    private let allowed: PrefixAllowedTokens
    private let beams: Int

    package init(beams: Int, _ allowed: @escaping PrefixAllowedTokens) {
        self.beams = max(beams, 1)
        self.allowed = allowed
    }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) throws {
        let rows = LogitsBatch(rows: 1, vocabularySize: scores.count, values: scores)
        try process(rows, [context])
    }

    package func process(_ batch: LogitsBatch, _ contexts: [RowContext]) throws {
        for start in stride(from: 0, to: contexts.count, by: beams) {
            let rows = start..<min(start + beams, contexts.count)
            let tokens = try rows.map { try allowedTokens(contexts[$0]) }
            let isDead = zip(rows, tokens).allSatisfy { row, tokens in
                tokens.allSatisfy { id in
                    let token = Int(id)
                    return token < 0 || token >= batch.vocabularySize || batch[row][token] == -.infinity
                }
            }
            for (row, tokens) in zip(rows, tokens) { keep(tokens, in: batch[row], flat: isDead) }
        }
    }

    private func allowedTokens(_ context: RowContext) throws -> [Int32] {
        let tokens = allowed(context.row / beams, Array(context.ids))
        guard !tokens.isEmpty else { throw GenerationError.constraintUnsatisfiable(item: context.row / beams) }
        return tokens
    }

    private func keep(
        _ tokens: [Int32], in scores: UnsafeMutableBufferPointer<Float>, flat: Bool
    ) {
        let valid = tokens.filter { scores.indices.contains(Int($0)) }
        let values = valid.map { flat ? 0 : scores[Int($0)] }
        scores.update(repeating: -.infinity)
        for (token, value) in zip(valid, values) { scores[Int(token)] = value }
    }
}
