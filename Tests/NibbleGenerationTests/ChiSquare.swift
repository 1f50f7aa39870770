import Foundation

/// Pearson's test of counts against probabilities.
struct ChiSquare {
    /// Standard normal deviate that corresponds to the statistic (Wilson and Hilferty's approximation).
    let deviate: Double
    /// Draws of what has no probability.
    let impossible: Int

    init(_ counts: [Int], _ probabilities: [Double]) {
        let total = Double(counts.reduce(0, +))
        impossible = zip(counts, probabilities).filter { $1 == 0 }.map(\.0).reduce(0, +)
        var statistic = 0.0
        var cells = 0
        var (restCount, restExpected) = (0.0, 0.0)
        for (count, probability) in zip(counts, probabilities) where probability > 0 {
            let expected = probability * total
            if expected < 8 {
                restCount += Double(count)
                restExpected += expected
            } else {
                statistic += pow(Double(count) - expected, 2) / expected
                cells += 1
            }
        }
        if restExpected >= 1 {
            statistic += pow(restCount - restExpected, 2) / restExpected
            cells += 1
        }
        let freedom = Double(max(cells - 1, 1))
        deviate = (cbrt(statistic / freedom) - (1 - 2 / (9 * freedom))) / (2 / (9 * freedom)).squareRoot()
    }

    /// Whether counts as far off as these are likelier than one in a million.
    var isPlausible: Bool { deviate < 4.75 && impossible == 0 }
}
