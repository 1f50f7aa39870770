internal import Foundation
internal import NibbleCore

extension OperationCases {
    /// Selection by records, and log probabilities.
    package static let slotSelection: [OperationCase] = adjustments + mixtures + statuses + scores

    /// A record for one kind of adjustment, and for all together.
    private static let kinds: [(name: String, selection: SlotSelection)] = {
        var kinds: [(String, SlotSelection)] = []
        func add(_ name: String, _ change: (inout SlotSelection) -> Void) {
            var selection = SlotSelection()
            change(&selection)
            kinds.append((name, selection))
        }
        add("nothing") { _ in }
        add("repetition") { $0.repetitionPenalty = 1.7 }
        add("repetition below 1") { $0.repetitionPenalty = 0.6 }
        add("presence") { $0.presencePenalty = 1.3 }
        add("frequency") { $0.frequencyPenalty = 0.7 }
        add("negative penalties") {
            $0.presencePenalty = -0.5
            $0.frequencyPenalty = -0.25
        }
        add("bias") { $0.bias = [TokenBias(token: 3, value: 6), TokenBias(token: 0, value: -.infinity)] }
        add("minimum") {
            $0.minimumTokens = 4
            $0.endTokens = [1, 5, 6, 9]
        }
        add("mask") { $0.usesMask = true }
        add("everything") {
            $0.repetitionPenalty = 1.2
            $0.presencePenalty = 0.3
            $0.frequencyPenalty = 0.2
            $0.bias = (0..<15).map { TokenBias(token: $0, value: Float($0 % 5) - 2.1) }
            $0.minimumTokens = 3
            $0.endTokens = [2, 3]
            $0.usesMask = true
        }
        return kinds
    }()

    private static let adjustments: [OperationCase] = kinds.flatMap { name, selection in
        [17, 1000, 40_003].flatMap { vocabulary in
            [Float(0), 0.9].map { temperature in
                var selection = selection
                selection.temperature = temperature
                let choice = temperature == 0 ? "greedily" : "at random"
                let steps = SlotSelectionCase(vocabulary: vocabulary, selections: [selection, selection], rows: [1, 0])
                return OperationCase("select by slot \(choice), \(name) [2, \(vocabulary)]") { try steps.run($0) }
            }
        }
    }

    /// All kinds in one call, with every sampler, in rows that are not in the order of the slots.
    private static let mixtures: [OperationCase] = [17, 1000, 9001, 50_257].map { vocabulary in
        OperationCase("select by slot, mixed rows [13, \(vocabulary)]") { context in
            let selections = kinds.enumerated().map { index, kind in
                var selection = kind.selection
                selection.temperature = [0, 0.7, 1.4][index % 3]
                selection.topK = [0, 5, 1, 40, 1 << 40][index % 5]
                selection.topP = [1, 0.9, 0.3, 0.99][index % 4]
                selection.minP = [0, 0.05, 0][index % 3]
                selection.seed = UInt64(index) << 33 + 7
                selection.stream = ~UInt64(index)
                return selection
            }
            // Two padding rows, a slot without a row, and twelve slots for ten kinds.
            let slots = selections + selections.prefix(2)
            return try SlotSelectionCase(
                vocabulary: vocabulary, selections: slots, rows: [7, 2, -1, 0, 11, 5, 4, 9, 99, 1, 8, 10, 3]
            ).run(context)
        }
    }

    private static let statuses: [OperationCase] = [17, 1000, 33_000].flatMap { vocabulary in
        [Float(0), 1].map { temperature in
            OperationCase("select by slot, statuses at temperature \(temperature) [5, \(vocabulary)]") { context in
                let state = try SelectionState(slots: 4, vocabulary: vocabulary, backend: context.backend)
                var selection = SlotSelection()
                selection.temperature = temperature
                for slot in [0, 1] { try state.write(selection, slot: slot, prompt: [], generated: []) }
                selection.usesMask = true
                for slot in [2, 3] { try state.write(selection, slot: slot, prompt: [], generated: []) }
                // A NaN outside of the mask does not count.
                var words = [Int32](repeating: 0, count: SelectionState.words(vocabulary))
                words[0] = 1 << 5
                try words.withUnsafeBufferPointer { try state.writeMask($0, slot: 3) }
                var values = [Float](repeating: 0, count: 5 * vocabulary)
                values.replaceSubrange(0..<vocabulary, with: repeatElement(-.infinity, count: vocabulary))
                for row in [1, 3] { values[row * vocabulary + vocabulary - 1] = .nan }
                let tokens = try context.integers([-9, -9, -9, -9, -9])
                try context.backend.select(
                    try context.operand(values, .float32, [5, vocabulary]).tensor, state,
                    slots: try context.integers([0, 1, 2, 3, 4]), counters: try context.integers([0, 0, 0, 0, 0]), into: tokens)
                let statuses: [SelectionStatus] = [.nothingAllowed, .notANumber, .nothingAllowed]
                return OperationResult(
                    got: try context.integers(of: tokens),
                    exactly: statuses.map(\.rawValue) + [5, SelectionStatus.noSlot.rawValue])
            }
        }
    }
}

/// Steps of a number of slots, each with a prompt and a mask; the tokens chosen in one step count in the next.
private struct SlotSelectionCase: Sendable {
    var vocabulary: Int
    var selections: [SlotSelection]
    /// The slot of each row.
    var rows: [Int32]

