internal import NibbleCore

/// The stacked low-rank sums of one layer, with what their plain form needs.
struct LowRankOperand {
    let lowRank: LowRank
    private let a: [Double]
    private let b: [Double]
    private let scales: [Double]
    private let adapters: [Int]
    private let biases: [Double]?
    private let gains: [Double]?
    private let (n, k, ranks): (Int, Int, Int)

    /// What the adapters of a layer have.
    struct Form: Sendable {
        /// The rank of each adapter before it is padded; 0: it leaves the layer as it is.
        var ranks: [Int]
        var a = DType.bfloat16
        var b = DType.bfloat16
        var hasBiases = false
        var hasGains = false
    }

    /// - Parameter unused: an adapter that no row uses; its A holds NaN.
    init(_ context: OperationContext, _ form: Form, _ outFeatures: Int, _ inFeatures: Int, seed: UInt64, unused: Int?) throws {
        (n, k) = (outFeatures, inFeatures)
        let padded = form.ranks.map { ($0 + LowRank.rankUnit - 1) / LowRank.rankUnit * LowRank.rankUnit }
        let ranks = padded.reduce(0, +)
        self.ranks = ranks
        let adapters = padded.enumerated().flatMap { Array(repeating: $0.offset, count: $0.element) }
        self.adapters = adapters
        let isReal = zip(form.ranks, padded).flatMap { rank, padded in (0..<padded).map { $0 < rank } }
        var a = HostValues.random(ranks * inFeatures, seed: seed, scale: 1 / Float(inFeatures).squareRoot())
        var b = HostValues.random(outFeatures * ranks, seed: seed + 1, scale: 0.7)
        for rank in 0..<ranks where !isReal[rank] {
            for column in 0..<inFeatures { a[rank * inFeatures + column] = 0 }
            for feature in 0..<outFeatures { b[feature * ranks + rank] = 0 }
        }
        let scales = (0..<ranks).map { isReal[$0] ? 0.5 + Float(adapters[$0]) / 4 : 0 }
        self.scales = scales.map(Double.init)
        for rank in 0..<ranks where adapters[rank] == unused { a[rank * inFeatures] = .nan }
        let operandA = try context.operand(a, form.a, [ranks, inFeatures])
        let operandB = try context.operand(b, form.b, [outFeatures, ranks])
        let table: Shape = [form.ranks.count, outFeatures]
        let biases = try form.hasBiases ? context.random(.float32, table, seed: seed + 2) : nil
        let gains = try form.hasGains ? context.random(.float32, table, seed: seed + 3, scale: 0.2, offset: 1) : nil
        (self.a, self.b, self.biases, self.gains) = (operandA.values, operandB.values, biases?.values, gains?.values)
        lowRank = LowRank(
            a: operandA.tensor, b: operandB.tensor, scales: try context.operand(scales, .float32, [ranks]).tensor,
            adapters: try context.integers(adapters.map { Int32($0) }), biases: biases?.tensor, gains: gains?.tensor)
    }

    /// What output `feature` becomes.
    /// - Parameters:
    ///   - product: the layer's product and bias.
    ///   - projected: ``projected(_:weights:)`` of the row.
    func output(_ product: Double, bias: Double, feature: Int, projected: [Double], weights: [Double]) -> Double {
        var (sum, factor) = (0.0, 1.0)
        for adapter in weights.indices where weights[adapter] != 0 && adapters.contains(adapter) {
            var own = weights[adapter] * (biases?[adapter * n + feature] ?? 0)
            for rank in 0..<ranks where adapters[rank] == adapter { own += projected[rank] * b[feature * ranks + rank] }
            let gain = gains?[adapter * n + feature] ?? 1
            factor += gain - 1
            sum += gain * own
        }
        return (product - bias) * factor + bias + sum
    }

    /// weight × scale × A x for a row x.
    func projected(_ x: ArraySlice<Double>, weights: [Double]) -> [Double] {
        (0..<ranks).map { rank in
            let factor = weights[adapters[rank]] * scales[rank]
            guard factor != 0 else { return 0 }
            var sum = 0.0
            for (column, value) in x.enumerated() { sum += value * a[rank * k + column] }
            return factor * sum
        }
    }

    /// By how much gains stretch the doubt about a product.
    var stretch: Double { 1 + (gains.map { $0.reduce(0) { max($0, abs($1 - 1)) } * 4 } ?? 0) }
}
