import Foundation

extension BeamSearch {
    /// `keep` draws without replacement from the softmax of ``accumulated``, in the order drawn. When nothing likely is
    /// left, the lowest indices follow.
    mutating func drawWithoutReplacement(_ item: Int) -> [Int] {
        weights.fill(accumulated)
        var drawn: [Int] = []
        let limit = min(keep, accumulated.count)
        while drawn.count < limit {
            let u = request.random.uniform(row: item * beams, step: newCount, .beam, number: drawn.count)
            guard let index = weights.take(u) else { break }
            drawn.append(index)
        }
        var rest = 0
        while drawn.count < limit {
            if !drawn.contains(rest) { drawn.append(rest) }
            rest += 1
        }
        return drawn
    }
}

/// Weights of many outcomes that are drawn from one after another. The sums of pieces are kept, so that a draw looks through
/// one piece only.
struct WeightPool {
    private static let pieceSize = 4096

    private var weights: [Float] = []
    private var sums: [Double] = []

    /// exp(score − best) of each score; 0 for what is not a number.
    mutating func fill(_ scores: [Float]) {
        if weights.count != scores.count { weights = Array(repeating: 0, count: scores.count) }
        scores.withUnsafeBufferPointer { scores in
            weights.withUnsafeMutableBufferPointer { weights in
                var maximum = -Float.infinity
                for score in scores where score > maximum { maximum = score }
                for index in scores.indices {
                    let weight = scores[index] > -.infinity ? exp(scores[index] - maximum) : 0
                    weights[index] = weight.isFinite ? weight : 0
                }
            }
        }
        sums = stride(from: 0, to: weights.count, by: Self.pieceSize).map { sum(from: $0) }
    }

    private func sum(from start: Int) -> Double {
        weights.withUnsafeBufferPointer { weights in
            var sum = 0.0
            for index in start..<min(start + Self.pieceSize, weights.count) { sum += Double(weights[index]) }
            return sum
        }
    }

    /// Draws an outcome, in ascending order of indices, and removes it. `nil` if no weight is left.
    mutating func take(_ u: Float) -> Int? {
        guard let lastPiece = sums.lastIndex(where: { $0 > 0 }) else { return nil }
        var target = Double(u) * sums.reduce(0, +)
        var piece = 0
        while piece < lastPiece, sums[piece] <= target {
            target -= sums[piece]
            piece += 1
        }
        let start = piece * Self.pieceSize
        let range = start..<min(start + Self.pieceSize, weights.count)
        guard let index = weights.withUnsafeBufferPointer({ $0[range].firstIndex(whereSumExceeds: target) }) else { return nil }
        weights[index] = 0
        sums[piece] = sum(from: start)
        return index
    }
}
