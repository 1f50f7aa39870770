import Foundation
import Nibble
import NibbleCPU
import NibbleCore
import NibbleModels
import NibbleTestSupport
import Testing

/// Decode steps that are captured as graphs, and steps that cross devices. A CPU stands in for the GPU.
@Suite struct StepTests {
    private func load(_ name: String, _ backends: [any Backend], map: [String: Device]) throws -> PretrainedModel {
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        configuration.backends = backends
        configuration.deviceMap = .explicit(DeviceMap(map))
        return try PretrainedModel.load(folder: PlacementRunTests.folder(name), configuration)
    }

    /// The same calls on a session of captured graphs and on one of the CPU's.
    private func compare(
        _ name: String, rows: Int = 1, capacity: Int = 60, _ use: (any DecodingSession) throws -> [Int32]
    ) throws -> StandInBackend {
        let gpu = StandInBackend()
        let model = try load(name, [gpu, CPUBackend(threads: 1)], map: ["": .cuda(0)])
        let plain = try load(name, [CPUBackend(threads: 1)], map: ["": .cpu])
        let request = SessionRequest(rows: rows, capacity: capacity)
        let found = try use(try model.model.makeSession(request))
        #expect(try use(try plain.model.makeSession(request)) == found)
        #expect(gpu.usesAfterFree == 0)
        #expect(gpu.launches > 0)
        return gpu
    }

    private func step(_ session: any DecodingSession, _ token: Int32, _ count: Int) throws -> [Int32] {
        var tokens = [token]
        var sampling = SamplingParameters.greedy
        for step in 0..<count {
            sampling.step = UInt64(step)
            tokens += try session.feed([RowTokens(row: 0, tokens: [tokens[tokens.count - 1]])], sampling: sampling)
        }
        return tokens
    }

    private static let models = ["bloom", "llama", "gpt_neo", "qwen2_window"]

    @Test("sampling, a turn that wants many logits, and sampling again", arguments: models)
    func logitsGrow(name: String) throws {
        let gpu = try compare(name) { session in
            var tokens = try step(session, 5, 4)
            let draft = RowTokens(row: 0, tokens: [7, 9, 4, 8, 6, 11, 3, 10])
            tokens += try session.feed([draft], logits: .all) { batch in
                (0..<batch.rows).map { row in Int32(batch[row].indices.max { batch[row][$0] < batch[row][$1] } ?? 0) }
            }
            tokens += try session.feed([RowTokens(row: 0, tokens: [7, 9, 4])], sampling: .greedy)
            return try tokens + step(session, 5, 6)
        }
        #expect(gpu.captures == 1)
    }

    @Test("rows come and go")
    func rows() throws {
        _ = try compare("llama", rows: 3) { session in
            var tokens: [Int32] = []
            for round in 0..<12 {
                let rows = [[0, 1, 2], [1], [0, 1, 2], [0, 2]][round % 4]
                tokens += try session.feed(rows.map { RowTokens(row: $0, tokens: [Int32(round + $0 + 3)]) }, sampling: .greedy)
                if round % 5 == 4 { try session.gather([2, 0, 1]) }
            }
            return tokens
        }
    }

