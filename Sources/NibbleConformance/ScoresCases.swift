internal import Foundation
internal import NibbleCore

extension OperationCases {
    static let scores: [OperationCase] = [(1, 1, 1), (3, 7, 20), (2, 1000, 0), (5, 1025, 5), (3, 9001, 20), (2, 50_257, 3)]
        .flatMap { rows, vocabulary, k in
            ["", ", ties", ", -infinity", ", rows without numbers"].map { kind in
                OperationCase("scores\(kind), k = \(k) [\(rows), \(vocabulary)]") { context in
                    try score(context, values(kind, rows: rows, vocabulary), rows: rows, vocabulary, k)
                }
            }
        }

    private static func values(_ kind: String, rows: Int, _ vocabulary: Int) -> [Float] {
        var values = HostValues.random(rows * vocabulary, seed: 31, scale: 4, offset: 2)
        switch kind {
        case ", ties":
            // Many equal ones, the largest among them, and both zeros.
            values = values.map { min(max($0.rounded(), -3), 3) }
            for index in stride(from: 1, to: values.count, by: 3) where values[index] == 0 { values[index].negate() }
            for index in 0..<vocabulary { values[index] = index % 2 == 0 ? -0.0 : 0 }
        case ", -infinity":
            for index in values.indices where index % 4 != 1 { values[index] = -.infinity }
        case ", rows without numbers":
            // The first row is NaN at its end, the second only −∞, the third holds +∞.
            values[vocabulary - 1] = .nan
            if rows > 1 {
                values.replaceSubrange(vocabulary..<2 * vocabulary, with: repeatElement(-.infinity, count: vocabulary))
            }
            if rows > 2 { values[2 * vocabulary + vocabulary / 2] = .infinity }
        default: break
        }
        return values
    }

    private static func score(
        _ context: OperationContext, _ values: [Float], rows: Int, _ vocabulary: Int, _ k: Int
    ) throws -> OperationResult {
        let chosen = (0..<rows).map { row in row == 4 ? -1 : Int32((row * 311 + vocabulary / 3) % vocabulary) }
        let logits = try context.operand(values, .float32, [rows, vocabulary])
        let output = try context.operand([Float](repeating: 77, count: rows * (2 + k)), .float32, [rows, 2 + k]).tensor
        let ids = try context.integers([Int32](repeating: -9, count: rows * max(k, 1)))
        try context.backend.scores(
            logits.tensor, chosen: try context.integers(chosen), count: k, values: output, ids: ids)
        let wanted = (0..<rows).map { row in
            PlainScores(Array(values[row * vocabulary..<(row + 1) * vocabulary]), chosen: Int(chosen[row]), count: k)
        }
        let unused: [Int32] = k == 0 ? [Int32](repeating: -9, count: rows) : []
        let gotIDs = try context.integers(of: ids)
        return compare(try context.values(of: output), wanted.flatMap(\.values))
            .and(OperationResult(got: gotIDs, exactly: wanted.flatMap(\.ids) + unused))
            .and(OperationResult(got: try context.values(of: logits.tensor).map(\.bitPattern), exactly: bits(values)))
    }

    private static func bits(_ values: [Float]) -> [UInt64] { values.map { Double($0).bitPattern } }

    /// Values that are not finite must be the same.
    private static func compare(_ got: [Double], _ wanted: [Double]) -> OperationResult {
        for (index, pair) in zip(got, wanted).enumerated() where !pair.0.isFinite || !pair.1.isFinite {
            guard pair.0 == pair.1 || pair.0.isNaN && pair.1.isNaN else {
                return OperationResult(
                    worstError: .infinity, tolerance: 0, detail: "element \(index): \(pair.0), expected \(pair.1)")
            }
        }
        func finite(_ values: [Double]) -> [Double] { values.map { $0.isFinite ? $0 : 0 } }
        return OperationResult(got: finite(got), wanted: finite(wanted), tolerance: 1e-5)
    }
}

/// The plain form of `scores` for one row.
private struct PlainScores {
    var values: [Double]
    var ids: [Int32]

    init(_ logits: [Float], chosen: Int, count k: Int) {
        guard !logits.contains(where: \.isNaN) else {
            values = [Double](repeating: .nan, count: 2 + k)
            ids = [Int32](repeating: -1, count: k)
            return
        }
        let largest = Double(logits.max() ?? 0)
        let logSum = log(logits.reduce(0.0) { $0 + (Double($1) == largest ? 1 : exp(Double($1) - largest)) })
        func logProbability(_ logit: Float) -> Double {
            if logit == -.infinity { return -.infinity }
            return Double(logit) == largest ? -logSum : Double(logit) - largest - logSum
        }
        values = [
            largest.isFinite ? largest + logSum : largest,
            logits.indices.contains(chosen) ? logProbability(logits[chosen]) : .nan,
        ]
        let order = logits.indices.sorted { logits[$0] > logits[$1] || logits[$0] == logits[$1] && $0 < $1 }.prefix(k)
        values += order.map { logProbability(logits[$0]) }
        ids = order.map { Int32($0) }
        values += [Double](repeating: -.infinity, count: k - order.count)
        ids += [Int32](repeating: -1, count: k - order.count)
    }
}
