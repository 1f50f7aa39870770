import Nibble
import NibbleCPU
import NibbleCore
import NibbleModels
import NibbleServing
import NibbleTestSupport
import Testing

/// Rows with different adapters share every product, and each answers as it does alone.
@Suite(.computing) struct AdapterRowsTests {
    static let workloads = [
        ExecutorTests.Workload(testDescription: "everything fits", slots: 6, chunkTokens: 512, blocks: 60),
        ExecutorTests.Workload(testDescription: "small chunks", slots: 4, chunkTokens: 7, blocks: 60),
        ExecutorTests.Workload(testDescription: "few blocks", slots: 4, chunkTokens: 40, blocks: 5),
    ]

    /// An adapter of random numbers for every second linear layer, or for all.
    static func adapter(_ model: LanguageModel, _ number: Int) throws -> LowRankAdapter {
        var layers: [String: LowRankFactors] = [:]
        for (index, name) in model.adapters.layerNames.sorted().enumerated() where number == 0 || index % 2 == number % 2 {
            let layer = try #require(model.adapters.layer(name)?.layer)
            let rank = [4, 8, 3, 17][number % 4]
            func random(_ shape: Shape, _ salt: UInt64) -> Tensor {
                let seed = UInt64(index) << 8 | UInt64(number) << 4 | salt
                let dtype: DType = number % 2 == 0 ? .float32 : .bfloat16
                let values = numbers(shape.count, seed, 0.3)
                return dtype == .float32 ? .host(values, dtype, shape) : .host(values.map { BFloat16($0) }, dtype, shape)
            }
            var factors = LowRankFactors(
                a: random([rank, layer.inFeatures], 1), b: random([layer.outFeatures, rank], 2), scale: 0.5 + Float(number))
            if number == 2 {
                factors.bias = .host(numbers(layer.outFeatures, 3, 1), .float32, [layer.outFeatures])
                factors.gain = .host(
                    numbers(layer.outFeatures, 4, 0.1).map { $0 + 1 }, .float32, [layer.outFeatures])
            }
            layers[name] = factors
        }
        return LowRankAdapter(name: "adapter \(number)", layers: layers)
    }

    private static func numbers(_ count: Int, _ seed: UInt64, _ scale: Float) -> [Float] {
        (0..<count).map { (RandomStream.uniform(seed: seed, stream: 1, counter: UInt64($0)) - 0.5) * 3.5 * scale }
    }

    /// What request i uses: an adapter, none, two of them, or a part of one.
    static func weights(_ ids: [AdapterID], _ index: Int) -> AdapterWeights {
        [[ids[0]: 1], [:], [ids[1]: 1], [ids[2]: 1], [ids[0]: 0.5, ids[1]: -1], [ids[3]: 1], [:]][index % 7]
    }

    private static func adapted(_ name: String, _ backend: any Backend) throws -> (LanguageModel, [AdapterID]) {
        let model = try ExecutorTests.load(name, backend)
        return (model, try (0..<4).map { try model.adapters.attach(try adapter(model, $0)) })
    }

