import NibbleCore
import NibbleDeviceMap
import NibbleLoading
import NibbleModels
import NibbleQuantization
import Testing

/// How a load looks for a placement: chunks, heads and hints. Budgets are derived from the model's own sizes.
@Suite struct PlacementSearchTests {
    /// A model whose token table weighs more than its blocks, as BLOOM's does.
    private static let config = TinyConfig.tiedLlama.setting("vocab_size", 8192).setting("max_position_embeddings", 2048)

    private func model() throws -> TinyModel {
        // The plan reads the config only.
        try TinyModel(PlacementSearchTests.config) { tensors, _ in tensors = Array(tensors.suffix(1)) }
    }

    private func options() -> LoaderOptions {
        var options = LoaderOptions()
        options.dtype = .float16
        options.quantization = BitsAndBytesConfig(loadIn4Bit: true)
        options.context = 1024
        return options
    }

    private func request(_ gpu: Int) -> PlacementRequest {
        var request = PlacementRequest()
        request.limits = [.cuda(0): gpu]
        return request
    }

    /// What the whole model takes of one GPU at the usual chunk: no more than that is there.
    private func wholeUse(_ model: TinyModel, _ options: LoaderOptions) throws -> PlacementPlan.DeviceMemory {
        let large = try use(model.plan(options, request(1 << 40)))
        let plan = try model.plan(options, request(large.total))
        #expect(plan.memory.chunkTokens == SessionOptions.defaultChunkTokens)
        return try use(plan)
    }

    private func use(_ plan: ModelLoader.LoadPlan) throws -> PlacementPlan.DeviceMemory {
        try #require(plan.placement.devices.first { $0.device == .cuda(0) })
    }

    @Test(
        "a GPU with four times the workspace of a larger chunk gets it, whatever context is planned",
        arguments: [512, 1024, 2048])
    func largerChunks(context: Int) throws {
        let model = try model()
        func plan(_ budget: Int, context: Int) throws -> ModelLoader.LoadPlan {
            var options = options()
            options.context = context
            return try model.plan(options, request(budget))
        }
        var budget = 1 << 40
        var map: DeviceMap?
        for (chunkTokens, smaller) in [(2048, 1024), (1024, 512)] {
            // Sessions may be longer than planned, so a chunk is planned for as many tokens at least.
            let large = try plan(budget, context: max(context, chunkTokens))
            let use = try use(large)
            budget = use.total + 3 * use.workspace
            let (enough, less) = (try plan(budget, context: context), try plan(budget - 1, context: context))
            #expect(large.memory.chunkTokens == chunkTokens)
            #expect(enough.memory.chunkTokens == chunkTokens)
            #expect(less.memory.chunkTokens == smaller)
            map = map ?? large.placement.deviceMap
            #expect(enough.placement.deviceMap == map && less.placement.deviceMap == map)
            budget -= 1
        }
    }

    @Test("chunks stay as they are where part of a model lies elsewhere")
    func usualChunks() throws {
        func chunkTokens(_ model: TinyModel, _ map: [String: Device]) throws -> Int {
            var request = PlacementRequest()
            request.limits = [.cuda(0): 1 << 40, .cuda(1): 1 << 40, .cpu: 1 << 40]
            request.deviceMap = .explicit(DeviceMap(map))
            return try model.plan(options(), request).memory.chunkTokens
        }
        let model = try model()
        #expect(try chunkTokens(model, ["": .cuda(0), "model.layers.1": .cuda(1)]) == 2048)
        #expect(try chunkTokens(model, ["": .cuda(0), "model.layers.1": .cpu]) == SessionOptions.defaultChunkTokens)
        #expect(try chunkTokens(model, ["": .cpu]) == SessionOptions.defaultChunkTokens)
    }

    @Test("smaller chunks are tried before a tied head leaves the GPUs") func chunks() throws {
        let (model, options) = (try model(), options())
        let whole = try wholeUse(model, options)
        let plan = try model.plan(options, request(whole.total - whole.workspace / 8))
        #expect(plan.memory.chunkTokens < SessionOptions.defaultChunkTokens)
        #expect(plan.placement.deviceMap.device(of: "lm_head") == .cuda(0))
        #expect(plan.placement.deviceMap.device(of: "model.embed_tokens") == .cuda(0))
        #expect(plan.placement.residency == .complete)
        #expect(plan.placement.hints.isEmpty)
    }

    @Test("where no chunk helps, the plan says what would, and it does") func hints() throws {
        let (model, options) = (try model(), options())
        let whole = try wholeUse(model, options)
        // The largest budget that does not hold the head.
        let budgets = stride(from: whole.total, to: whole.total / 2, by: -whole.workspace / 64)
        let small = try #require(
            try budgets.lazy.map { request($0) }.first { try model.plan(options, $0).placement.residency == .headOffGPUs })
        let plan = try model.plan(options, small)
        #expect(plan.placement.deviceMap.device(of: "lm_head") == .cpu)
        let hint = try #require(plan.placement.hints.first)
        // What the hint names does help.
        var helped = options
        if hint.contains("--double-quant") {
            helped.quantization?.useDoubleQuant = true
        } else if let context = hint.firstMatch(of: /--context (\d+)/).flatMap({ Int($0.1) }) {
            helped.context = context
        } else {
            Issue.record("\(hint)")
        }
        let better = try model.plan(helped, small).placement
        #expect(better.residency == .complete)
        #expect(better.deviceMap.device(of: "lm_head") == .cuda(0))
    }

    @Test("a quantized copy of a tied head goes to a GPU though the table does not fit there") func quantizedHead() throws {
        let model = try model()
        var options = options()
        options.headFormat = .fourBit(FourBitFormat(codebook: .nf4))
        let whole = try wholeUse(model, options)
        let table = 8192 * 32 * 2
        let plan = try model.plan(options, request(whole.total - table / 2))
        #expect(plan.placement.deviceMap.device(of: "model.embed_tokens") == .cpu)
        #expect(plan.placement.deviceMap.device(of: "lm_head") == .cuda(0))
        #expect(plan.placement.residency == .complete)
    }

    @Test("the head's loading room counts on the device of the head only") func headLoading() throws {
        let model = try model()
        var options = options()
        options.headFormat = .fourBit(FourBitFormat(codebook: .nf4))
        let blocks = try #require(
            try model.plan(self.options(), self.request(1 << 40)).placement.devices.first { $0.device == .cuda(0) })
        var request = PlacementRequest()
        request.limits = [.cuda(0): 1 << 40, .cuda(1): 1 << 40, .cpu: 1 << 40]
        var map: [String: Device] = ["": .cuda(0), "model.layers.1": .cuda(1)]
        for (embedding, head) in [(Device.cpu, Device.cpu), (.cpu, .cuda(1)), (.cuda(0), .cuda(1))] {
            map["model.embed_tokens"] = embedding
            map["lm_head"] = head
            request.deviceMap = .explicit(DeviceMap(map))
            let placement = try model.plan(options, request).placement
            for use in placement.devices where use.device.isGPU {
                #expect((use.loading > blocks.loading) == (use.device == head), "\(use.device), head on \(head)")
            }
        }
    }

    @Test("a plan that fits nowhere is refused") func refused() throws {
        var request = PlacementRequest()
        request.limits = [.cpu: 1000]
        let placement = try model().plan(options(), request).placement
        #expect(placement.residency == .refused)
        guard case .doesNotFit? = placement.refusal else {
            Issue.record("a model fits into a kilobyte")
            return
        }
    }
}