    func run(_ context: OperationContext) throws -> OperationResult {
        let state = try SelectionState(slots: selections.count, vocabulary: vocabulary, backend: context.backend)
        let prompts = selections.indices.map { slot in (0..<20).map { Int32((slot + 3 * $0 * $0) % vocabulary) } }
        var generated = selections.indices.map { slot in (0..<slot % 4).map { Int32((slot + 5 * $0) % vocabulary) } }
        for (slot, selection) in selections.enumerated() {
            try state.write(selection, slot: slot, prompt: prompts[slot], generated: generated[slot])
        }
        let slots = try context.integers(rows)
        let tokens = try context.integers(rows.map { _ in -9 })
        for step in 0..<5 {
            // Rounded to quarters, so that there are ties.
            let values = HostValues.random(rows.count * vocabulary, seed: UInt64(25 + step), scale: 3).map {
                ($0 * 4).rounded() / 4
            }
            let counters = rows.map { selections.indices.contains(Int($0)) ? Int32(generated[Int($0)].count) : 0 }
            let masks = selections.indices.map { mask(step + $0) }
            for (slot, selection) in selections.enumerated() where selection.usesMask {
                try masks[slot].withUnsafeBufferPointer { try state.writeMask($0, slot: slot) }
            }
            try context.backend.select(
                try context.operand(values, .float32, [rows.count, vocabulary]).tensor, state, slots: slots,
                counters: try context.integers(counters), into: tokens)
            for (row, token) in try context.integers(of: tokens).enumerated() {
                let slot = Int(rows[row])
                guard selections.indices.contains(slot) else {
                    if token == SelectionStatus.noSlot.rawValue { continue }
                    return failure("step \(step), row \(row) without a slot: \(token)")
                }
                let logits = PlainSelection.adjusted(
                    Array(values[row * vocabulary..<(row + 1) * vocabulary]), selections[slot], prompt: prompts[slot],
                    generated: generated[slot], mask: masks[slot])
                if let wrong = PlainSelection.fault(token, logits, selections[slot], counter: generated[slot].count) {
                    return failure("step \(step), row \(row) of slot \(slot): \(wrong)")
                }
                generated[slot].append(token)
            }
        }
        return try counts(context, state, prompts, generated)
    }

    /// The counts on the device after the last step.
    private func counts(
        _ context: OperationContext, _ state: SelectionState, _ prompts: [[Int32]], _ generated: [[Int32]]
    ) throws -> OperationResult {
        let got = try context.integers(of: state.buffers.counts)
        for (slot, selection) in selections.enumerated() where selection.hasPenalties {
            var wanted = [Int32](repeating: 0, count: vocabulary)
            for token in prompts[slot] { wanted[Int(token)] = 1 }
            for token in generated[slot] { wanted[Int(token)] += 2 }
            let result = OperationResult(got: Array(got[slot * vocabulary..<(slot + 1) * vocabulary]), exactly: wanted)
            if !result.passed { return failure("counts of slot \(slot): \(result.detail)") }
        }
        return OperationResult(worstError: 0, tolerance: 0)
    }

    private func mask(_ seed: Int) -> [Int32] {
        var words = [Int32](repeating: 0, count: SelectionState.words(vocabulary))
        // Some words are empty, some full, some are neither. Bits beyond the vocabulary mean nothing.
        for index in words.indices {
            words[index] = [0, -1, Int32(truncatingIfNeeded: RandomStream.mix(UInt64(seed * 7919 + index)))][(index + 2) % 3]
        }
        if seed % 2 == 0 { words[words.count - 1] = -1 }
        words[0] |= 1 << 4
        return words
    }

    private func failure(_ detail: String) -> OperationResult {
        OperationResult(worstError: .infinity, tolerance: 0, detail: detail)
    }
}

extension PlainSelection {
    /// The adjustments in their order. Rounded as float32, as the devices do, so that equal logits stay equal.
    static func adjusted(
        _ logits: [Float], _ selection: SlotSelection, prompt: [Int32], generated: [Int32], mask: [Int32]
    ) -> [Float] {
        var logits = logits
        for token in Set(prompt + generated) {
            let value = logits[Int(token)]
            logits[Int(token)] = value < 0 ? value * selection.repetitionPenalty : value / selection.repetitionPenalty
        }
        for token in Set(generated) {
            let count = generated.count { $0 == token }
            logits[Int(token)] -= selection.presencePenalty
            logits[Int(token)] -= selection.frequencyPenalty * Float(count)
        }
        for entry in selection.bias { logits[Int(entry.token)] += entry.value }
        if generated.count < selection.minimumTokens {
            for token in selection.endTokens where Int(token) < logits.count { logits[Int(token)] = -.infinity }
        }
        if selection.usesMask {
            for token in logits.indices where mask[token / 32] & 1 << Int32(token % 32) == 0 { logits[token] = -.infinity }
        }
        return logits
    }

    /// What is wrong with the choice of `token` from adjusted logits; `nil` if nothing is.
    ///
    /// Backends add probabilities in different orders. A token is also right if the random number is outside its interval by no
    /// more than rounding.
    static func fault(_ token: Int32, _ logits: [Float], _ selection: SlotSelection, counter: Int) -> String? {
        guard selection.temperature > 0 else {
            let best = logits.firstIndex(of: logits.max() ?? 0) ?? -1
            return token == best ? nil : "token \(token), expected \(best)"
        }
        guard logits.indices.contains(Int(token)) else { return "token \(token)" }
        let u = RandomStream.uniform(seed: selection.seed, stream: selection.stream, counter: UInt64(counter))
        let probabilities = probabilities(
            logits, temperature: selection.temperature, topK: selection.topK, topP: selection.topP, minP: selection.minP)
        let before = probabilities.prefix(Int(token)).reduce(0, +)
        let own = probabilities[Int(token)]
        if own > 0 && before <= Double(u) + 1e-5 && Double(u) < before + own + 1e-5 { return nil }
        return "token \(token) covers \(before) ..< \(before + own), the draw is \(u)"
    }
}
