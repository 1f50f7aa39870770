import NibbleCore
import NibbleDeviceMap
import NibbleModels
import NibbleQuantization
import NibbleTestSupport
import Testing

/// Nibble's own planner.
@Suite(.computing) struct PlacementPlannerTests {
    @Test("where the reference keeps everything on GPUs, and they hold it, the plan is the same", arguments: GoldenCase.onGPUs)
    func sameOnGPUs(golden: GoldenCase) throws {
        let planner = try golden.planner()
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

    @Test("where the reference spills, budgets hold and every module has a device", arguments: GoldenCase.spilling)
    func budgetsHold(golden: GoldenCase) throws {
        let planner = try golden.planner(context: 64)
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

    /// Cases with a GPU whose plans compare. The reference does not count what stays float32 beside float16, so its plans for
    /// such models take more than they say.
    private static let comparable = GoldenCase.spilling.filter { golden in
        let keepsFloat32 = (try? golden.architecture().tree.keepInFloat32.isEmpty == false) ?? true
        return golden.json["max_memory"]?["0"] != nil && !golden.name.hasPrefix("tiny")
            && !(golden.dtype == .float16 && keepsFloat32)
    }

    @Test("no more of the model lies off the GPUs than in the reference's plan", arguments: comparable)
    func fillsFurther(golden: GoldenCase) throws {
        let planner = try golden.planner(context: 64)
        let plan = try planner.plan(golden.placementRequest())
        let sizes = ModuleSizes(planner.memory.tree, planner.referencePlan, loadDType: golden.dtype)
        // Buffers for blocks from the disk take GPU memory, too, which the reference does not count.
        let buffers =
            plan.streamDevice.isGPU ? 2 * (planner.memory.tree.located.all(.block).map { Int(sizes[$0.path]) }.max() ?? 0) : 0
        func off(_ map: DeviceMap) -> Double {
            planner.memory.tree.parameters.filter { $0.module.node.role != .tokenEmbedding && $0.tiedTo == nil }
                .reduce(0) { $0 + (map.device(of: $1.path)?.isGPU == true ? 0 : sizes[$1.path]) }
        }
        #expect(off(plan.deviceMap) <= off(DeviceMap(golden.expectedMap)) + Double(buffers))
    }

    @Test(
        "the guide's budgets hold BLOOM-3b",
        arguments: ["bloom3b_nf4_two_gpus_600MB_1GB.json", "bloom3b_int8_two_gpus_600MB_1GB.json"])
    func guide(name: String) throws {
        let golden = try #require(GoldenCase.all.first { $0.name == name })
        // Loading takes smaller chunks by itself where larger ones do not fit.
        let planner = try golden.planner(chunkTokens: 128)
        var request = try golden.placementRequest()
        if golden.quantization == "int8" { request.limits = [.cuda(0): 1_000_000_000, .cuda(1): 2_000_000_000] }
        let plan = try planner.plan(request)
        #expect(plan.deviceMap.device(of: "transformer.word_embeddings") == .cpu)
        #expect(plan.deviceMap.device(of: "lm_head") == .cpu)
        for block in 0..<30 { #expect(plan.deviceMap.device(of: "transformer.h.\(block)")?.isGPU == true, "\(block)") }
    }

    @Test("cpu=0 keeps the tables off the CPU") func noCPU() throws {
        let golden = try #require(GoldenCase.all.first { $0.name == "bloom560m_f16_two_gpus_600MB_1GB.json" })
        let planner = try golden.planner(context: 64)
        var request = PlacementRequest()
        request.limits = [.cuda(0): 100_000_000, .cuda(1): 1_200_000_000, .cpu: 0]
        let plan = try planner.plan(request)
        #expect(!plan.deviceMap.devices.contains(.cpu))
    }

    @Test("a plan that cannot be names what is needed and free, and two ways out") func shortage() throws {
        let golden = try #require(GoldenCase.all.first { $0.name == "bloom560m_f16_seed.json" })
        let planner = try golden.planner()
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
        for text in ["0=600MB,cpu=2GiB,disk=5", " 0 = 600MB, cpu=2 GiB ,disk=5 "] {
            let limits = try MemoryLimit.limits(parsing: text).mapValues { try $0.bytes() }
            #expect(limits == [.cuda(0): 600_000_000, .cpu: 2 << 30, .disk: 5])
        }
        #expect(throws: DeviceMapError.unknownLimitKey("gpu")) { try MemoryLimit.limits(parsing: "gpu=1GB") }
        #expect(throws: DeviceMapError.malformedLimit("0")) { try MemoryLimit.limits(parsing: "0") }
        #expect(throws: MemoryLimitError.self) { try MemoryLimit.limits(parsing: "0=1TB") }
        #expect(try DeviceMapRequest(parsing: "balanced_low_0", source: "") == .balancedLow0)
        #expect(
            try DeviceMapRequest(parsing: "{\"a\": 1, \"\": \"disk\"}", source: "")
                == .explicit(DeviceMap(["a": .cuda(1), "": .disk])))
        #expect(try DeviceMapRequest(parsing: " cuda:1 ", source: "") == .device(.cuda(1)))
        #expect(throws: DeviceMapError.unknownWord("fast")) { try DeviceMapRequest(parsing: "fast", source: "") }
        #expect(throws: DeviceMapError.self) { try DeviceMapRequest(parsing: "-1", source: "--device-map") }
        #expect(throws: DeviceMapError.self) { try DeviceMapRequest(parsing: "{\"a\": 1.5}", source: "map.json") }
    }

    @Test(
        "sizes are numbers of bytes, or numbers with a unit",
        arguments: [
            ("5", 5), ("5000000000", 5_000_000_000), ("600MB", 600_000_000), ("2.5GiB", 5 << 29), ("1 kb", 125),
            ("8Gb", 1_000_000_000),
            (" 7 ", 7), ("", nil), ("MB", nil), ("1.5", nil), ("-1", nil), ("1TB", nil), ("\u{663}", nil), ("1e3", nil),
        ] as [(String, Int?)])
    func sizes(text: String, bytes: Int?) throws {
        if let bytes {
            #expect(try MemoryLimit(text).bytes() == bytes)
        } else {
            #expect(throws: MemoryLimitError.self) { try MemoryLimit(text).bytes() }
        }
    }

    @Test("loading room counts on the device that a weight goes to, and not on others") func loadingRoom() throws {
        let golden = try #require(GoldenCase.all.first { $0.name == "bloom3b_nf4_two_gpus_600MB_1GB.json" })
        let plan = try golden.planner(chunkTokens: 128).plan(golden.placementRequest())
        let head = try golden.planner(chunkTokens: 128, headFormat: .fourBit(FourBitFormat(codebook: .nf4)))
        let withHead = try head.plan(golden.placementRequest())
        #expect(!withHead.deviceMap.devices.contains(.disk))
        #expect(withHead.deviceMap.device(of: "lm_head") == .cpu)
        for device in [Device.cuda(0), .cuda(1)] {
            let (use, other) = (plan.devices.first { $0.device == device }, withHead.devices.first { $0.device == device })
            #expect(use != nil && use?.loading == other?.loading)
        }
        for block in 0..<30 { #expect(withHead.deviceMap.device(of: "transformer.h.\(block)")?.isGPU == true, "\(block)") }
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
        let estimate = MemoryEstimate(try golden.architecture().tree)
        #expect(
            [MemoryEstimate.text(estimate.rows[0].largestLayer)] + estimate.rows.map { MemoryEstimate.text($0.total) } == expected
        )
    }
}
