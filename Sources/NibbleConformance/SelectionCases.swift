internal import Foundation
internal import NibbleCore

extension OperationCases {
    package static let selection: [OperationCase] = greedy + sampled + masked

    private static let greedy: [OperationCase] = [1, 2, 31, 1000, 32_000, 50257, 131_071].map { vocabulary in
        OperationCase("select greedily [3, \(vocabulary)]") { context in
            var values = HostValues.random(3 * vocabulary, seed: 22)
            // Ties: the lowest id wins. NaN spoils its row.
            for row in 0..<3 {
                values[row * vocabulary + vocabulary / 2] = 9
                values[row * vocabulary + vocabulary - 1] = 9
            }
            let spoils = vocabulary > 2
            if spoils { values[vocabulary] = .nan }
            let logits = try context.operand(values, .float32, [3, vocabulary])
            let tokens = try context.integers([-1, -1, -1])
            try context.backend.select(logits.tensor, .greedy, counters: try context.integers([0, 0, 0]), into: tokens)
            let best = Int32(vocabulary / 2)
            // Backends may tell a NaN from a row without any token, or not.
            let got = try context.integers(of: tokens).map { max($0, -1) }
            return OperationResult(got: got, exactly: [best, spoils ? -1 : best, best])
        }
    }

    /// Penalties and forbidden tokens. Also checks the sets of seen tokens afterwards.
    private static let masked: [OperationCase] = [(3, 31), (2, 1000), (5, 50257)].flatMap { rows, vocabulary in
        [(true, false), (false, true), (true, true)].map { penalizes, forbids in
            let name = "select\(penalizes ? ", penalty" : "")\(forbids ? ", forbidden tokens" : "") [\(rows), \(vocabulary)]"
            return OperationCase(name) { try mask($0, penalizes: penalizes, forbids: forbids, rows: rows, vocabulary) }
        }
    }

    private static let sampled: [OperationCase] = {
        var variants: [(String, SamplingParameters)] = []
        func add(_ name: String, _ change: (inout SamplingParameters) -> Void) {
            var parameters = SamplingParameters()
            parameters.temperature = 1
            parameters.seed = 42
            parameters.firstStream = 5
            change(&parameters)
            variants.append((name, parameters))
        }
        add("temperature 1") { _ in }
        add("temperature 0.3") { $0.temperature = 0.3 }
        add("top-k 1") { $0.topK = 1 }
        add("top-k 40 with ties") { $0.topK = 40 }
        add("top-k beyond the vocabulary") { $0.topK = 1 << 30 }
        add("top-p 0.9") { $0.topP = 0.9 }
        add("top-p 0.05") { $0.topP = 0.05 }
        add("min-p 0.1") { $0.minP = 0.1 }
        add("all together") {
            $0.temperature = 1.3
            $0.topK = 60
            $0.topP = 0.8
            $0.minP = 0.02
        }
        return variants.flatMap { name, parameters in
            [(40, 17), (5, 1000), (2, 9001)].map { rows, vocabulary in
                OperationCase("select, \(name) [\(rows), \(vocabulary)]") {
                    try sample($0, parameters, rows: rows, vocabulary)
                }
            }
        }
    }()

    private static func mask(
        _ context: OperationContext, penalizes: Bool, forbids: Bool, rows: Int, _ vocabulary: Int
    ) throws -> OperationResult {
        var parameters = SamplingParameters()
        var masks = SelectionMasks()
        var values = HostValues.random(rows * vocabulary, seed: 24, scale: 3)
        let words = SelectionMasks.words(vocabulary)
        var seen = (0..<rows).map { row in (0..<vocabulary).filter { ($0 * 7 + row) % 3 == 0 }.map { Int32($0) } }
        let latest = (0..<rows).map { Int32(($0 * 11 + 1) % vocabulary) }
        let forbidden = (0..<vocabulary).filter { $0 % 5 == 2 }.map { Int32($0) }
        if penalizes {
            parameters.repetitionPenalty = 1.7
            let sets = seen.flatMap { SelectionMasks.set($0, vocabulary: vocabulary) }
            masks.seen = try context.integers(sets, [rows, words])
            masks.latest = try context.integers(latest)
        }
        if forbids {
            parameters.forbiddenTokens = forbidden
            masks.forbidden = try context.integers(SelectionMasks.set(forbidden, vocabulary: vocabulary))
        }
        let logits = try context.operand(values, .float32, [rows, vocabulary])
        let tokens = try context.integers([Int32](repeating: -1, count: rows))
        let counters = try context.integers([Int32](repeating: 0, count: rows))
        try context.backend.select(logits.tensor, parameters, masks: masks, counters: counters, into: tokens)

        var wanted: [Int32] = []
        for row in 0..<rows {
            seen[row].append(latest[row])
            let place = row * vocabulary
            if penalizes {
                for token in Set(seen[row]) {
                    let value = values[place + Int(token)]
                    values[place + Int(token)] = value < 0 ? value * 1.7 : value / 1.7
                }
            }
            if forbids { for token in forbidden { values[place + Int(token)] = -.infinity } }
            let scores = values[place..<place + vocabulary]
            wanted.append(Int32((scores.firstIndex(of: scores.max() ?? 0) ?? place) - place))
        }
        let chosen = OperationResult(got: try context.integers(of: tokens), exactly: wanted)
        guard penalizes, let kept = masks.seen else { return chosen }
        let sets = seen.flatMap { SelectionMasks.set($0, vocabulary: vocabulary) }
        return chosen.and(OperationResult(got: try context.integers(of: kept), exactly: sets))
    }

