import NibbleCPU
import NibbleCore
import NibbleModels
import NibbleTestSupport
import Testing

@Suite struct FeedPlanTests {
    private func feed(_ counts: [Int]) -> [RowTokens] {
        counts.enumerated().map { RowTokens(row: 10 + $0, tokens: Array(repeating: Int32($0), count: $1)) }
    }

    @Test(
        "every token is fed once, in order, in chunks that are full but for the last",
        arguments: [[1], [1, 1, 1], [7], [8], [9], [3, 20, 1], [0, 5, 0, 8, 16], [40]], [1, 3, 8])
    func covers(counts: [Int], chunkTokens: Int) {
        var plan = FeedPlan()
        let inputs = feed(counts)
        plan.fill(inputs, chunkTokens: chunkTokens)
        var next = Array(repeating: 0, count: counts.count)
        var finished: [Int] = []
        for index in plan.chunks {
            let chunk = plan.chunk(index)
            let size = chunk.reduce(0) { $0 + $1.range.count }
            #expect(index == plan.chunks.upperBound - 1 ? (1...chunkTokens).contains(size) : size == chunkTokens)
            for segment in chunk {
                #expect(segment.row == 10 + segment.input && segment.range.lowerBound == next[segment.input])
                next[segment.input] = segment.range.upperBound
                #expect(segment.isLast == (next[segment.input] == counts[segment.input]))
            }
            #expect(plan.finishedRows == chunk.filter(\.isLast).map(\.row))
            finished += plan.finishedRows
        }
        #expect(next == counts)
        #expect(finished == inputs.filter { !$0.tokens.isEmpty }.map(\.row))
        #expect(plan.isStep == counts.allSatisfy { $0 == 1 })
    }

    @Test("a plan that is filled anew forgets the last feed")
    func reuse() {
        var plan = FeedPlan()
        plan.fill(feed([30, 2]), chunkTokens: 4)
        plan.fill(feed([1]), chunkTokens: 4)
        #expect(plan.chunks == 0..<1 && plan.isStep)
        let chunk = plan.chunk(0)
        #expect(chunk.map(\.range) == [0..<1] && chunk.map(\.row) == [10] && chunk.map(\.isLast) == [true])
        plan.fill([], chunkTokens: 4)
        #expect(plan.chunks.isEmpty)
    }
}

@Suite struct StepGraphsTests {
    private func key(rows: Int = 1, length: Int = 10, launch: Int? = 256, rotary: [Int] = []) -> StepGraphs.Key {
        let shape = BatchShape(
            tokens: rows, rows: rows, maximumQueryLength: 1, maximumLength: length, launchLength: launch)
        return StepGraphs.Key(shape, rotary: rotary)
    }

