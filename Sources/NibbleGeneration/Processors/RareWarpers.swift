import Foundation

/// Keeps the tokens whose surprise is nearest to the expected one, up to a probability of `mass` (Meister et al. 2022).
package struct TypicalWarper: LogitsProcessor {
    private let limit: WarperLimit

    package init(_ mass: Double, minimumKept: Int = 1) { limit = WarperLimit(mass, minimumKept) }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        let total = scores.logSumExp
        guard total.isFinite else { return }
        let deviations = deviations(scores, total, context.scratch)
        let order = scores.indices.sorted {
            deviations[$0] < deviations[$1] || (deviations[$0] == deviations[$1] && $0 < $1)
        }
        var cumulative = 0.0
        var last = 0
        for index in order {
            cumulative += Double(exp(scores[index] - total))
            guard Float(cumulative) < Float(limit.value), last < scores.count - 1 else { break }
            last += 1
        }
        let bound = deviations[order[last]]
        for (position, index) in order.enumerated() where position >= limit.minimumKept && deviations[index] > bound {
            scores[index] = -.infinity
        }
    }

    /// How far each token's surprise lies from the entropy.
    private func deviations(
        _ scores: UnsafeMutableBufferPointer<Float>, _ total: Float, _ scratch: ScoreScratch
    ) -> [Float] {
        var entropy = 0.0
        for score in scores where score > -.infinity {
            entropy -= Double(exp(score - total)) * Double(score - total)
        }
        for index in scores.indices {
            let deviation = abs(total - scores[index] - Float(entropy))
            scratch.floats[index] = deviation.isNaN ? .infinity : deviation
        }
        return scratch.floats
    }
}

/// Keeps a prefix of the 100 best tokens whose entropy stays within a fraction of the whole (top-H decoding).
package struct TopHWarper: LogitsProcessor {
    private let fraction: Float

    package init(_ fraction: Double) { self.fraction = Float(fraction) }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        var best = TopSelection(limit: 100)
        best.insert(contentsOf: scores)
        best.finish()
        guard let first = best.entries.first, first.score.isFinite else { return }
        let kept = prefix(best.entries)
        let values = best.entries.prefix(kept)
        scores.update(repeating: -.infinity)
        for entry in values { scores[entry.index] = entry.score }
    }

    /// How many of the sorted entries stay; at least one.
    private func prefix(_ entries: [TopSelection.Entry]) -> Int {
        let maximum = entries[0].score
        let sum = entries.reduce(0.0) { $0 + Double(exp($1.score - maximum)) }
        let terms = entries.map { entry -> Float in
            let p = Double(exp(entry.score - maximum)) / sum
            return p > 0 ? Float(-p * log(p)) : .nan
        }
        let bound = terms.reduce(0) { $1.isNaN ? $0 : $0 + $1 } * fraction
        var cumulative: Float = 0
        for (position, term) in terms.enumerated() {
            cumulative += term
            guard cumulative <= bound else { return max(position, 1) }
        }
        return entries.count
    }
}
