import Foundation

/// Slopes of attention with linear biases (arXiv 2108.12409).
enum Alibi {
    /// BLOOM's and Falcon's rule: a geometric series for the largest power of two of heads, every second member of the
    /// next finer series for the rest.
    static func slopes(heads: Int) -> [Float] {
        var power = 1
        while power * 2 <= heads { power *= 2 }
        func series(_ count: Int) -> Float { Float(pow(2.0, -pow(2.0, -(log2(Double(count)) - 3)))) }
        let base = series(power)
        var slopes = (1...power).map { powf(base, Float($0)) }
        let extraBase = series(2 * power)
        slopes += (0..<(heads - power)).map { powf(extraBase, Float(2 * $0 + 1)) }
        return slopes
    }

    /// MPT's rule: one series for the next power of two of heads, its odd members first where heads are fewer.
    static func descendingSlopes(heads: Int, maximum: Double) -> [Float] {
        var power = 1
        while power < heads { power *= 2 }
        let series = (1...power).map { 1 / powf(2, Float($0) * Float(maximum / Double(power))) }
        guard power != heads else { return series }
        let odd = stride(from: 1, to: power, by: 2).map { series[$0] }
        let even = stride(from: 0, to: power, by: 2).map { series[$0] }
        return Array((odd + even).prefix(heads))
    }
}