    @Test("the key holds what is baked into a launch, not what lies in buffers")
    func keys() {
        #expect(key() == key(length: 99))
        for other in [key(rows: 2), key(launch: 512), key(rotary: [1])] { #expect(other != key()) }
    }

    @Test(
        "rows are padded to few counts, never beyond the session's",
        arguments: [
            (1, 64, 1), (2, 64, 2), (3, 64, 4), (9, 64, 12), (17, 64, 24), (33, 64, 48), (64, 64, 64), (65, 200, 128),
            (129, 160, 160), (3, 3, 3), (5, 7, 7),
        ])
    func padding(rows: Int, limit: Int, padded: Int) {
        #expect(StepGraphs.paddedRows(rows, limit: limit) == padded)
    }

    @Test(
        "launches are sized by powers of two, at least 256, within the session",
        arguments: [
            (1, 4096, 256), (256, 4096, 256), (257, 4096, 512), (3000, 4096, 4096), (600, 700, 700), (10, 40, 40), (50, 40, 50),
        ])
    func lengths(length: Int, capacity: Int, bound: Int) throws {
        let backend = CPUBackend(threads: 1, as: .cuda(0))
        let graphs = try #require(StepGraphs(backends: [backend]))
        #expect(graphs.launchLength(length, capacity: capacity) == bound)
    }

    @Test("only devices other than the CPU capture")
    func devices() {
        let gpus = [CPUBackend(threads: 1, as: .cuda(0)), CPUBackend(threads: 1, as: .cuda(1))]
        #expect(StepGraphs(backends: [gpus[0], gpus[0]]) != nil)
        #expect(StepGraphs(backends: [gpus[0], gpus[1]]) != nil)
        #expect(StepGraphs(backends: [gpus[0], CPUBackend(threads: 1)]) == nil)
        #expect(StepGraphs(backends: []) == nil)
    }

    @Test("a graph keeps the buffers that the session may replace, until it is forgotten")
    func keeps() throws {
        let backend = StandInBackend()
        let graphs = try #require(StepGraphs(backends: [backend]))
        var buffer: Tensor? = try backend.allocate(.float32, [4])
        weak var storage = buffer?.storage
        for _ in 0..<2 {
            try graphs.step(key(), [.init(on: backend) {}]) { [buffer].compactMap { $0 } }
        }
        #expect(backend.captures == 1)
        buffer = nil
        #expect(storage != nil)
        for other in 0..<StepGraphs.limit {
            try graphs.step(key(launch: 1000 + other), [.init(on: backend) {}]) { [] }
        }
        #expect(storage == nil)
    }

    @Test("a device without graphs runs every step")
    func unsupported() throws {
        let backend = CPUBackend(threads: 1, as: .cuda(0))
        let graphs = try #require(StepGraphs(backends: [backend]))
        var runs = 0
        for _ in 0..<5 { try graphs.step(key(), [.init(on: backend) { runs += 1 }]) { [] } }
        #expect(runs == 5)
    }
}

@Suite struct RowSelectionsTests {
    private static let vocabulary = 6
    private let backend = CPUBackend(threads: 1)

    private var penalty: SamplingParameters {
        var parameters = SamplingParameters()
        parameters.repetitionPenalty = 4
        return parameters
    }

    /// The tokens that a row's record counts: those whose logits a penalty makes smaller.
    private func choose(_ state: SelectionState, row: Int, logits: [Float]) throws -> Int32 {
        let tokens = try backend.allocate(.int32, [1])
        try backend.select(
            .host(logits, .float32, [1, logits.count]), state, slots: .host([Int32(row)], .int32, [1]),
            counters: .host([Int32(0)], .int32, [1]), into: tokens)
        return tokens.hostElements(Int32.self)[0]
    }

    @Test("a record counts its row's tokens, and what was chosen since")
    func counts() throws {
        var rows = RowSelections(rows: 2)
        let state = try SelectionState(slots: 2, vocabulary: Self.vocabulary, backend: backend)
        rows.append([3, 4], to: 1)
        try rows.prepare(penalty, row: 1, in: state)
        #expect(try choose(state, row: 1, logits: [0, 0, 1, 2, 3, 0]) == 2)
        rows.noteChosen(2, row: 1)
        rows.append([2], to: 1)
        try rows.prepare(penalty, row: 1, in: state)
        #expect(try choose(state, row: 1, logits: [0, 0.9, 1, 2, 3, 0]) == 1)
    }

    @Test("a token that was not chosen on the device is counted, and one that was cut is not")
    func changes() throws {
        var rows = RowSelections(rows: 2)
        let state = try SelectionState(slots: 2, vocabulary: Self.vocabulary, backend: backend)
        rows.append([3], to: 0)
        try rows.prepare(penalty, row: 0, in: state)
        #expect(try choose(state, row: 0, logits: [0, 0, 2, 3, 0, 0]) == 2)
        rows.noteChosen(2, row: 0)
        rows.append([5], to: 0)
        try rows.prepare(penalty, row: 0, in: state)
        #expect(try choose(state, row: 0, logits: [0, 0, 1, 2, 0, 3]) == 2, "2 was not fed")
        rows.truncate(0, to: 0)
        rows.append([4], to: 0)
        try rows.prepare(penalty, row: 0, in: state)
        #expect(try choose(state, row: 0, logits: [0, 0, 0, 1, 3, 2]) == 5)
        rows.gather([1, 0])
        try rows.prepare(penalty, row: 0, in: state)
        #expect(try choose(state, row: 0, logits: [0, 0, 0, 1, 3, 2]) == 4, "an empty row took its place")
    }
}
