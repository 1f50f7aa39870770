import Foundation

extension BeamSearch {
    /// `keep` draws without replacement from the softmax of ``accumulated``, in the order drawn. When nothing likely is
    /// left, the lowest indices follow.
    mutating func drawWithoutReplacement(_ item: Int) -> [Int] {
        var weights = accumulated
        var drawn: [Int] = []
        let maximum = weights.withUnsafeMutableBufferPointer { $0.maximum }
        for index in weights.indices {
            let weight = exp(weights[index] - maximum)
            weights[index] = weight.isFinite ? weight : 0
        }
        let limit = min(keep, weights.count)
        while drawn.count < limit {
            let u = run.random.uniform(row: item * beams, step: newCount, .beam, number: drawn.count)
            guard let index = weights.withUnsafeMutableBufferPointer({ $0.draw(u) }) else { break }
            drawn.append(index)
            weights[index] = 0
        }
        var rest = 0
        while drawn.count < limit {
            if !drawn.contains(rest) { drawn.append(rest) }
            rest += 1
        }
        return drawn
    }
}
