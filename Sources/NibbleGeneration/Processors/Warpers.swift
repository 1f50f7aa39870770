import Foundation

// Warpers narrow the distribution that is sampled from. Each is applied to the result of the one before.

/// A warper's threshold, and the number of tokens that it keeps at least.
struct WarperLimit: Sendable {
    let value: Double
    let minimumKept: Int

    init(_ value: Double, _ minimumKept: Int) {
        self.value = value
        self.minimumKept = max(minimumKept, 1)
    }
}

/// Divides by the temperature.
package struct TemperatureWarper: LogitsProcessor {
    private let temperature: Float

    package init(_ temperature: Double) { self.temperature = Float(temperature) }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        for index in scores.indices { scores[index] /= temperature }
    }

    package var deviceForm: DeviceForm? { .temperature(temperature) }
}

/// Keeps the k largest scores, and scores equal to the k-th.
package struct TopKWarper: LogitsProcessor {
    private let k: Int

    package init(_ k: Int, minimumKept: Int = 1) { self.k = max(k, minimumKept, 1) }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        guard k < scores.count else { return }
        let least = context.scratch.largest(k, of: scores)
        for index in scores.indices where scores[index] < least { scores[index] = -.infinity }
    }

    package var deviceForm: DeviceForm? { .topK(k) }
}

/// Keeps the fewest tokens whose probabilities add up to p (Holtzman et al. 2020).
package struct TopPWarper: LogitsProcessor {
    private let limit: WarperLimit

    package init(_ p: Double, minimumKept: Int = 1) { limit = WarperLimit(p, minimumKept) }

    package var deviceForm: DeviceForm? { limit.minimumKept == 1 ? .topP(Float(limit.value)) : nil }

    /// From the least likely token upwards, tokens are removed while their probabilities add up to at most 1 − p.
    ///
    /// Tokens fall into classes by their distance from the best one; only the class in which the sum crosses 1 − p has to
    /// be sorted.
    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        let scratch = context.scratch
        let maximum = scores.maximum
        guard maximum.isFinite else { return }
        let total = fillMasses(scores, maximum, scratch)
        let budget = (1 - limit.value) * total
        var removed = 0.0
        var boundary = scratch.masses.count - 1
        while boundary > 0, removed + scratch.masses[boundary] <= budget {
            removed += scratch.masses[boundary]
            boundary -= 1
        }
        let crossing = scores.indices.filter { Self.distanceClass(scores[$0], maximum) == boundary && scores[$0] > -.infinity }
            .sorted { scores[$0] < scores[$1] || (scores[$0] == scores[$1] && $0 < $1) }
        let protected = protectedTokens(scores)
        for index in scores.indices where Self.distanceClass(scores[index], maximum) > boundary {
            scores[index] = -.infinity
        }
        for index in crossing {
            removed += Double(scratch.floats[index])
            guard removed <= budget else { break }
            scores[index] = -.infinity
        }
        for entry in protected { scores[entry.index] = entry.score }
    }

    /// exp(score − maximum) of every token into `floats`, their sums by class into `masses`; returns the whole sum.
    private func fillMasses(
        _ scores: UnsafeMutableBufferPointer<Float>, _ maximum: Float, _ scratch: ScoreScratch
    ) -> Double {
        scratch.floats.withUnsafeMutableBufferPointer { floats in
            scratch.masses.withUnsafeMutableBufferPointer { masses in
                masses.update(repeating: 0)
                for index in scores.indices {
                    let weight = scores[index] > -.infinity ? exp(scores[index] - maximum) : 0
                    floats[index] = weight
                    masses[Self.distanceClass(scores[index], maximum)] += Double(weight)
                }
                return masses.reduce(0, +)
            }
        }
    }

    /// The largest scores, which must stay; among equals those of higher index.
    private func protectedTokens(_ scores: UnsafeMutableBufferPointer<Float>) -> [TopSelection.Entry] {
        if limit.minimumKept == 1 {
            let maximum = scores.maximum
            return scores.lastIndex { $0 == maximum }.map { [.init(score: maximum, index: $0)] } ?? []
        }
        var selection = TopSelection(limit: limit.minimumKept)
        for index in scores.indices.reversed() { selection.insert(scores[index], scores.count - 1 - index) }
        return selection.entries.map { .init(score: $0.score, index: scores.count - 1 - $0.index) }
    }

    /// 0 for the best score, one more for every 1/64 below it.
    private static func distanceClass(_ score: Float, _ maximum: Float) -> Int {
        let distance = (maximum - score) * 64
        return distance < 2047 ? Int(distance) : 2047
    }
}

/// Keeps tokens at least `fraction` as likely as the best one.
package struct MinPWarper: LogitsProcessor {
    private let limit: WarperLimit

    package init(_ fraction: Double, minimumKept: Int = 1) { limit = WarperLimit(fraction, minimumKept) }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        let maximum = scores.maximum
        guard maximum.isFinite else { return }
        let fraction = Float(limit.value)
        let least = context.scratch.largest(min(limit.minimumKept, scores.count), of: scores)
        for index in scores.indices where scores[index] < least && exp(scores[index] - maximum) < fraction {
            scores[index] = -.infinity
        }
    }

    package var deviceForm: DeviceForm? { limit.minimumKept == 1 ? .minP(Float(limit.value)) : nil }
}

/// Keeps tokens of at least probability ε (Hewitt et al. 2022).
package struct EpsilonWarper: LogitsProcessor {
    private let limit: WarperLimit

    package init(_ epsilon: Double, minimumKept: Int = 1) { limit = WarperLimit(epsilon, minimumKept) }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        scores.removeProbabilities(below: Float(limit.value), keeping: limit.minimumKept, context.scratch)
    }
}

/// Keeps tokens of at least probability min(ε, √ε·e^−entropy) (Hewitt et al. 2022).
package struct EtaWarper: LogitsProcessor {
    private let limit: WarperLimit

    package init(_ epsilon: Double, minimumKept: Int = 1) { limit = WarperLimit(epsilon, minimumKept) }

    package func process(_ scores: UnsafeMutableBufferPointer<Float>, _ context: RowContext) {
        let epsilon = Float(limit.value)
        let eta = min(epsilon, epsilon.squareRoot() * exp(-scores.entropy))
        scores.removeProbabilities(below: eta, keeping: limit.minimumKept, context.scratch)
    }
}

extension UnsafeMutableBufferPointer<Float> {
    /// −Σ p ln p of the softmax.
    fileprivate var entropy: Float {
        let total = logSumExp
        guard total.isFinite else { return 0 }
        var sum = 0.0
        for score in self where score > -.infinity {
            let logarithm = score - total
            sum -= Double(exp(logarithm)) * Double(logarithm)
        }
        return Float(sum)
    }

    fileprivate func removeProbabilities(below bound: Float, keeping minimum: Int, _ scratch: ScoreScratch) {
        let total = logSumExp
        guard total.isFinite else { return }
        let least = scratch.largest(Swift.min(minimum, count), of: self)
        for index in indices where self[index] < least && exp(self[index] - total) < bound { self[index] = -.infinity }
    }
}
