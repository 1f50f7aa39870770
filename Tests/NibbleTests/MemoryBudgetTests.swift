import Foundation
import Nibble
import NibbleCPU
import NibbleCore
import NibbleModels
import NibbleTestSupport
import Testing

/// What is planned is an upper bound of what is allocated, and budgets hold. CPU backends stand in for GPUs.
@Suite struct MemoryBudgetTests {
    typealias Form = PlacementRunTests.Form

    struct Load: Sendable, CustomStringConvertible {
        var form: Form
        var context: Int
        var batch: Int
        var description: String { "\(form), \(batch) × \(context)" }
    }

    private static let loads = [
        Load(form: .float32, context: 40, batch: 1), Load(form: .bfloat16, context: 64, batch: 3),
        Load(form: .int8, context: 60, batch: 2), Load(form: .nf4, context: 33, batch: 1),
        Load(form: .nested, context: 64, batch: 4),
    ]

    private func configuration(_ load: Load, _ backends: [any Backend]) -> LoadConfiguration {
        var configuration = LoadConfiguration()
        configuration.dtype = load.form == .bfloat16 ? .bfloat16 : .float32
        configuration.quantization = load.form.quantization
        configuration.context = load.context
        configuration.batchSize = load.batch
        configuration.backends = backends
        return configuration
    }

    /// Fills every row to the planned length, with logits, sampling and beams' copies; answers the last logits.
    private func run(_ model: PretrainedModel, _ load: Load) throws -> [Float] {
        let length = min(load.context, model.model.maximumPositions ?? .max)
        let encoder: [[Int32]] =
            model.isEncoderDecoder
            ? (0..<load.batch).map { row in (0..<length).map { Int32(($0 + row) % 7 + 2) } } : []
        let session = try model.model.makeSession(
            SessionRequest(rows: load.batch, capacity: length, encoderInputs: encoder))
        let prompts = (0..<load.batch).map { row in
            RowTokens(row: row, tokens: (0..<length - 3).map { Int32(($0 + 3 * row) % 9 + 2) })
        }
        _ = try session.feed(prompts, logits: .last) { _ in }
        var sampling = SamplingParameters()
        sampling.temperature = 1
        let next = try session.feed((0..<load.batch).map { RowTokens(row: $0, tokens: [5]) }, sampling: sampling)
        try session.gather(Array(repeating: 0, count: load.batch))
        let last = next.indices.map { RowTokens(row: $0, tokens: [next[0]]) }
        return try session.feed(last, logits: .last) { Array($0.values) }
    }

    private static let models = ["bloom-stories", "t5-spelling"] + FixtureModel.all.map(\.name)

    @Test("what the CPU allocates stays below the plan, and near it", arguments: models, loads)
    func bound(name: String, load: Load) throws {
        let cpu = CPUBackend(threads: 2)
        let model = try PretrainedModel.load(folder: PlacementRunTests.folder(name), configuration(load, [cpu]))
        let planned = try #require(model.report.placement?.devices.first { $0.device == .cpu })
        let loaded = cpu.memoryUse
        #expect(loaded.peak <= planned.weights + planned.scales + max(planned.loading, planned.workspace))
        _ = try run(model, load)
        let peak = cpu.memoryUse.peak
        #expect(peak <= planned.total)
        // A fifth, and a megabyte for what does not grow with the model.
        #expect(planned.total <= peak + peak / 5 + (1 << 20), "\(planned) for \(peak)")
    }

    @Test("a load runs within the budget that its plan asks for", arguments: ["bloom-stories", "t5-spelling"], loads)
    func suffices(name: String, load: Load) throws {
        let folder = PlacementRunTests.folder(name)
        let plan = try PretrainedModel.load(folder: folder, configuration(load, [CPUBackend(threads: 2)])).report.placement
        let total = try #require(plan?.devices.first { $0.device == .cpu }).total
        var configuration = configuration(load, [CPUBackend(threads: 2, budget: total)])
        configuration.maxMemory = [.cpu: MemoryLimit(bytes: total)]
        let model = try PretrainedModel.load(folder: folder, configuration)
        #expect(model.deviceMap.devices == [.cpu])
        _ = try run(model, load)
    }

