import Foundation

extension UnsafeMutableBufferPointer<Float> {
    /// The largest number; −∞ if there is none.
    var maximum: Float {
        var result = -Float.infinity
        for score in self where score > result { result = score }
        return result
    }

    /// ln Σ exp(score), summed in double precision.
    var logSumExp: Float {
        let maximum = self.maximum
        guard maximum.isFinite else { return maximum }
        var sum = 0.0
        for score in self where score > -.infinity { sum += Double(exp(score - maximum)) }
        return maximum + Float(log(sum))
    }

    /// Turns logits into log-probabilities. Leaves a row without a finite maximum as it is.
    func normalizeLogarithms() {
        let total = logSumExp
        guard total.isFinite else { return }
        for index in indices { self[index] -= total }
    }

    func forbid(_ token: Int) {
        if indices.contains(token) { self[token] = -.infinity }
    }

    func forbid(_ tokens: [Int32]) {
        for token in tokens { forbid(Int(token)) }
    }

    func forbidAll(but tokens: [Int32]) {
        update(repeating: -.infinity)
        for token in tokens where indices.contains(Int(token)) { self[Int(token)] = 0 }
    }

    /// The index of the largest score, the lowest among equals; `nil` where every score is −∞ or one is NaN.
    var argmax: Int? {
        guard !holdsNaN else { return nil }
        let maximum = self.maximum
        return maximum > -.infinity ? firstIndex(of: maximum) : nil
    }

    var holdsNaN: Bool {
        // Without an early exit the loop is vectorized.
        var found: UInt32 = 0
        for score in self { found |= score != score ? 1 : 0 }
        return found != 0
    }
}