    @Test("rotary tables that depend on the length are dropped, and made again", arguments: ["llama_ntk", "phi3_longrope"])
    func rotaryTables(name: String) throws {
        let folder = PlacementRunTests.folder(name)
        let config = try JSONValue(contentsOf: folder.appending(path: "config.json"))
        let original = try #require(
            config["original_max_position_embeddings"]?.int ?? config["max_position_embeddings"]?.int)
        let gpu = try compare(name, capacity: original + 20) { session in
            _ = try session.feed([RowTokens(row: 0, tokens: (0..<original - 3).map { Int32($0 % 9 + 3) })], logits: .last) { _ in
            }
            var tokens: [Int32] = []
            // Lengths before and beyond the original one, each several times.
            for _ in 0..<5 {
                tokens += try step(session, 5, 8)
                try session.truncate(row: 0, to: original - 3)
            }
            return tokens
        }
        #expect(gpu.captures >= 2)
    }

    @Test("a step begins before the tokens of the last one are read", arguments: models)
    func early(name: String) throws {
        let gpu = try compare(name) { try step($0, 5, 38) }
        // Not the first ones, which are run and captured; not at the end of a block, in windows.
        #expect(gpu.earlyLaunches >= 34)
    }

    @Test("whatever follows a step that began early, tokens are those of a session without", arguments: models, 0..<8)
    func programs(name: String, seed: UInt64) throws {
        let gpu = try compare(name, rows: 3, capacity: 40) { try program($0, seed: seed) }
        #expect(gpu.earlyLaunches > 0)
    }

    /// Mostly goes on with the tokens chosen; sometimes for some rows alone, with others, or after something else.
    private func program(_ session: any DecodingSession, seed: UInt64) throws -> [Int32] {
        var counter: UInt64 = 0
        func draw(_ count: Int) -> Int {
            counter += 1
            return Int(RandomStream.uniform(seed: seed, stream: 1, counter: counter) * Float(count))
        }
        var sampling = SamplingParameters()
        var next: [Int32] = [5, 6, 7]
        var all: [Int32] = []
        var rows = [0, 1, 2]
        for step in 0..<200 {
            switch draw(100) {
            case 0: next[draw(3)] = Int32(3 + draw(9))
            case 1: for row in 0..<3 { try session.truncate(row: row, to: session.length(ofRow: row) - draw(4)) }
            case 2: try session.gather([draw(3), 1, draw(3)])
            case 3:
                all += try session.feed([RowTokens(row: 1, tokens: [4, 8])], logits: .last) { batch in
                    [Int32(batch[0].indices.max { batch[0][$0] < batch[0][$1] } ?? 0)]
                }
            case 4:
                sampling.temperature = [0, 0.8][draw(2)]
                sampling.repetitionPenalty = [1, 1.4][draw(2)]
                sampling.seed = UInt64(draw(5))
            case 5: rows = [[0, 1, 2], [2, 0], [1]][draw(3)]
            default: break
            }
            for row in 0..<3 where session.length(ofRow: row) > 36 { try session.truncate(row: row, to: 20) }
            sampling.step = UInt64(step)
            let chosen = try session.feed(rows.map { RowTokens(row: $0, tokens: [next[$0]]) }, sampling: sampling)
            for (row, token) in zip(rows, chosen) { next[row] = token }
            all += chosen
        }
        return all
    }

    @Test(
        "a model over two devices decodes with a graph for each, and begins steps early",
        arguments: [
            ["": .cuda(0), "model.layers.1": .cuda(1), "model.norm": .cuda(1), "lm_head": .cuda(1)],
            ["": .cuda(0), "model.layers.1": .cuda(1)], ["": .cuda(1), "model.embed_tokens": .cuda(0)],
            ["": .cuda(0), "lm_head": .cuda(1)],
        ] as [[String: Device]], 0..<3)
    func spread(map: [String: Device], seed: UInt64) throws {
        let gpus = [StandInBackend(), StandInBackend(as: .cuda(1))]
        let model = try load("llama", gpus + [CPUBackend(threads: 1)], map: map)
        let plain = try load("llama", [CPUBackend(threads: 1)], map: ["": .cpu])
        let request = SessionRequest(rows: 3, capacity: 40)
        let found = try program(try model.model.makeSession(request), seed: seed)
        #expect(try program(try plain.model.makeSession(request), seed: seed) == found)
        #expect(gpus.allSatisfy { $0.usesAfterFree == 0 } && gpus.contains { $0.launches > 20 })
    }

    @Test("how tokens are chosen is no part of a graph")
    func selections() throws {
        let gpu = try compare("llama") { session in
            var tokens: [Int32] = []
            for temperature in 0..<12 {
                for _ in 0..<3 {
                    var sampling = SamplingParameters()
                    sampling.temperature = Float(temperature % 3)
                    sampling.topK = 3
                    sampling.repetitionPenalty = temperature % 2 == 0 ? 1 : 1.5
                    sampling.forbiddenTokens = temperature == 5 ? [7] : []
                    sampling.seed = UInt64(temperature)
                    tokens += try session.feed([RowTokens(row: 0, tokens: [5])], sampling: sampling)
                    try session.truncate(row: 0, to: session.length(ofRow: 0) / 2)
                }
            }
            return tokens
        }
        #expect(gpu.captures == 1)
    }

    @Test("a session takes over the buffers and graphs of the one before")
    func reuse() throws {
        let gpu = StandInBackend()
        let model = try load("llama", [gpu, CPUBackend(threads: 1)], map: ["": .cuda(0)])
        func run(_ capacity: Int) throws -> [Int32] {
            try step(try model.model.makeSession(SessionRequest(rows: 1, capacity: capacity)), 5, 6)
        }
        let first = try run(60)
        let (allocations, captures) = (gpu.allocations, gpu.captures)
        #expect(try run(60) == first)
        #expect(try run(40) == first)
        #expect(gpu.allocations == allocations && gpu.captures == captures)
        #expect(try run(90) == first)
        #expect(gpu.allocations > allocations)
    }

    @Test(
        "activations that cross to another dtype allocate nothing in a step, and wait for nothing",
        arguments: [DType.bfloat16, .float16])
    func crossing(dtype: DType) throws {
        let (gpu, cpu) = (StandInBackend(activations: dtype), StandInBackend(as: .cuda(1)))
        let model = try load("llama", [cpu, gpu, CPUBackend(threads: 1)], map: ["": .cuda(1), "lm_head": .cuda(0)])
        let plain = try load("llama", [CPUBackend(threads: 1)], map: ["": .cpu])
        let request = SessionRequest(rows: 1, capacity: 60)
        let (session, wanted) = (try model.model.makeSession(request), try plain.model.makeSession(request))
        func feed(_ session: any DecodingSession, _ tokens: [Int32]) throws -> [Float] {
            try session.feed([RowTokens(row: 0, tokens: tokens)], logits: .last) { Array($0.values) }
        }
        for tokens in [[3, 4, 5, 6, 7], [8]] as [[Int32]] {
            #expect(agree(try feed(session, tokens), try feed(wanted, tokens)))
        }
        let before = (gpu.allocations, cpu.allocations, gpu.synchronizations, cpu.synchronizations)
        for token in 0..<20 as Range<Int32> { #expect(agree(try feed(session, [token + 9]), try feed(wanted, [token + 9]))) }
        #expect(gpu.allocations == before.0 && cpu.allocations == before.1)
        // Each feed waits once, for its logits.
        #expect(gpu.synchronizations - before.2 <= 20 && cpu.synchronizations == before.3)
    }

    private func agree(_ a: [Float], _ b: [Float]) -> Bool {
        let norm = b.reduce(0) { $0 + $1 * $1 }
        let difference = zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
        return a.count == b.count && difference <= norm * 1e-4
    }
}
