/// How long a step takes: a + b · tokens + c · lengths, fitted while steps run.
///
/// Recursive least squares with forgetting: what was measured 200 steps ago counts a third of what is measured now.
/// Coefficients are in seconds and never negative in a prediction.
package struct StepTimeModel: Sendable {
    private var coefficients: (Double, Double, Double)
    /// The inverse of the weighted sum of x·xᵀ, row by row.
    private var covariance: [Double]
    private static let forgetting = 0.995
    /// Lengths are counted in thousands, so that the three terms are of one size.
    private static let lengthUnit = 1000.0

    /// Begins with a guess: `secondsPerToken` for every token, nothing else.
    package init(secondsPerToken: Double) {
        coefficients = (0, secondsPerToken, 0)
        covariance = [1e-2, 0, 0, 0, 1e-4, 0, 0, 0, 1e-2]
    }

    /// - Parameters:
    ///   - tokens: of the step.
    ///   - lengths: what its rows hold, added up.
    package func seconds(tokens: Int, lengths: Int) -> Double {
        max(coefficients.0, 0) + max(coefficients.1, 0) * Double(tokens)
            + max(coefficients.2, 0) * Double(lengths) / Self.lengthUnit
    }

    /// How many tokens a step of `seconds` may have.
    package func tokens(within seconds: Double, lengths: Int) -> Int {
        let left = seconds - self.seconds(tokens: 0, lengths: lengths)
        guard left > 0 else { return 0 }
        guard coefficients.1 > 0 else { return Int.max }
        return Int(min(left / coefficients.1, 1e9))
    }

    /// Learns from a step. Times that cannot be (negative, not finite) are ignored.
    package mutating func observe(tokens: Int, lengths: Int, seconds: Double) {
        guard seconds.isFinite, seconds >= 0 else { return }
        let x = [1, Double(tokens), Double(lengths) / Self.lengthUnit]
        var gain = [0.0, 0.0, 0.0]
        var scale = Self.forgetting
        for i in 0..<3 {
            for j in 0..<3 { gain[i] += covariance[3 * i + j] * x[j] }
            scale += x[i] * gain[i]
        }
        let predicted = coefficients.0 * x[0] + coefficients.1 * x[1] + coefficients.2 * x[2]
        let error = (seconds - predicted) / scale
        coefficients.0 += gain[0] * error
        coefficients.1 += gain[1] * error
        coefficients.2 += gain[2] * error
        for i in 0..<3 {
            for j in 0..<3 {
                covariance[3 * i + j] = (covariance[3 * i + j] - gain[i] * gain[j] / scale) / Self.forgetting
            }
        }
        limitCovariance()
    }

    /// Without news in a direction forgetting would let its uncertainty grow without end.
    private mutating func limitCovariance() {
        let largest = max(covariance[0], covariance[4], covariance[8])
        if largest > 1 { for index in covariance.indices { covariance[index] /= largest } }
    }
}
