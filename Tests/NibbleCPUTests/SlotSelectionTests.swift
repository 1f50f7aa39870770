import Foundation
import NibbleCPU
import NibbleConformance
import NibbleCore
import NibbleTestSupport
import Testing

@Suite(.serialized, .computing) struct SlotSelectionTests {
    /// `OperationTests` runs the same with fewer threads.
    @Test("with more threads than rows, which share the work of a row, selection and scores agree with their plain forms")
    func conformance() {
        let result = SelfTest.run(OperationCases.slotSelection, on: CPUBackend(threads: 16))
        #expect(result.failures == [])
        #expect(result.caseCount > 90)
    }

    @Test("draws follow the probabilities after the adjustments (chi-square)")
    func draws() throws {
        let backend = CPUBackend(threads: 2)
        let (rows, vocabulary) = (500, 20)
        let state = try SelectionState(slots: rows, vocabulary: vocabulary, backend: backend)
        var selection = SlotSelection()
        selection.temperature = 0.8
        selection.seed = 7
        selection.bias = [TokenBias(token: 4, value: -1), TokenBias(token: 5, value: -.infinity)]
        for slot in 0..<rows {
            selection.stream = UInt64(slot)
            try state.write(selection, slot: slot, prompt: [], generated: [])
        }
        var scores = (0..<vocabulary).map { Float($0 % 7) * 0.4 }
        let slots = Tensor.host((0..<rows).map { Int32($0) }, .int32, [rows])
        let tokens = Tensor.host(.int32, [rows])
        var counts = [Double](repeating: 0, count: vocabulary)
        for step in 0..<100 {
            let logits = Tensor.host((0..<rows).flatMap { _ in scores }, .float32, [rows, vocabulary])
            let counters = Tensor.host([Int32](repeating: Int32(step), count: rows), .int32, [rows])
            try backend.select(logits, state, slots: slots, counters: counters, into: tokens)
            withExtendedLifetime(tokens) { for token in tokens.hostElements(Int32.self) { counts[Int(token)] += 1 } }
        }
        scores[4] -= 1
        scores[5] = -.infinity
        let weights = scores.map { exp(Double($0) / 0.8) }
        let total = weights.reduce(0, +)
        #expect(counts[5] == 0)
        let chiSquare = zip(counts, weights).filter { $0.1 > 0 }.reduce(0) { sum, pair in
            let expected = Double(rows * 100) * pair.1 / total
            return sum + (pair.0 - expected) * (pair.0 - expected) / expected
        }
        // 18 degrees of freedom: p = 1e-6 at 63.
        #expect(chiSquare < 63)
    }

    @Test("a slot's tokens depend neither on its row nor on the slot, nor on who is beside it")
    func rowOrder() throws {
        let backend = CPUBackend(threads: 3)
        let vocabulary = 500
        let selections = (0..<6).map { index in
            var selection = SlotSelection()
            selection.temperature = index % 2 == 0 ? 1 : 0
            selection.frequencyPenalty = 0.5
            selection.seed = UInt64(index)
            return selection
        }
        /// Five tokens for each of `order`, each in the slot `slotOf`.
        func tokens(_ order: [Int], slotOf: (Int) -> Int) throws -> [Int: [Int32]] {
            let state = try SelectionState(slots: 9, vocabulary: vocabulary, backend: backend)
            for index in order {
                try state.write(selections[index], slot: slotOf(index), prompt: [Int32(index)], generated: [])
            }
            let slots = Tensor.host(order.map { Int32(slotOf($0)) }, .int32, [order.count])
            let tokens = Tensor.host(.int32, [order.count])
            var chosen: [Int: [Int32]] = [:]
            for step in 0..<5 {
                let values = order.flatMap { HostValues.random(vocabulary, seed: UInt64($0), scale: 3) }
                let counters = Tensor.host([Int32](repeating: Int32(step), count: order.count), .int32, [order.count])
                try backend.select(
                    .host(values, .float32, [order.count, vocabulary]), state, slots: slots, counters: counters, into: tokens)
                withExtendedLifetime(tokens) {
                    for (index, token) in zip(order, tokens.hostElements(Int32.self)) { chosen[index, default: []].append(token) }
                }
            }
            return chosen
        }
        let wanted = try tokens([0, 1, 2, 3, 4, 5]) { $0 }
        #expect(try tokens([5, 3, 0, 1, 4, 2]) { 8 - $0 } == wanted)
        #expect(try tokens([4]) { _ in 3 }[4] == wanted[4])
        #expect(Set(wanted.values).count == 6)
    }

    @Test("a temperature too small to divide by is greedy")
    func tinyTemperature() throws {
        let backend = CPUBackend(threads: 1)
        let state = try SelectionState(slots: 1, vocabulary: 4, backend: backend)
        var selection = SlotSelection()
        selection.temperature = .leastNonzeroMagnitude
        try state.write(selection, slot: 0, prompt: [], generated: [])
        let (zero, token) = (Tensor.host([Int32(0)], .int32, [1]), Tensor.host(.int32, [1]))
        try backend.select(.host([1, 3, 7, 2] as [Float], .float32, [1, 4]), state, slots: zero, counters: zero, into: token)
        #expect(withExtendedLifetime(token) { token.hostElements(Int32.self)[0] } == 2)
    }
}