    @Test("beyond the budget there is an error that names device, asked, free, budget and ways out") func exceeds() throws {
        let cpu = CPUBackend(threads: 2, budget: 20_000_000)
        var configuration = configuration(Load(form: .float32, context: 32, batch: 1), [cpu])
        configuration.maxMemory = [.cpu: MemoryLimit(bytes: 20_000_000)]
        let model = try PretrainedModel.load(folder: PlacementRunTests.folder("bloom-stories"), configuration)
        do {
            _ = try model.model.makeSession(SessionRequest(rows: 64, capacity: 4096))
            Issue.record("a session of a gigabyte fits 20 MB")
        } catch BackendError.outOfMemory(let device, let requested, let available, let budget) {
            #expect(device == .cpu && budget == 20_000_000)
            #expect(requested > available ?? .max)
            let text = "\(BackendError.outOfMemory(device: device, requested: requested, available: available, budget: budget))"
            for part in ["cpu", "20.00 MB", "--max-memory", "--context"] { #expect(text.contains(part)) }
        }
        // What failed has let go of everything.
        _ = try run(model, Load(form: .float32, context: 32, batch: 1))
    }

    // MARK: Several devices

    /// A machine with GPUs of these budgets, and a CPU.
    private func machine(_ budgets: [Int], cpu: Int? = nil) -> [CPUBackend] {
        budgets.enumerated().map { CPUBackend(threads: 2, budget: $1, as: .cuda($0)) } + [CPUBackend(threads: 2, budget: cpu)]
    }

    private func limits(_ machine: [CPUBackend]) -> [Device: MemoryLimit] {
        var limits: [Device: MemoryLimit] = [:]
        for backend in machine { limits[backend.device] = backend.memoryUse.budget.map { MemoryLimit(bytes: $0) } }
        return limits
    }

    private func totals(_ folder: URL, _ load: Load) throws -> (use: Int, weights: Int) {
        let model = try PretrainedModel.load(folder: folder, configuration(load, [CPUBackend(threads: 2)]))
        let planned = try #require(model.report.placement?.devices.first { $0.device == .cpu })
        return (planned.total, planned.weights + planned.scales)
    }

    private static let splitLoads = [
        Load(form: .float32, context: 40, batch: 2), Load(form: .int8, context: 40, batch: 1),
        Load(form: .nf4, context: 64, batch: 1), Load(form: .nested, context: 40, batch: 1),
    ]

    @Test(
        "models divided between devices answer as whole ones, each device within its budget",
        arguments: ["bloom-stories", "t5-spelling"], splitLoads)
    func divided(name: String, load: Load) throws {
        let folder = PlacementRunTests.folder(name)
        let whole = try PretrainedModel.load(folder: folder, configuration(load, [CPUBackend(threads: 2)]))
        let expected = try run(whole, load)
        let (use, weights) = try totals(folder, load)
        for shares in [[use - weights / 2, use - weights / 3], [use - weights / 2, use - 2 * weights / 3, use]] {
            let machine = machine(shares)
            var configuration = configuration(load, machine)
            configuration.maxMemory = limits(machine)
            let model = try PretrainedModel.load(folder: folder, configuration)
            #expect(model.deviceMap.devices.filter(\.isGPU).count > 1, "\(model.deviceMap)")
            #expect(try run(model, load) == expected)
            for use in try #require(model.report.placement).devices where use.device != .disk {
                let peak = machine.first { $0.device == use.device }?.memoryUse.peak ?? 0
                #expect(peak <= use.total, "\(use)")
            }
        }
    }

    /// Blocks of the given places on the disk, everything else on GPU 0.
    private func map(_ model: PretrainedModel, _ isOnDisk: (Int) -> Bool) -> DeviceMap {
        var entries: [String: Device] = ["": .cuda(0)]
        for (index, block) in model.tree.located.all(.block).enumerated() where isOnDisk(index) { entries[block.path] = .disk }
        return DeviceMap(entries)
    }

    @Test("blocks on the disk run on the GPU, through two buffers, and answer the same", arguments: models, splitLoads)
    func streamed(name: String, load: Load) throws {
        let folder = PlacementRunTests.folder(name)
        let whole = try PretrainedModel.load(folder: folder, configuration(load, [CPUBackend(threads: 2)]))
        let expected = try run(whole, load)
        for isOnDisk: (Int) -> Bool in [{ _ in true }, { $0 % 2 == 1 }, { $0 == 0 }] {
            let machine = machine([1 << 40])
            var configuration = configuration(load, machine)
            configuration.maxMemory = limits(machine)
            configuration.deviceMap = .explicit(map(whole, isOnDisk))
            let model = try PretrainedModel.load(folder: folder, configuration)
            let plan = try #require(model.report.placement)
            #expect(plan.streamDevice == .cuda(0))
            #expect(try run(model, load) == expected)
            #expect(try run(model, load) == expected)
            let planned = try #require(plan.devices.first { $0.device == .cuda(0) })
            #expect(machine[0].memoryUse.peak <= planned.total)
            // A single block is never the second one.
            let hasBlocks = whole.tree.located.all(.block).indices.contains(where: isOnDisk)
            #expect(plan.ranges.contains { $0.device == .disk && $0.reason.contains("cuda:0") } == hasBlocks)
        }
    }

