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
    private func key(
        rows: [Int] = [0], length: Int = 10, launch: Int? = 256, rotary: [Int] = [], step: UInt64 = 0, temperature: Float = 0
    )
        -> StepGraphs.Key
    {
        var sampling = SamplingParameters()
        sampling.step = step
        sampling.temperature = temperature
        let shape = BatchShape(
            tokens: rows.count, rows: rows.count, maximumQueryLength: 1, maximumLength: length, launchLength: launch)
        return StepGraphs.Key(rows: rows, call: shape, rotary: rotary, sampling: sampling)
    }

    @Test("the key holds what is baked into a launch, not what lies in buffers")
    func keys() {
        #expect(key() == key(length: 99, step: 7))
        for other in [key(rows: [1]), key(rows: [0, 1]), key(launch: 512), key(rotary: [1]), key(temperature: 1)] {
            #expect(other != key())
        }
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

    @Test("only one device other than the CPU captures")
    func devices() {
        let gpus = [CPUBackend(threads: 1, as: .cuda(0)), CPUBackend(threads: 1, as: .cuda(1))]
        #expect(StepGraphs(backends: [gpus[0], gpus[0]]) != nil)
        #expect(StepGraphs(backends: [gpus[0], gpus[1]]) == nil)
        #expect(StepGraphs(backends: [CPUBackend(threads: 1)]) == nil)
        #expect(StepGraphs(backends: []) == nil)
    }

    @Test("a graph keeps the buffers that the session may replace, until it is forgotten")
    func keeps() throws {
        let backend = StandInBackend()
        let graphs = try #require(StepGraphs(backends: [backend]))
        var buffer: Tensor? = try backend.allocate(.float32, [4])
        weak var storage = buffer?.storage
        for _ in 0..<2 {
            try graphs.step(key()) {
                [buffer].compactMap { $0 }
            } _: {
            }
        }
        #expect(backend.captures == 1)
        buffer = nil
        #expect(storage != nil)
        for other in 0..<StepGraphs.limit {
            try graphs.step(key(launch: 1000 + other)) {
                []
            } _: {
            }
        }
        #expect(storage == nil)
    }

    @Test("a device without graphs runs every step")
    func unsupported() throws {
        let graphs = try #require(StepGraphs(backends: [CPUBackend(threads: 1, as: .cuda(0))]))
        var runs = 0
        for _ in 0..<5 {
            try graphs.step(key()) {
                []
            } _: {
                runs += 1
            }
        }
        #expect(runs == 5)
    }
}

@Suite struct TokenSetsTests {
    private static let vocabulary = 70
    private let backend = CPUBackend(threads: 1)

    private func penalty(_ forbidden: [Int32] = []) -> SamplingParameters {
        var parameters = SamplingParameters()
        parameters.repetitionPenalty = 1.2
        parameters.forbiddenTokens = forbidden
        return parameters
    }

    private func tokens(_ masks: SelectionMasks, row: Int) -> Set<Int32> {
        guard let seen = masks.seen else { return [] }
        let words = SelectionMasks.words(Self.vocabulary)
        let values = seen.hostElements(Int32.self)[row * words..<(row + 1) * words]
        return Set(
            (0..<Int32(Self.vocabulary)).filter { (token: Int32) -> Bool in
                let word: Int32 = values[values.startIndex + Int(token) / 32]
                return (word >> (token % 32)) & 1 == 1
            })
    }

    @Test("a set holds its row's tokens, all of them or all but the latest")
    func contents() throws {
        let sets = TokenSets(rows: 2, vocabulary: Self.vocabulary, backend: backend)
        sets.append([3, 40, 69], to: 0)
        sets.append([5], to: 1)
        try sets.prepare(penalty(), rows: [0, 1], addsLatest: false)
        let masks = sets.masks(penalty(), rows: 0..<2, latest: nil)
        #expect(tokens(masks, row: 0) == [3, 40, 69] && tokens(masks, row: 1) == [5])
        #expect(tokens(sets.masks(penalty(), rows: 1..<2, latest: nil), row: 0) == [5])
    }

    @Test("after a cut or a reordering sets are made anew")
    func rebuilt() throws {
        let sets = TokenSets(rows: 2, vocabulary: Self.vocabulary, backend: backend)
        sets.append([1, 2, 3], to: 0)
        sets.append([8, 9], to: 1)
        try sets.prepare(penalty(), rows: [0, 1], addsLatest: false)
        sets.truncate(0, to: 1)
        try sets.prepare(penalty(), rows: [0], addsLatest: false)
        #expect(tokens(sets.masks(penalty(), rows: 0..<1, latest: nil), row: 0) == [1])
        sets.gather([1, 1])
        sets.append([30], to: 1)
        try sets.prepare(penalty(), rows: [0, 1], addsLatest: false)
        let masks = sets.masks(penalty(), rows: 0..<2, latest: nil)
        #expect(tokens(masks, row: 0) == [8, 9] && tokens(masks, row: 1) == [8, 9, 30])
    }

    @Test("the set of forbidden tokens stays at its address, and is there only when asked for")
    func forbidden() throws {
        let sets = TokenSets(rows: 1, vocabulary: Self.vocabulary, backend: backend)
        try sets.prepare(penalty([7, 33]), rows: [], addsLatest: false)
        let first = try #require(sets.masks(penalty([7, 33]), rows: 0..<1, latest: nil).forbidden)
        #expect(Array(first.hostElements(Int32.self)) == ([1 << 7, 1 << 1, 0] as [Int32]))
        try sets.prepare(penalty([1]), rows: [], addsLatest: false)
        try sets.prepare(penalty([7, 33]), rows: [], addsLatest: false)
        #expect(sets.masks(penalty([7, 33]), rows: 0..<1, latest: nil).forbidden?.address == first.address)
        let plain = sets.masks(.greedy, rows: 0..<1, latest: nil)
        #expect(plain.seen == nil && plain.forbidden == nil)
    }
}