    /// Backends add probabilities in different orders. A token is also right if the random number is outside its interval by no
    /// more than rounding.
    private static func sample(
        _ context: OperationContext, _ parameters: SamplingParameters, rows: Int, _ vocabulary: Int
    ) throws -> OperationResult {
        // Rounded to quarters, so that there are ties.
        let values = HostValues.random(rows * vocabulary, seed: 23, scale: 3).map { ($0 * 4).rounded() / 4 }
        let logits = try context.operand(values, .float32, [rows, vocabulary])
        let counters = (0..<rows).map { Int32($0 * 3) }
        let tokens = try context.integers([Int32](repeating: -1, count: rows))
        try context.backend.select(logits.tensor, parameters, counters: try context.integers(counters), into: tokens)
        for (row, token) in try context.integers(of: tokens).enumerated() {
            let u = RandomStream.uniform(
                seed: parameters.seed, stream: parameters.firstStream + UInt64(row), counter: UInt64(counters[row]))
            let scores = Array(values[row * vocabulary..<(row + 1) * vocabulary])
            let probabilities = PlainSelection.probabilities(scores, parameters)
            let before = probabilities.prefix(max(Int(token), 0)).reduce(0, +)
            let own = token >= 0 && Int(token) < vocabulary ? probabilities[Int(token)] : 0
            let inside = own > 0 && before <= Double(u) + 1e-5 && Double(u) < before + own + 1e-5
            if !inside {
                return OperationResult(
                    worstError: .infinity, tolerance: 0,
                    detail: "row \(row): token \(token) covers \(before) ..< \(before + own), the draw is \(u)")
            }
        }
        return OperationResult(worstError: 0, tolerance: 0)
    }
}

/// The plain form of sampling: temperature, then top-k, top-p and min-p.
enum PlainSelection {
    static func probabilities(_ logits: [Float], _ parameters: SamplingParameters) -> [Double] {
        probabilities(
            logits, temperature: parameters.temperature, topK: parameters.topK, topP: parameters.topP, minP: parameters.minP)
    }

    static func probabilities(_ logits: [Float], temperature: Float, topK: Int, topP: Float, minP: Float) -> [Double] {
        var scores = logits.map { Double($0 / temperature) }
        if topK > 0 {
            let threshold = scores.sorted(by: >)[min(topK, scores.count) - 1]
            scores = scores.map { $0 < threshold ? -.infinity : $0 }
        }
        if topP < 1 {
            let p = softmax(scores)
            // Ascending; of equal scores the lower id first.
            let order = scores.indices.sorted { (scores[$0], $0) < (scores[$1], $1) }
            var cumulative = 0.0
            for index in order.dropLast() {
                cumulative += p[index]
                if cumulative <= 1 - Double(topP) { scores[index] = -.infinity }
            }
        }
        if minP > 0 {
            let p = softmax(scores)
            let limit = Double(minP) * (p.max() ?? 0)
            scores = zip(scores, p).map { $1 < limit ? -.infinity : $0 }
        }
        return softmax(scores)
    }

    static func softmax(_ scores: [Double]) -> [Double] {
        let best = scores.max() ?? 0
        let weights = scores.map { exp($0 - best) }
        let total = weights.reduce(0, +)
        return weights.map { $0 / total }
    }
}
