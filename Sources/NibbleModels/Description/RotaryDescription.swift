import Foundation
import NibbleCore

/// A rotary position embedding (arXiv 2104.09864) and its scaling.
package struct RotaryDescription: Sendable {
    /// Elements of a head that are rotated; even.
    package var rotated: Int
    package var theta: Double
    package var isInterleaved: Bool
    package var scaling: Scaling

    package enum Scaling: Sendable {
        case none
        /// Positions are divided by the factor.
        case linear(factor: Double)
        /// NTK-aware: theta grows with the length once it exceeds `original`.
        case dynamic(factor: Double, original: Int)
        case llama3(factor: Double, lowFrequency: Double, highFrequency: Double, original: Int)
        case yarn(Yarn)
        /// Only the first `pairs` frequencies rotate; the others are zero (Gemma 4). All are divided by the factor.
        case proportional(pairs: Int, factor: Double)
        /// Phi-3: one factor a frequency; the long list applies once the length exceeds `original`.
        case longRope(short: [Double], long: [Double], original: Int, attention: Double)
    }

    /// YaRN (arXiv 2309.00071).
    package struct Yarn: Sendable {
        package var factor: Double
        package var original: Int
        package var betaFast: Double
        package var betaSlow: Double
        package var attention: Double
        package var truncates: Bool
    }

    package init(rotated: Int, theta: Double, isInterleaved: Bool = false, scaling: Scaling = .none) {
        self.rotated = rotated
        self.theta = theta
        self.isInterleaved = isInterleaved
        self.scaling = scaling
    }

    /// Whether the frequencies depend on the running length.
    package var dependsOnLength: Bool {
        switch scaling {
        case .dynamic, .longRope: true
        default: false
        }
    }

    /// Identifies the table for a call whose longest row has `length` tokens.
    func variant(length: Int) -> Int {
        switch scaling {
        case .longRope(_, _, let original, _): length > original ? 1 : 0
        case .dynamic(_, let original): length > original ? length : 0
        default: 0
        }
    }
}

extension RotaryDescription {
    /// Inverse frequencies [rotated / 2] and the factor on cosines and sines, for a call of at most `length` tokens a row.
    package func frequencies(length: Int) -> (inverse: [Float], attention: Float) {
        switch scaling {
        case .none:
            (plain(theta: theta), 1)
        case .linear(let factor):
            (plain(theta: theta).map { $0 / Float(factor) }, 1)
        case .dynamic(let factor, let original):
            (plain(theta: dynamicTheta(factor: factor, original: original, length: length)), 1)
        case .llama3(let factor, let low, let high, let original):
            (plain(theta: theta).map { llama3($0, factor, low, high, Double(original)) }, 1)
        case .yarn(let yarn):
            (yarnFrequencies(yarn), Float(yarn.attention))
        case .proportional(let pairs, let factor):
            (plain(theta: theta).enumerated().map { $0 < pairs ? $1 / Float(factor) : 0 }, 1)
        case .longRope(let short, let long, let original, let attention):
            (zip(plain(theta: theta), length > original ? long : short).map { $0 / Float($1) }, Float(attention))
        }
    }

    private func plain(theta: Double) -> [Float] {
        (0..<rotated / 2).map { 1 / powf(Float(theta), Float(2 * $0) / Float(rotated)) }
    }

    private func dynamicTheta(factor: Double, original: Int, length: Int) -> Double {
        let length = Double(max(length, original))
        let stretch = factor * length / Double(original) - (factor - 1)
        return theta * pow(stretch, Double(rotated) / Double(rotated - 2))
    }

    private func llama3(_ frequency: Float, _ factor: Double, _ low: Double, _ high: Double, _ original: Double) -> Float {
        let wavelength = 2 * Double.pi / Double(frequency)
        if wavelength < original / high { return frequency }
        if wavelength > original / low { return Float(Double(frequency) / factor) }
        let smooth = (original / wavelength - low) / (high - low)
        return Float((1 - smooth) * Double(frequency) / factor + smooth * Double(frequency))
    }

    private func yarnFrequencies(_ yarn: Yarn) -> [Float] {
        func dimension(_ rotations: Double) -> Double {
            Double(rotated) * log(Double(yarn.original) / (rotations * 2 * .pi)) / (2 * log(theta))
        }
        var low = dimension(yarn.betaFast)
        var high = dimension(yarn.betaSlow)
        if yarn.truncates { (low, high) = (low.rounded(.down), high.rounded(.up)) }
        low = max(low, 0)
        high = min(high, Double(rotated - 1))
        if low == high { high += 0.001 }
        return plain(theta: theta).enumerated().map { index, frequency in
            let ramp = min(max((Double(index) - low) / (high - low), 0), 1)
            return Float(Double(frequency) / yarn.factor * ramp + Double(frequency) * (1 - ramp))
        }
    }

    /// Cosines and sines [positions, rotated / 2] for a call of at most `length` tokens a row.
    func table(positions: Int, length: Int) -> (cosines: [Float], sines: [Float]) {
        let (inverse, attention) = frequencies(length: length)
        var cosines = [Float](repeating: 0, count: positions * inverse.count)
        var sines = cosines
        for position in 0..<positions {
            for (index, frequency) in inverse.enumerated() {
                let angle = Float(position) * frequency
                cosines[position * inverse.count + index] = cosf(angle) * attention
                sines[position * inverse.count + index] = sinf(angle) * attention
            }
        }
        return (cosines, sines)
    }
}