    @Test("a small GPU streams what does not fit it; a smaller one leaves that to the CPU") func smallGPU() throws {
        let folder = PlacementRunTests.folder("bloom-stories")
        let load = Load(form: .float32, context: 32, batch: 1)
        let whole = try PretrainedModel.load(folder: folder, configuration(load, [CPUBackend(threads: 2)]))
        let expected = try run(whole, load)
        let planned = try #require(whole.report.placement?.devices.first { $0.device == .cpu })
        let blocks = whole.tree.located.all(.block).count
        let block = (planned.weights + planned.scales) / blocks
        func model(_ budget: Int) throws -> (model: PretrainedModel, plan: PlacementPlan, gpu: CPUBackend) {
            let machine = machine([budget])
            var configuration = configuration(load, machine)
            configuration.maxMemory = limits(machine)
            let model = try PretrainedModel.load(folder: folder, configuration)
            return (model, try #require(model.report.placement), machine[0])
        }
        // The largest budget for which even the head on the CPU does not keep the blocks off the disk.
        let streaming = try stride(from: planned.total - block, to: 0, by: -block / 2).first {
            try model($0).plan.deviceMap.devices.contains(.disk)
        }
        for (budget, stream) in [(try #require(streaming), Device.cuda(0)), (planned.workspace + 2 * block, .cpu)] {
            let (model, plan, gpu) = try model(budget)
            #expect(plan.deviceMap.devices.contains(.disk))
            #expect(plan.streamDevice == stream)
            #expect(try run(model, load) == expected)
            let use = try #require(plan.devices.first { $0.device == .cuda(0) })
            #expect(gpu.memoryUse.peak <= use.total)
        }
    }

    @Test("a GPU that holds the model with smaller chunks only gets such chunks, and sessions use them") func smallerChunks()
        throws
    {
        let folder = PlacementRunTests.folder("bloom-stories")
        let load = Load(form: .nf4, context: 600, batch: 1)
        func model(_ budget: Int) throws -> (PretrainedModel, CPUBackend) {
            let machine = machine([budget])
            var configuration = configuration(load, machine)
            configuration.maxMemory = limits(machine)
            return (try PretrainedModel.load(folder: folder, configuration), machine[0])
        }
        let (whole, _) = try model(1 << 40)
        #expect(whole.model.options.chunkTokens > SessionOptions.defaultChunkTokens)
        let use = try #require(whole.report.placement?.devices.first { $0.device == .cuda(0) })
        let (small, gpu) = try model(use.total - use.workspace / 4)
        let placement = try #require(small.report.placement)
        #expect(placement.deviceMap.devices == [.cuda(0)])
        #expect(placement.residency == .complete)
        #expect(small.model.options.chunkTokens < SessionOptions.defaultChunkTokens)
        let (found, expected) = (try run(small, load), try run(whole, load))
        let largest = expected.reduce(0) { max($0, abs($1)) }
        #expect(found.count == expected.count && largest > 0)
        #expect(zip(found, expected).allSatisfy { abs($0 - $1) <= 1e-4 * largest })
        #expect(gpu.memoryUse.peak <= use.total - use.workspace / 4)
    }

    @Test("a quantized copy of a tied head answers the same wherever it lies", arguments: [Device.cuda(0), .cpu])
    func quantizedHead(table: Device) throws {
        let folder = PlacementRunTests.folder("bloom-stories")
        let load = Load(form: .nf4, context: 32, batch: 1)
        func model(_ map: DeviceMapRequest, _ backends: [any Backend]) throws -> PretrainedModel {
            var configuration = configuration(load, backends)
            configuration.headFormat = .fourBit(FourBitFormat(codebook: .nf4))
            configuration.deviceMap = map
            return try PretrainedModel.load(folder: folder, configuration)
        }
        let whole = try model(.device(.cpu), [CPUBackend(threads: 2)])
        let map = DeviceMap(["": .cuda(0), "transformer.word_embeddings": table])
        let split = try model(.explicit(map), machine([1 << 40]))
        #expect(split.weights.linears["lm_head"]?.weight.byteCount ?? .max < (1 << 20))
        #expect(try run(split, load) == run(whole, load))
    }

    @Test("sessions on several threads share the buffers") func threads() async throws {
        let folder = PlacementRunTests.folder("bloom-stories")
        let load = Load(form: .nf4, context: 32, batch: 1)
        let whole = try PretrainedModel.load(folder: folder, configuration(load, [CPUBackend(threads: 2)]))
        let expected = try run(whole, load)
        let machine = machine([1 << 40])
        var configuration = configuration(load, machine)
        configuration.maxMemory = limits(machine)
        configuration.deviceMap = .explicit(map(whole) { _ in true })
        let model = try PretrainedModel.load(folder: folder, configuration)
        try await withThrowingTaskGroup(of: [Float].self) { group in
            for _ in 0..<4 { group.addTask { try run(model, load) } }
            for try await logits in group { #expect(logits == expected) }
        }
    }
}
