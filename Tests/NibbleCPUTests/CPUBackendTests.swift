import Foundation
import NibbleCPU
import NibbleCore
import Synchronization
import Testing

@Suite struct ThreadPoolTests {
    @Test(
        "every item is handled once, whatever the threads, the grain and the way of splitting", arguments: [1, 2, 5],
        [false, true])
    func covers(threads: Int, isDynamic: Bool) {
        let pool = ThreadPool(threads: threads)
        for (count, grain) in [(0, 1), (1, 1), (7, 1), (7, 3), (1000, 16), (1000, 5000)] {
            let hits = Hits(count: count)
            pool.parallel(count: count, grain: grain, isDynamic: isDynamic) { items, thread in
                #expect(thread >= 0 && thread < threads)
                for item in items { hits.add(item) }
            }
            #expect(hits.all(equal: 1), "\(count) items in grains of \(grain)")
        }
    }

    @Test("the same thread gets the same items each time")
    func isStatic() {
        let pool = ThreadPool(threads: 3)
        func owners() -> [Int] {
            let hits = Hits(count: 100)
            pool.parallel(count: 100) { items, thread in for item in items { hits.add(item, thread + 1) } }
            return hits.values
        }
        #expect(owners() == owners())
        #expect(Set(owners()) == [1, 2, 3])
    }

    @Test("callers on several tasks take turns, and a dispatch inside a task runs inline")
    func isShared() async {
        let pool = ThreadPool(threads: 4)
        let hits = Hits(count: 64)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    for _ in 0..<50 {
                        pool.parallel(count: 8) { items, _ in
                            for item in items {
                                pool.parallel(count: 8) { inner, _ in for index in inner { hits.add(item * 8 + index) } }
                            }
                        }
                    }
                }
            }
        }
        #expect(hits.all(equal: 400))
    }

    @Test("pools come and go")
    func ends() {
        for threads in [1, 2, 9] {
            for _ in 0..<20 {
                let hits = Hits(count: threads)
                ThreadPool(threads: threads).parallel(count: threads) { items, _ in for item in items { hits.add(item) } }
                #expect(hits.all(equal: 1))
            }
        }
    }
}

/// Counters that threads add to.
final class Hits: Sendable {
    private let counts: Mutex<[Int]>

    init(count: Int) { counts = Mutex([Int](repeating: 0, count: count)) }

    func add(_ index: Int, _ value: Int = 1) { counts.withLock { $0[index] += value } }
    func all(equal value: Int) -> Bool { values.allSatisfy { $0 == value } }
    var values: [Int] { counts.withLock { $0 } }
}

