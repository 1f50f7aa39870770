import NibbleCore
import NibbleDeviceMap
import NibbleModels
import NibbleQuantization
import Testing

/// Nibble's own planner.
@Suite struct PlacementPlannerTests {
    @Test("where the reference keeps everything on GPUs, and they hold it, the plan is the same", arguments: GoldenCase.all)
    func sameOnGPUs(golden: GoldenCase) throws {
        guard let planner = try golden.planner(), golden.expectedMap.values.allSatisfy(\.isGPU) else { return }
        var request = try golden.placementRequest()
        let plan = try planner.plan(request)
        if plan.planner == .nibble {
            request.deviceMap = .explicit(DeviceMap(golden.expectedMap))
            let reference = try planner.plan(request)
            #expect(reference.devices.contains { $0.total > $0.budget ?? .max })
            return
        }
        #expect(plan.deviceMap.entries == golden.expectedMap)
        #expect(plan.planner == .reference)
    }

    @Test("where the reference spills, budgets hold and every module has a device", arguments: GoldenCase.all)
    func budgetsHold(golden: GoldenCase) throws {
        guard let planner = try golden.planner(context: 64), !golden.expectedMap.values.allSatisfy(\.isGPU) else { return }
        var request = try golden.placementRequest()
        if golden.name.hasPrefix("tiny") {
            // Activations of 64 tokens are larger than these models.
            request.limits[.cpu] = 2_000_000
        }
        let plan = try planner.plan(request)
        #expect(plan.planner == .nibble)
        for use in plan.devices {
            if let budget = use.budget { #expect(use.total <= budget, "\(use.device)") }
        }
        for parameter in planner.memory.tree.parameters { #expect(plan.deviceMap.device(of: parameter.path) != nil) }
    }

    @Test("no more of the model lies off the GPUs than in the reference's plan", arguments: GoldenCase.all)
    func fillsFurther(golden: GoldenCase) throws {
        guard let planner = try golden.planner(context: 64), golden.json["max_memory"]?["0"] != nil,
            !golden.name.hasPrefix("tiny"), !golden.expectedMap.values.allSatisfy(\.isGPU)
        else { return }
        // The reference does not count what stays float32 beside float16, so its plans take more than they say.
        if golden.dtype == .float16, !planner.memory.tree.keepInFloat32.isEmpty { return }
        let plan = try planner.plan(golden.placementRequest())
        // Buffers that blocks from the disk pass through are GPU memory, too.
        if plan.streamDevice.isGPU { return }
        let sizes = ModuleSizes(planner.memory.tree, planner.referencePlan, loadDType: golden.dtype)
        func off(_ map: DeviceMap) -> Double {
            planner.memory.tree.parameters.filter { $0.module.node.role != .tokenEmbedding && $0.tiedTo == nil }
                .reduce(0) { $0 + (map.device(of: $1.path)?.isGPU == true ? 0 : sizes[$1.path]) }
        }
        #expect(off(plan.deviceMap) <= off(DeviceMap(golden.expectedMap)))
    }

    @Test(
        "the guide's budgets hold BLOOM-3b",
        arguments: ["bloom3b_nf4_two_gpus_600MB_1GB.json", "bloom3b_int8_two_gpus_600MB_1GB.json"])
    func guide(name: String) throws {
        let golden = try #require(GoldenCase.all.first { $0.name == name })
        // Loading takes smaller chunks by itself where larger ones do not fit.
        let planner = try #require(try golden.planner(chunkTokens: 128))
        var request = try golden.placementRequest()
        if golden.quantization == "int8" { request.limits = [.cuda(0): 1_000_000_000, .cuda(1): 2_000_000_000] }
        let plan = try planner.plan(request)
        #expect(plan.deviceMap.device(of: "transformer.word_embeddings") == .cpu)
        #expect(plan.deviceMap.device(of: "lm_head") == .cpu)
        for block in 0..<30 { #expect(plan.deviceMap.device(of: "transformer.h.\(block)")?.isGPU == true, "\(block)") }
    }

    @Test("cpu=0 keeps the tables off the CPU") func noCPU() throws {
        let golden = try #require(GoldenCase.all.first { $0.name == "bloom560m_f16_two_gpus_600MB_1GB.json" })
        let planner = try #require(try golden.planner(context: 64))
        var request = PlacementRequest()
        request.limits = [.cuda(0): 100_000_000, .cuda(1): 1_200_000_000, .cpu: 0]
        let plan = try planner.plan(request)
        #expect(!plan.deviceMap.devices.contains(.cpu))
    }

    @Test("a plan that cannot be names what is needed and free, and two ways out") func shortage() throws {
        let golden = try #require(GoldenCase.all.first { $0.name == "bloom560m_f16_seed.json" })
        let planner = try #require(try golden.planner())
        var request = PlacementRequest()
        request.limits = [.cpu: 1_000_000]
        guard case .doesNotFit(let shortages, let ways)? = try planner.plan(request).refusal else {
            Issue.record("a model of a gigabyte fits into a megabyte")
            return
        }
        #expect(shortages.map(\.device) == [.cpu])
        #expect(shortages.map(\.free) == [1_000_000])
        #expect((shortages.first?.needed ?? 0) > 1_000_000)
        #expect(ways.count == 2)
    }

    @Test("limits and maps are read, and mistakes are named") func parsing() throws {
        let limits = try MemoryLimit.limits(parsing: "0=600MB,cpu=2GiB,disk=5").mapValues { try $0.bytes() }
        #expect(limits == [.cuda(0): 600_000_000, .cpu: 2 << 30, .disk: 5])
        #expect(throws: DeviceMapError.unknownLimitKey("gpu")) { try MemoryLimit.limits(parsing: "gpu=1GB") }
        #expect(throws: DeviceMapError.malformedLimit("0")) { try MemoryLimit.limits(parsing: "0") }
        #expect(throws: MemoryLimitError.self) { try MemoryLimit.limits(parsing: "0=1TB") }
        #expect(try DeviceMapRequest(parsing: "balanced_low_0", source: "") == .balancedLow0)
        #expect(
            try DeviceMapRequest(parsing: "{\"a\": 1, \"\": \"disk\"}", source: "")
                == .explicit(DeviceMap(["a": .cuda(1), "": .disk])))
        #expect(throws: DeviceMapError.unknownWord("fast")) { try DeviceMapRequest(parsing: "fast", source: "") }
        #expect(throws: DeviceMapError.self) { try DeviceMapRequest(parsing: "-1", source: "--device-map") }
        #expect(throws: DeviceMapError.self) { try DeviceMapRequest(parsing: "{\"a\": 1.5}", source: "map.json") }
    }

    @Test(
        "the size table is the reference's",
        arguments: [
            ("bloom560m_f16_seed.json", ["980.0 MB", "2.08 GB", "1.04 GB", "533.31 MB", "266.65 MB"]),
            ("bloom3b_f16_low0.json", ["2.39 GB", "11.19 GB", "5.59 GB", "2.8 GB", "1.4 GB"]),
            ("t5_11b_f32_sequential.json", ["1.0 GB", "42.12 GB", "21.06 GB", "10.53 GB", "5.27 GB"]),
            ("llama2_7b_f16_two_gpus.json", ["772.03 MB", "24.61 GB", "12.31 GB", "6.15 GB", "3.08 GB"]),
        ])
    func estimate(name: String, expected: [String]) throws {
        let golden = try #require(GoldenCase.all.first { $0.name == name })
        let estimate = MemoryEstimate(try #require(try golden.architecture()).tree)
        #expect(
            [MemoryEstimate.text(estimate.rows[0].largestLayer)] + estimate.rows.map { MemoryEstimate.text($0.total) } == expected
        )
    }
}
