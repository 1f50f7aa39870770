internal import Foundation
internal import NibbleCore

extension OperationCases {
    package static let selection: [OperationCase] = greedy + sampled + [fills]

    private static let greedy = [1, 2, 31, 1000, 32_000, 50257, 131_071].map(greedily)

    private static func greedily(vocabulary: Int) -> OperationCase {
        OperationCase("select greedily [3, \(vocabulary)]") { context in
            var values = HostValues.random(3 * vocabulary, seed: 22)
            // Ties: the lowest id wins. NaN spoils its row.
            for row in 0..<3 {
                values[row * vocabulary + vocabulary / 2] = 9
                values[row * vocabulary + vocabulary - 1] = 9
            }
            let spoils = vocabulary > 2
            if spoils { values[vocabulary] = .nan }
            let best = Int32(vocabulary / 2)
            let state = try SelectionState(slots: 3, vocabulary: vocabulary, backend: context.backend)
            let got = try select(context, values, state, counters: [0, 0, 0])
            return OperationResult(got: got, exactly: [best, spoils ? SelectionStatus.notANumber.rawValue : best, best])
        }
    }

    private static let sampled: [OperationCase] = {
        var variants: [(String, SlotSelection)] = []
        func add(_ name: String, _ change: (inout SlotSelection) -> Void) {
            var selection = SlotSelection()
            selection.temperature = 1
            selection.seed = 42
            change(&selection)
            variants.append((name, selection))
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
        return variants.flatMap { name, selection in
            [(40, 17), (5, 1000), (2, 9001)].map { rows, vocabulary in
                OperationCase("select, \(name) [\(rows), \(vocabulary)]") {
                    try sample($0, selection, rows: rows, vocabulary)
                }
            }
        }
    }()

    private static func sample(
        _ context: OperationContext, _ selection: SlotSelection, rows: Int, _ vocabulary: Int
    ) throws -> OperationResult {
        // Rounded to quarters, so that there are ties.
        let values = HostValues.random(rows * vocabulary, seed: 23, scale: 3).map { ($0 * 4).rounded() / 4 }
        let state = try SelectionState(slots: rows, vocabulary: vocabulary, backend: context.backend)
        let selections = (0..<rows).map { row in
            var selection = selection
            selection.stream = UInt64(5 + row)
            return selection
        }
        for (slot, selection) in selections.enumerated() { try state.write(selection, slot: slot, prompt: [], generated: []) }
        let counters = (0..<rows).map { Int32($0 * 3) }
        let tokens = try select(context, values, state, counters: counters)
        for (row, token) in tokens.enumerated() {
            let logits = Array(values[row * vocabulary..<(row + 1) * vocabulary])
            if let wrong = PlainSelection.fault(token, logits, selections[row], counter: Int(counters[row])) {
                return OperationResult(worstError: .infinity, tolerance: 0, detail: "row \(row): \(wrong)")
            }
        }
        return OperationResult(worstError: 0, tolerance: 0)
    }

    /// A token for each of a state's slots.
    private static func select(
        _ context: OperationContext, _ values: [Float], _ state: SelectionState, counters: [Int32]
    ) throws -> [Int32] {
        let logits = try context.operand(values, .float32, [state.slots, state.vocabulary])
        let tokens = try context.integers([Int32](repeating: -9, count: state.slots))
        try context.backend.select(
            logits.tensor, state, slots: try context.integers((0..<state.slots).map { Int32($0) }),
            counters: try context.integers(counters), into: tokens)
        return try context.integers(of: tokens)
    }

    private static let fills = OperationCase("fill in the latest tokens of slots") { context in
        let (slots, vocabulary) = (4, 1000)
        let state = try SelectionState(slots: slots, vocabulary: vocabulary, backend: context.backend)
        var values = [Float](repeating: 0, count: slots * vocabulary)
        for slot in 0..<3 { values[slot * vocabulary + 7 * slot + 5] = 1 }
        values[3 * vocabulary] = .nan
        _ = try select(context, values, state, counters: [0, 0, 0, 0])
        let many = (0..<200).map(Int32.init)
        let given: [Int32] = many.map { $0.isMultiple(of: 3) ? -1 - $0 % 4 : $0 }
        let tokens = try context.integers([-3, 0, 999, -1, -2, -4, -9] + given)
        let latest: [Int32] = [5, 12, 19, 0]
        try context.backend.fillTokens(tokens, latest: state.buffers.latest)
        let filled = many.map { $0.isMultiple(of: 3) ? latest[Int($0 % 4)] : $0 }
        return OperationResult(got: try context.integers(of: tokens), exactly: [19, 0, 999, 5, 12, 0, 0] + filled)
    }
}

/// The plain form of sampling: temperature, then top-k, top-p and min-p.
enum PlainSelection {
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
