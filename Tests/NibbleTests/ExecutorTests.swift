import Foundation
import Nibble
import NibbleCPU
import NibbleCore
import NibbleModels
import NibbleServing
import NibbleTestSupport
import Testing

/// Requests that share an executor get the tokens that each gets alone.
@Suite(.computing) struct ExecutorTests {
    struct Workload: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var slots: Int
        var chunkTokens: Int
        var blocks: Int
    }

    static let workloads = [
        Workload(testDescription: "everything fits", slots: 6, chunkTokens: 512, blocks: 60),
        Workload(testDescription: "small chunks", slots: 4, chunkTokens: 7, blocks: 60),
        Workload(testDescription: "few blocks", slots: 4, chunkTokens: 40, blocks: 5),
        Workload(testDescription: "one slot", slots: 1, chunkTokens: 40, blocks: 4),
    ]

    /// Models of layers with windows only, and with windows in some layers: of the whole set of fixtures, where it is there.
    static let windowed =
        ["ministral", "windows only"]
        + ["mistral", "gemma2", "gemma3_text", "gpt_oss", "olmo3"].filter {
            FixtureModel.all.map(\.name).contains($0)
        }

    static func load(_ name: String, _ backend: any Backend) throws -> LanguageModel {
        var configuration = LoadConfiguration()
        configuration.dtype = .float32
        configuration.backends = backend.device == .cpu ? [backend] : [backend, CPUBackend(threads: 1)]
        configuration.deviceMap = .explicit(DeviceMap(["": backend.device]))
        let folder =
            if name == "windows only" {
                try windowsOnly()
            } else if RecurrentConfigs.all[name] != nil {
                try RecurrentConfigs.folder(name)
            } else {
                PlacementRunTests.folder(name)
            }
        let model = try PretrainedModel.load(folder: folder, configuration)
        return try #require(model.model as? LanguageModel)
    }

    /// A model whose layers all have a window.
    private static func windowsOnly() throws -> URL {
        let source = PlacementRunTests.folder("qwen2_window")
        let folder = FileManager.default.temporaryDirectory.appending(path: "windows-only-\(UUID().uuidString)")
        try FileManager.default.copyItem(at: source, to: folder)
        let config = try String(contentsOf: source.appending(path: "config.json"), encoding: .utf8)
        try config.replacing("\"full_attention\"", with: "\"sliding_attention\"")
            .write(to: folder.appending(path: "config.json"), atomically: true, encoding: .utf8)
        return folder
    }

    /// Prompts of several lengths; some begin alike.
    static func requests(_ model: LanguageModel) -> [(request: ServingRequest, settings: SlotSettings)] {
        let lengths = [3, 40, 70, 1, 33, 64, 12, 50, 41, 90]
        return lengths.enumerated().map { index, length in
            let prompt = (0..<length).map { Int32(($0 * (index % 3 == 0 ? 5 : 7)) % 11 + 3) }
            var selection = SlotSelection()
            if index % 2 == 1 {
                selection.temperature = 0.9
                selection.topK = index % 4 == 1 ? 5 : 0
                selection.seed = UInt64(index)
            }
            if index % 3 == 2 { selection.repetitionPenalty = 1.3 }
            var settings = SlotSettings(selection: selection, prompt: prompt)
            // Some sequences share an encoder input.
            if model.isEncoderDecoder { settings.encoderInput = (0..<(index % 4 * 12 + 2)).map { Int32($0 % 9 + 4) } }
            return (ServingRequest(prompt: prompt, maxNewTokens: 4 + 15 * (index % 4)), settings)
        }
    }

    /// What a session answers to one request.
    static func alone(
        _ model: LanguageModel, _ request: ServingRequest, _ settings: SlotSettings, _ adapters: AdapterWeights = [:]
    ) throws -> [Int32] {
        let selection = settings.selection
        let session = try model.makeSession(
            SessionRequest(
                rows: 1, capacity: request.prompt.count + request.maxNewTokens,
                encoderInputs: model.isEncoderDecoder ? [settings.encoderInput] : [], adapters: [adapters]))
        var parameters = SamplingParameters()
        parameters.temperature = selection.temperature
        parameters.topK = selection.topK
        parameters.seed = selection.seed
        parameters.repetitionPenalty = selection.repetitionPenalty
        var next = request.prompt
        var tokens: [Int32] = []
        for step in 0..<request.maxNewTokens {
            parameters.step = UInt64(step)
            next = try session.feed([RowTokens(row: 0, tokens: next)], sampling: parameters)
            tokens += next
        }
        return tokens
    }

    /// Runs all requests through a scheduler over one executor.
    /// - Parameter adapters: those of each request.
    static func together(
        _ model: LanguageModel, _ workload: Workload, adapters: (Int) -> AdapterWeights = { _ in [:] }
    ) throws -> (tokens: [[Int32]], preemptions: Int) {
        let executor = try model.makeExecutor(
            ExecutorSize(slots: workload.slots, context: 200, chunkTokens: workload.chunkTokens, blocks: workload.blocks))
        var limits = SchedulerLimits(
            slots: executor.slots, context: executor.context, chunkTokens: executor.chunkTokens)
        limits.targetStep = .milliseconds(1)
        var scheduler = Scheduler(
            limits: limits, pool: BlockPool(tables: executor.tables, blockSize: KeyValueGeometry.blockSize),
            secondsPerToken: 1e-4)
        let requests = Self.requests(model)
        var order: [RequestID: Int] = [:]
        for (index, var request) in requests.map(\.request).enumerated() {
            if !executor.sharesPrefixes || !adapters(index).isEmpty { request.root = PrefixRoot(number: UInt32(index + 1)) }
            order[try scheduler.submit(request)] = index
        }
        var tokens = Array(repeating: [Int32](), count: requests.count)
        var preemptions = 0
        var plan = StepPlan()
        while !scheduler.isIdle {
            for event in scheduler.plan(now: .zero, into: &plan) {
                switch event {
                case .started(let id, _, let slot, _):
                    let index = try #require(order[id])
                    var settings = requests[index].settings
                    settings.generated = tokens[index]
                    settings.adapters = adapters(index)
                    try executor.begin(slot: slot, settings)
                case .preempted: preemptions += 1
                default: Issue.record("unexpected \(event)")
                }
            }
            let answers = try executor.step(plan)
            for event in scheduler.complete(answers.map { .token($0.token) }, seconds: 1e-3) {
                if case .token(let id, _, let token) = event { tokens[try #require(order[id])].append(token) }
            }
        }
        #expect(scheduler.pool.usedCount == 0)
        return (tokens, preemptions)
    }

    @Test(
        "sequences do not notice each other",
        arguments: ["bloom", "llama", "qwen2_window", "t5", "umt5"] + windowed + RecurrentConfigs.names, workloads)
    func crowd(name: String, workload: Workload) throws {
        let model = try Self.load(name, CPUBackend(threads: 2))
        let (found, preemptions) = try Self.together(model, workload)
        for (index, request) in Self.requests(model).enumerated() {
            let wanted = try Self.alone(model, request.request, request.settings)
            #expect(found[index] == wanted, "request \(index)")
        }
        // Windows and states alone need few blocks.
        let isTight =
            workload.testDescription == "few blocks" && !["windows only", "mistral", "delta only", "mamba2"].contains(name)
        if isTight { #expect(preemptions > 0) }
    }

    @Test(
        "rows of different rotary tables do not notice each other", arguments: ["phi3_longrope", "llama_ntk"],
        workloads.filter { $0.testDescription != "few blocks" })
    func rotary(name: String, workload: Workload) throws {
        try crowd(name: name, workload: workload)
    }

    @Test(
        "captured steps with padding rows answer the same",
        arguments: ["bloom", "llama", "qwen2_window", "t5"] + RecurrentConfigs.names, workloads)
    func graphs(name: String, workload: Workload) throws {
        let gpu = StandInBackend()
        let model = try Self.load(name, gpu)
        let plain = try Self.load(name, CPUBackend(threads: 1))
        #expect(try Self.together(model, workload).tokens == Self.together(plain, workload).tokens)
        #expect(gpu.launches > 0 && gpu.usesAfterFree == 0)
        #expect(gpu.earlyLaunches > 0)
    }

    @Test("a mask that is written while the layers run holds the same step, with graphs and without", arguments: [false, true])
    func lateMasks(isCaptured: Bool) throws {
        let gpu = StandInBackend()
        let model = try Self.load("llama", isCaptured ? gpu : CPUBackend(threads: 1))
        let executor = try model.makeExecutor(ExecutorSize(slots: 2, context: 64))
        var pool = BlockPool(tables: executor.tables, blockSize: KeyValueGeometry.blockSize)
        var sequences = [pool.emptySequence(root: .plain), pool.emptySequence(root: .plain)]
        var selection = SlotSelection()
        selection.usesMask = true
        for slot in 0..<2 { try executor.begin(slot: slot, SlotSettings(selection: selection, prompt: [5])) }
        var plan = StepPlan()
        for step in 0..<12 {
            plan.removeAll()
            plan.isSteady = true
            for slot in 0..<2 {
                _ = try #require(pool.append(1, to: &sequences[slot]))
                plan.addRow(
                    slot: slot, tokens: [5], start: step, tables: sequences[slot].tables, wantsToken: true, counter: step)
            }
            // Each slot may have one token, another in every step.
            let allowed = [Int32(3 + step % 5), Int32(9 + step % 3)]
            var failure: (any Error)?
            let answers = try executor.step(plan) {
                do {
                    for slot in 0..<2 {
                        var words = [Int32](repeating: 0, count: SelectionState.words(executor.vocabularySize))
                        words[Int(allowed[slot]) / 32] = 1 << (allowed[slot] % 32)
                        try words.withUnsafeBufferPointer { try executor.setMask($0, slot: slot) }
                    }
                } catch {
                    failure = error
                }
            }
            #expect(failure == nil && answers.map(\.token) == allowed)
        }
        #expect(isCaptured == (gpu.launches > 10) && gpu.usesAfterFree == 0)
    }

    @Test(
        "a sequence of any length holds few blocks of a window, or of states",
        arguments: ["qwen2_window", "ministral", "windows only"] + RecurrentConfigs.names)
    func windowBlocks(name: String) throws {
        let model = try Self.load(name, CPUBackend(threads: 1))
        let executor = try model.makeExecutor(ExecutorSize(slots: 2, context: 2000, chunkTokens: 64))
        let windows = executor.tables.filter { $0.kind != .full }
        #expect(!windows.isEmpty && windows.allSatisfy { $0.blockCount < 40 })
        var pool = BlockPool(tables: executor.tables, blockSize: KeyValueGeometry.blockSize)
        #expect(pool.capacity(chunk: 64) >= 2000)
        var sequence = pool.emptySequence(root: .plain)
        let tokens = (0..<1984).map { Int32($0 % 9 + 3) }
        try executor.begin(slot: 0, SlotSettings(prompt: tokens))
        var plan = StepPlan()
        var answer: Int32?
        for start in stride(from: 0, to: tokens.count, by: 64) {
            plan.removeAll()
            _ = try #require(pool.append(64, to: &sequence))
            plan.addRow(
                slot: 0, tokens: tokens[start..<start + 64], start: start, tables: sequence.tables,
                wantsToken: start + 64 == tokens.count, counter: 0)
            answer = try executor.step(plan).first?.token
            pool.index(&sequence, tokens: tokens)
            pool.releasePassed(&sequence)
        }
        for (table, kind) in executor.tables.map(\.kind).enumerated() where kind != .full {
            #expect(sequence.tables[table].count { $0 != SequenceBlocks.noBlock } <= 4)
        }
        let session = try model.makeSession(SessionRequest(rows: 1, capacity: 2000))
        let wanted = try session.feed([RowTokens(row: 0, tokens: tokens)], sampling: SamplingParameters())
        #expect(answer == wanted.first)
    }

    @Test("a prompt that begins as another did starts from its state", arguments: RecurrentConfigs.names)
    func sharedStates(name: String) throws {
        let model = try Self.load(name, CPUBackend(threads: 1))
        let executor = try model.makeExecutor(ExecutorSize(slots: 2, context: 300, chunkTokens: 64))
        #expect(executor.sharesPrefixes)
        var scheduler = Scheduler(
            limits: SchedulerLimits(slots: 2, context: executor.context, chunkTokens: 64),
            pool: BlockPool(tables: executor.tables, blockSize: KeyValueGeometry.blockSize), secondsPerToken: 1e-4)
        var plan = StepPlan()
        func answer(_ prompt: [Int32]) throws -> (tokens: [Int32], cached: Int?) {
            var (tokens, cached): ([Int32], Int?) = ([], nil)
            _ = try scheduler.submit(ServingRequest(prompt: prompt, maxNewTokens: 40))
            while !scheduler.isIdle {
                for case .started(_, _, let slot, let count) in scheduler.plan(now: .zero, into: &plan) {
                    cached = count
                    try executor.begin(slot: slot, SlotSettings(prompt: prompt))
                }
                let answers = try executor.step(plan)
                for case .token(_, _, let token) in scheduler.complete(answers.map { .token($0.token) }, seconds: 1e-3) {
                    tokens.append(token)
                }
            }
            return (tokens, cached)
        }
        let prompt = (0..<100).map { (place: Int) -> Int32 in Int32(place * 7 % 50 + 3) }
        let first = try answer(prompt)
        let second = try answer(prompt)
        #expect(first.cached == 0 && second.cached == 96 && second.tokens == first.tokens)
        // The answer, too, left states at the ends of blocks.
        let longer = prompt + first.tokens + [9, 8, 7]
        let third = try answer(longer)
        #expect(third.cached == 128)
        #expect(
            try third.tokens
                == Self.alone(model, ServingRequest(prompt: longer, maxNewTokens: 40), SlotSettings(prompt: longer)))
        #expect(scheduler.pool.usedCount == 0)
    }

    @Test(
        "an impossible size is refused",
        arguments: [
            ExecutorSize(slots: 0), ExecutorSize(slots: 1, context: 0), ExecutorSize(slots: 1, chunkTokens: -1),
            ExecutorSize(slots: 1, blocks: 0), ExecutorSize(slots: 1, cacheBytes: 0),
        ])
    func refusals(size: ExecutorSize) throws {
        let model = try Self.load("llama", CPUBackend(threads: 1))
        #expect(throws: ModelError.self) { try model.makeExecutor(size) }
    }
}
