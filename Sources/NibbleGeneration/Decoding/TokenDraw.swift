import Foundation
internal import NibbleCore

/// Random numbers of one generation. A number depends on its row, the row's step and its purpose, and neither on the batch nor
/// on the order of computation.
struct RandomSource {
    enum Purpose: UInt64 {
        case token = 0
        case draft, acceptance, correction
        case beam
    }

    let seed: UInt64

    func uniform(row: Int, step: Int, _ purpose: Purpose = .token, number: Int = 0) -> Float {
        let lane = purpose.rawValue &+ UInt64(number) << 8
        return RandomStream.uniform(
            seed: lane == 0 ? seed : RandomStream.mix(seed ^ RandomStream.mix(lane)), stream: UInt64(row), counter: UInt64(step))
    }
}

extension UnsafeMutableBufferPointer<Float> {
    /// Turns scores into probabilities (a softmax). Returns false where no score is finite or one is not a number.
    func softmax() -> Bool {
        let maximum = self.maximum
        guard maximum.isFinite else { return false }
        var sum = 0.0
        for index in indices {
            let weight = self[index] > -.infinity ? exp(self[index] - maximum) : (self[index].isNaN ? .nan : 0)
            self[index] = weight
            sum += Double(weight)
        }
        guard sum.isFinite else { return false }
        let scale = Float(1 / sum)
        for index in indices { self[index] *= scale }
        return true
    }

    /// The first index at which the running sum of these weights exceeds `u` times their whole sum; `nil` if that is 0 or
    /// not finite.
    func draw(_ u: Float) -> Int? {
        var total = 0.0
        for weight in self { total += Double(weight) }
        guard total > 0, total.isFinite else { return nil }
        return UnsafeBufferPointer(self)[...].firstIndex(whereSumExceeds: Double(u) * total)
    }
}

extension Slice<UnsafeBufferPointer<Float>> {
    /// The first index at which the running sum of these weights exceeds `target`, else the last with any weight.
    func firstIndex(whereSumExceeds target: Double) -> Int? {
        var sum = 0.0
        var last: Int?
        for index in indices where self[index] > 0 {
            sum += Double(self[index])
            last = index
            if sum > target { return index }
        }
        return last
    }
}

extension ScoreScratch {
    /// One draw from the softmax of `scores`, in ascending order of ids: the first token whose cumulative probability exceeds
    /// `u`. `nil` where nothing can be drawn. Leaves `scores` as they are.
    func drawToken(_ scores: UnsafeMutableBufferPointer<Float>, _ u: Float) -> Int? {
        floats.withUnsafeMutableBufferPointer { weights in
            let weights = UnsafeMutableBufferPointer(rebasing: weights[0..<scores.count])
            _ = weights.update(fromContentsOf: scores)
            return weights.softmax() ? weights.draw(u) : nil
        }
    }
}
