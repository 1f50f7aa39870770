import Foundation
import NibbleCore
import NibbleDeviceMap
import NibbleModels
import NibbleQuantization
import NibbleTestSupport
import Testing

/// The reference planner against recorded plans.
@Suite struct ReferencePlannerTests {
    @Test("there are recorded plans") func present() {
        #expect(GoldenCase.all.count == 28)
        #expect(GoldenCase.withTree.count >= 8)
        #expect(GoldenCase.onGPUs.count >= 5 && GoldenCase.spilling.count >= 5)
    }

    @Test("plans made from the reference's own trees are equal", arguments: GoldenCase.withTree)
    func recordedTrees(golden: GoldenCase) throws {
        let recorded = try golden.recordedTree()
        try expectEqual(ModuleSizes(recorded.tree) { recorded.bytes[$0.path] ?? 0 }, golden)
    }

    @Test("plans made from a config alone are equal", arguments: GoldenCase.all)
    func ownTrees(golden: GoldenCase) throws {
        let architecture = try golden.architecture()
        let plan = QuantizationPlan(architecture.tree, config: golden.config, reference: true)
        try expectEqual(ModuleSizes(architecture.tree, plan, loadDType: golden.dtype), golden)
    }

    private func expectEqual(_ sizes: ModuleSizes, _ golden: GoldenCase) throws {
        let planner = ReferencePlanner(sizes, isQuantized: golden.config != nil)
        let limits = try golden.limits().mapValues { Double($0) }
        #expect(planner.balanced(golden.balance, limits: limits, areGiven: true) == golden.expectedBalance)
        #expect(planner.limits(golden.balance, limits: limits, areGiven: true) == golden.expectedLimits)
        #expect(planner.plan(golden.balance, limits: limits, areGiven: true).entries == golden.expectedMap)
    }

    @Test("the refusal of quantized layers off the GPU is the reference's", arguments: GoldenCase.all)
    func refusal(golden: GoldenCase) throws {
        let planner = try golden.planner()
        var request = try golden.placementRequest()
        request.followsReference = true
        let plan = try planner.plan(request)
        #expect(plan.refusal?.code == golden.expectedError)
        #expect(plan.deviceMap.entries == golden.expectedMap)
    }

    @Test("a lone GPU without given limits keeps a tenth free") func measuredLimit() throws {
        let golden = try #require(GoldenCase.all.first { $0.name == "bloom560m_f16_seed.json" })
        let architecture = try golden.architecture()
        let sizes = ModuleSizes(architecture.tree, QuantizationPlan(architecture.tree, config: nil), loadDType: .float16)
        let planner = ReferencePlanner(sizes, isQuantized: true)
        #expect(planner.limits(.even, limits: [.cuda(0): 1000, .cpu: 500], areGiven: false) == [.cuda(0): 810, .cpu: 450])
        #expect(planner.limits(.none, limits: [.cuda(0): 1000], areGiven: false) == [.cuda(0): 900])
    }
}

extension GoldenCase {
    func planner(context: Int? = nil, chunkTokens: Int = SessionOptions.defaultChunkTokens, headFormat: WeightFormat? = nil)
        throws -> PlacementPlanner
    {
        let architecture = try architecture()
        let plan = QuantizationPlan(architecture.tree, config: config)
        let reference = QuantizationPlan(architecture.tree, config: config, reference: true)
        return PlacementPlanner(
            ModelMemory(architecture, plan, loadDType: dtype, headFormat: headFormat, context: context, chunkTokens: chunkTokens),
            referencePlan: reference)
    }

    func placementRequest() throws -> PlacementRequest {
        var request = PlacementRequest()
        request.deviceMap = self.request
        request.limits = try limits()
        return request
    }
}
