import Foundation
import NibbleCore
import NibbleModels

/// How well a model predicts a text.
public struct PerplexityScore: Sendable {
    /// The number of tokens scored.
    public var tokens: Int
    /// Nats per token.
    public var meanNegativeLogLikelihood: Double
    /// e to the power of ``meanNegativeLogLikelihood``.
    public var perplexity: Double { exp(meanNegativeLogLikelihood) }
}

/// Cuts token ids into windows for scoring.
package enum TextWindows {
    /// Window w holds `ids[W·w ... W·(w+1)]`: W tokens to feed, and for each the next one to score. An incomplete last window is
    /// dropped, unless it is the only one.
    package static func cut(_ ids: [Int32], _ window: Int) -> [[Int32]] {
        guard ids.count > window else { return ids.count > 1 ? [ids] : [] }
        return (0..<(ids.count - 1) / window).map { Array(ids[window * $0...window * ($0 + 1)]) }
    }
}

extension PretrainedModel {
    /// Scores each token but the first of every sequence, given the tokens before it.
    ///
    /// - Parameter sequences: token ids; each sequence is scored on its own.
    /// - Throws: ``AutoModelError/isEncoderDecoder(_:)``, ``SessionError``, ``BackendError``.
    public func perplexity(of sequences: [[Int32]]) throws -> PerplexityScore {
        guard !isEncoderDecoder else { throw AutoModelError.isEncoderDecoder(folder.path) }
        var total = 0.0
        var tokens = 0
        for sequence in sequences where sequence.count > 1 {
            let session = try model.makeSession(SessionRequest(rows: 1, capacity: sequence.count))
            total += try session.feed([RowTokens(row: 0, tokens: Array(sequence.dropLast()))], logits: .all) { batch in
                (0..<batch.rows).reduce(0) { $0 + negativeLogLikelihood(batch[$1], of: Int(sequence[$1 + 1])) }
            }
            tokens += sequence.count - 1
        }
        return PerplexityScore(tokens: tokens, meanNegativeLogLikelihood: tokens == 0 ? 0 : total / Double(tokens))
    }

    private func negativeLogLikelihood(_ logits: UnsafeMutableBufferPointer<Float>, of id: Int) -> Double {
        var largest = -Float.infinity
        for logit in logits { largest = max(largest, logit) }
        var sum = 0.0
        for logit in logits { sum += Double(expf(logit - largest)) }
        return log(sum) + Double(largest) - Double(logits[id])
    }
}