    @Test("rows do not notice each other's adapters", arguments: ["llama", "bloom", "t5", "qwen2_moe"], workloads)
    func crowd(name: String, workload: ExecutorTests.Workload) throws {
        let (model, ids) = try Self.adapted(name, CPUBackend(threads: 2))
        let (found, preemptions) = try ExecutorTests.together(model, workload) { Self.weights(ids, $0) }
        var changed = 0
        for (index, request) in ExecutorTests.requests(model).enumerated() {
            let weights = Self.weights(ids, index)
            let wanted = try ExecutorTests.alone(model, request.request, request.settings, weights)
            #expect(found[index] == wanted, "request \(index)")
            if try !weights.isEmpty && ExecutorTests.alone(model, request.request, request.settings) != wanted { changed += 1 }
        }
        #expect(changed > 2)
        if workload.testDescription == "few blocks" { #expect(preemptions > 0) }
    }

    @Test("captured steps serve rows of any adapters", arguments: ["llama", "t5"])
    func graphs(name: String) throws {
        let gpu = StandInBackend()
        let (model, ids) = try Self.adapted(name, gpu)
        let (plain, plainIDs) = try Self.adapted(name, CPUBackend(threads: 1))
        let found = try ExecutorTests.together(model, Self.workloads[0]) { Self.weights(ids, $0) }
        let wanted = try ExecutorTests.together(plain, Self.workloads[0]) { Self.weights(plainIDs, $0) }
        #expect(found.tokens == wanted.tokens)
        #expect(gpu.launches > 0 && gpu.earlyLaunches > 0 && gpu.usesAfterFree == 0)
    }

    @Test("adapters that come and go while a session runs change its own rows alone", arguments: [false, true])
    func swap(isCaptured: Bool) throws {
        let gpu = StandInBackend()
        let model = try ExecutorTests.load("llama", isCaptured ? gpu : CPUBackend(threads: 1))
        let first = try model.adapters.attach(try Self.adapter(model, 0))
        func tokens(_ change: (_ step: Int) throws -> Void) throws -> [[Int32]] {
            let session = try model.makeSession(SessionRequest(rows: 2, capacity: 64, adapters: [[first: 1], [:]]))
            var inputs = [RowTokens(row: 0, tokens: [5, 9, 7]), RowTokens(row: 1, tokens: [5, 9, 7])]
            var found: [[Int32]] = [[], []]
            for step in 0..<24 {
                try change(step)
                let next = try session.feed(inputs, sampling: .greedy)
                for row in 0..<2 {
                    found[row].append(next[row])
                    inputs[row].tokens = [next[row]]
                }
            }
            return found
        }
        let still = try tokens { _ in }
        #expect(still[0] != still[1])
        var other: AdapterID?
        let swapped = try tokens { step in
            if step % 8 == 3 { other = try model.adapters.attach(try Self.adapter(model, 3)) }
            if step % 8 == 7, let id = other { try model.adapters.detach(id) }
        }
        #expect(swapped == still)
        // One that is gone is used no more.
        let gone = try tokens { if $0 == 0 { try model.adapters.detach(first) } }
        #expect(gone[0] == still[1] && gone[1] == still[1])
        #expect(isCaptured == (gpu.launches > 10) && gpu.usesAfterFree == 0)
    }

    @Test("rows that change places take their adapters along")
    func gather() throws {
        let (model, ids) = try Self.adapted("llama", CPUBackend(threads: 1))
        let prompt: [Int32] = [5, 9, 7, 4]
        func session(_ adapters: [AdapterWeights]) throws -> any DecodingSession {
            let session = try model.makeSession(SessionRequest(rows: adapters.count, capacity: 32, adapters: adapters))
            _ = try session.feed(adapters.indices.map { RowTokens(row: $0, tokens: prompt) }, sampling: .greedy)
            return session
        }
        let together = try session([[ids[0]: 1], [ids[3]: 1], [:]])
        try together.gather([2, 0, 0])
        let found = try together.feed((0..<3).map { RowTokens(row: $0, tokens: [6]) }, logits: .last) { batch in
            (0..<3).map { Array(batch[$0]) }
        }
        let moved: [AdapterWeights] = [[:], [ids[0]: 1], [ids[0]: 1]]
        for (row, weights) in moved.enumerated() {
            let alone = try session([weights]).feed([RowTokens(row: 0, tokens: [6])], logits: .last) { Array($0[0]) }
            let difference = zip(found[row], alone).map { abs($0 - $1) }.max() ?? .infinity
            #expect(difference < 1e-4)
        }
    }

    @Test("logits of all positions are a row's own")
    func allPositions() throws {
        let (model, ids) = try Self.adapted("llama", CPUBackend(threads: 2))
        let rows: [AdapterWeights] = [[ids[1]: 1], [:], [ids[2]: 1]]
        let tokens: [Int32] = [5, 9, 7, 4, 8, 3]
        func logits(_ adapters: [AdapterWeights]) throws -> [[Float]] {
            let session = try model.makeSession(SessionRequest(rows: adapters.count, capacity: 16, adapters: adapters))
            return try session.feed(adapters.indices.map { RowTokens(row: $0, tokens: tokens) }, logits: .all) { batch in
                (0..<batch.rows).map { Array(batch[$0]) }
            }
        }
        let together = try logits(rows)
        for (row, weights) in rows.enumerated() {
            for (position, alone) in try logits([weights]).enumerated() {
                let difference = zip(together[row * tokens.count + position], alone).map { abs($0 - $1) }.max() ?? .infinity
                #expect(difference < 1e-4)
            }
        }
    }

    @Test("equal prompts share a prefix under the same adapters only")
    func prefixes() async throws {
        let model = try PretrainedModel.load(folder: PlacementRunTests.folder("llama"), Self.float32)
        let engine = try await model.engine(EngineConfiguration(maxBatch: 2, context: 200))
        let first = try await engine.attach(try Self.adapter(model.model, 0))
        let second = try await engine.attach(try Self.adapter(model.model, 3))
        let prompt = (0..<100).map { Int32($0 % 9 + 3) }
        func cached(_ adapters: AdapterWeights) async throws -> Int {
            var request = EngineRequest(prompt, GenerationConfig(maxNewTokens: 2))
            request.adapters = adapters
            var found = -1
            for try await event in engine.submit(request) {
                if case .finished(_, _, _, let cachedTokens, _) = event { found = cachedTokens }
            }
            return found
        }
        for adapters: AdapterWeights in [[:], [first: 1], [first: 0.5], [second: 1], [first: 1, second: 1]] {
            #expect(try await cached(adapters) == 0)
            #expect(try await cached(adapters) >= 96)
        }
        try await engine.detach(first)
        #expect(!model.model.adapters.contains(first) && model.model.adapters.contains(second))
    }

    private static var float32: LoadConfiguration {
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        return configuration
    }

    @Test("what does not fit is refused by name, and nothing changes")
    func refusals() throws {
        let model = try ExecutorTests.load("llama", CPUBackend(threads: 1))
        let good = try Self.adapter(model, 0)
        let name = try #require(good.layers.keys.min())
        func check(_ change: (inout LowRankFactors) -> Void) throws {
            var bad = good
            change(&bad.layers[name]!)
            let error = #expect(throws: ModelError.self) { try model.adapters.attach(bad) }
            #expect("\(try #require(error))".contains(name))
        }
        try check { $0.a = .host(.float32, [4, 3]) }
        try check { $0.b = .host(.float32, [5, 4]) }
        try check { $0.a = .host(.int8, $0.a.shape) }
        try check { $0.gain = .host(.float32, [1]) }
        try check { $0.bias = .host(.float16, [$0.b.shape[0]]) }
        var unknown = good
        unknown.layers["model.layers.99.q_proj"] = good.layers[name]
        #expect(throws: ModelError.self) { try model.adapters.attach(unknown) }
        #expect(model.adapters.byteCount == 0)
        for _ in 0..<AdapterRegistry.limit { try model.adapters.attach(LowRankAdapter(name: "small", layers: [:])) }
        #expect(throws: ModelError.tooManyAdapters(limit: AdapterRegistry.limit)) { try model.adapters.attach(good) }
    }
}