@Suite struct CPUBackendTests {
    @Test("memory beyond the budget is refused, and freed memory can be had again")
    func budget() throws {
        let backend = CPUBackend(threads: 1, budget: 10_000)
        do {
            let half = try backend.allocate(.uint8, [6000])
            #expect(backend.memoryUse.held == 6000)
            #expect(throws: BackendError.outOfMemory(device: .cpu, requested: 6000, available: 4000, budget: 10_000)) {
                try backend.allocate(.uint8, [6000])
            }
            try withExtendedLifetime(half) { _ = try backend.allocate(.float32, [1000]) }
        }
        #expect(backend.memoryUse.held == 0)
        _ = try backend.allocate(.uint8, [10_000])
    }

    @Test("sizes beyond any memory are an error", arguments: [Shape([1 << 62]), [1 << 40, 1 << 40], [1 << 46], [-1]])
    func absurd(shape: Shape) {
        #expect(throws: BackendError.self) { try CPUBackend(threads: 1).allocate(.float32, shape) }
    }

    @Test("workspace counts towards the budget")
    func workspace() throws {
        let backend = CPUBackend(threads: 2, budget: 1000)
        let logits = Tensor.host([Float](repeating: 0, count: 5000), .float32, [1, 5000])
        let token = Tensor.host([Int32(0)], .int32, [1])
        let state = try SelectionState(slots: 1, vocabulary: 5000, backend: CPUBackend(threads: 1))
        var selection = SlotSelection()
        selection.temperature = 1
        try state.write(selection, slot: 0, prompt: [], generated: [])
        #expect(throws: BackendError.self) { try backend.select(logits, state, slots: token, counters: token, into: token) }
    }

    @Test("the summary names the threads", arguments: [(1, "1 thread"), (3, "3 threads")])
    func summary(threads: Int, words: String) {
        #expect(CPUBackend(threads: threads).summary.hasSuffix(words))
    }

    /// A slot for each row, with a random stream of its own.
    private func state(
        _ selection: SlotSelection, rows: Int, vocabulary: Int, _ backend: CPUBackend
    ) throws -> SelectionState {
        let state = try SelectionState(slots: rows, vocabulary: vocabulary, backend: backend)
        for row in 0..<rows {
            var selection = selection
            selection.stream = UInt64(row)
            try state.write(selection, slot: row, prompt: [], generated: [])
        }
        return state
    }

    @Test("draws follow the probabilities (chi-square)")
    func draws() throws {
        let backend = CPUBackend(threads: 2)
        let scores = (0..<20).map { Float($0 % 7) * 0.4 }
        let rows = 1000
        let logits = Tensor.host((0..<rows).flatMap { _ in scores }, .float32, [rows, 20])
        let tokens = Tensor.host(.int32, [rows])
        var selection = SlotSelection()
        selection.temperature = 0.8
        selection.seed = 7
        let state = try state(selection, rows: rows, vocabulary: 20, backend)
        let slots = Tensor.host((0..<Int32(rows)).map(\.self), .int32, [rows])
        var counts = [Double](repeating: 0, count: 20)
        for step in 0..<50 {
            let counters = Tensor.host([Int32](repeating: Int32(step), count: rows), .int32, [rows])
            try backend.select(logits, state, slots: slots, counters: counters, into: tokens)
            withExtendedLifetime(tokens) { for token in tokens.hostElements(Int32.self) { counts[Int(token)] += 1 } }
        }
        let weights = scores.map { exp(Double($0) / 0.8) }
        let total = weights.reduce(0, +)
        let chiSquare = zip(counts, weights).reduce(0) { sum, pair in
            let expected = Double(rows * 50) * pair.1 / total
            return sum + (pair.0 - expected) * (pair.0 - expected) / expected
        }
        // 19 degrees of freedom: p = 1e-6 at 65.
        #expect(chiSquare < 65)
    }

    @Test("logits of minus infinity are never drawn; rows with NaN or without any finite logit give no token")
    func masked() throws {
        let backend = CPUBackend(threads: 1)
        let row: [Float] = [-.infinity, 1, -.infinity, -.infinity, 1]
        let forbidden = [Float](repeating: -.infinity, count: 5)
        let logits = Tensor.host(row + forbidden + [1, 2, .nan, 1, 1], .float32, [3, 5])
        let tokens = Tensor.host(.int32, [3])
        let slots = Tensor.host([0, 1, 2].map { Int32($0) }, .int32, [3])
        var selection = SlotSelection()
        selection.temperature = 1
        var state = try state(selection, rows: 3, vocabulary: 5, backend)
        for step in 0..<200 {
            let counters = Tensor.host([Int32(step), 0, 0], .int32, [3])
            try backend.select(logits, state, slots: slots, counters: counters, into: tokens)
            let chosen = withExtendedLifetime(tokens) { Array(tokens.hostElements(Int32.self)) }
            #expect((chosen[0] == 1 || chosen[0] == 4) && chosen[1] < 0 && chosen[2] < 0)
        }
        state = try self.state(SlotSelection(), rows: 3, vocabulary: 5, backend)
        try backend.select(logits, state, slots: slots, counters: .host([0, 0, 0].map { Int32($0) }, .int32, [3]), into: tokens)
        let chosen = withExtendedLifetime(tokens) { Array(tokens.hostElements(Int32.self)) }
        #expect(chosen[0] == 1 && chosen[1] < 0 && chosen[2] < 0)
    }

    @Test("a greedy choice divided among threads skips forbidden parts and reports NaN")
    func dividedGreedyChoice() throws {
        let backend = CPUBackend(threads: 2)
        let vocabulary = 40000
        let state = try state(SlotSelection(), rows: 1, vocabulary: vocabulary, backend)
        func choose(_ change: (inout [Float]) -> Void) throws -> Int32 {
            var row = [Float](repeating: -.infinity, count: vocabulary)
            change(&row)
            let tokens = Tensor.host(.int32, [1])
            let zero = Tensor.host([Int32(0)], .int32, [1])
            try backend.select(.host(row, .float32, [1, vocabulary]), state, slots: zero, counters: zero, into: tokens)
            return withExtendedLifetime(tokens) { tokens.hostElements(Int32.self)[0] }
        }
        #expect(try choose { $0[39999] = -5 } == 39999)
        #expect(try choose { $0[7] = -5 } == 7)
        #expect(try choose { _ in } < 0)
        for place in [3, 39990] {
            #expect(
                try choose {
                    $0[20] = 1
                    $0[39000] = 2
                    $0[place] = .nan
                } < 0)
        }
    }
}
