import NibbleCore
package import NibbleModels
import NibbleQuantization

/// Nibble's planner.
///
/// It takes the reference's plan where that keeps everything on GPUs and their budgets hold it. Otherwise it fills devices to
/// their budgets by what Nibble stores there: weights, scales, caches and activations. Embedding tables may stay on the
/// CPU, where a look-up costs nothing. A tied head runs where its table lies. Among all places for tables and head, it takes
/// those with the least estimated time a token.
package struct PlacementPlanner: Sendable {
    package let memory: ModelMemory
    /// Quantization as the reference would plan it.
    package let referencePlan: QuantizationPlan

    package init(_ memory: ModelMemory, referencePlan: QuantizationPlan) {
        self.memory = memory
        self.referencePlan = referencePlan
    }

    /// Plans without refusing: what stands in the way of loading is in ``PlacementPlan/refusal``, so that the plan can be
    /// shown.
    /// - Throws: ``DeviceMapError/uncovered(_:)``
    package func plan(_ request: PlacementRequest) throws -> PlacementPlan {
        let segments = ModelSegments(memory)
        let (map, planner, stream) = try deviceMap(request, segments)
        let uncovered = memory.tree.parameters.filter { map.device(of: $0.path) == nil }.map(\.path)
        guard uncovered.isEmpty else { throw DeviceMapError.uncovered(uncovered) }
        var plan = PlacementPlan(deviceMap: map, planner: planner, devices: [], ranges: [])
        plan.stateBytes = memory.stateBytes
        plan.streamDevice = try stream ?? streamDevice(map, segments, request)
        plan.devices = try use(of: map, stream: plan.streamDevice, segments, request)
        plan.ranges = try ranges(of: map, stream: plan.streamDevice, segments)
        if request.followsReference { plan.refusal = refusal(map) }
        check(&plan)
        plan.residency = try residency(plan, segments, request)
        return plan
    }

    /// `stream` is `nil` where the map does not decide it.
    private func deviceMap(
        _ request: PlacementRequest, _ segments: ModelSegments
    ) throws -> (map: DeviceMap, planner: PlacementPlan.Planner, stream: Device?) {
        let balance: ReferencePlanner.Balance
        switch request.deviceMap {
        case .explicit(let map): return (map, .explicit, nil)
        case .device(let device): return (.all(on: device), .explicit, nil)
        case .auto, .balanced: balance = .even
        case .balancedLow0: balance = .low0
        case .sequential: balance = .none
        }
        let sizes = ModuleSizes(memory.architecture.tree, referencePlan, loadDType: memory.loadDType)
        let reference = ReferencePlanner(sizes, isQuantized: referencePlan.config != nil).plan(
            balance, limits: request.limits.mapValues { Double($0) }, areGiven: request.limitsAreGiven)
        let isTaken =
            try request.followsReference
            || reference.entries.values.allSatisfy(\.isGPU) && fits(reference, segments, request)
        if isTaken { return (reference, .reference, nil) }
        let filled = PlacementFilling(memory, request).deviceMap()
        return (filled.map, .nibble, filled.stream)
    }

    /// Whether budgets hold all that running takes, not weights alone.
    private func fits(_ map: DeviceMap, _ segments: ModelSegments, _ request: PlacementRequest) throws -> Bool {
        try use(of: map, stream: .cpu, segments, request).allSatisfy { use in use.budget.map { use.total <= $0 } ?? true }
    }

    /// The reference refuses quantized layers off the GPU, unless everything lies on the CPU.
    private func refusal(_ map: DeviceMap) -> DeviceMapError? {
        guard let config = referencePlan.config, !config.int8EnableFP32CPUOffload else { return nil }
        let off = map.devices.filter { !$0.isGPU }
        return off.isEmpty || map.devices == [.cpu] ? nil : .offloadOfQuantizedModules(off)
    }

    /// A map of the user's, or the reference's, is taken as it is.
    private func residency(
        _ plan: PlacementPlan, _ segments: ModelSegments, _ request: PlacementRequest
    ) throws -> PlacementPlan.Residency {
        guard plan.planner == .nibble else { return .complete }
        if plan.refusal != nil { return .refused }
        if plan.devices.contains(where: { $0.device == .disk && $0.weights + $0.scales > 0 }) { return .partlyOnDisk }
        let hasGPUs = request.limits.contains { $0.key.isGPU && $0.value > 0 }
        let headDevice = try device(segments.head ?? segments.tables, plan.deviceMap)
        return hasGPUs && segments.isHeadTied && !headDevice.isGPU ? .headOffGPUs : .complete
    }

    // MARK: What a map takes

    private func device(_ segment: ModelSegment, _ map: DeviceMap) throws -> Device {
        let direct = segment.paths.lazy.compactMap { map.device(of: $0) }.first
        if let device = direct ?? segment.paths.lazy.compactMap({ firstDevice(below: $0, map) }).first { return device }
        throw DeviceMapError.uncovered(segment.paths)
    }

    /// Of a module that the map names part by part, the device of its first part.
    private func firstDevice(below path: String, _ map: DeviceMap) -> Device? {
        memory.tree.module(at: path)?.descendants.lazy.compactMap { map.device(of: $0.path) }.first
    }

    /// The main GPU, the first of the map or of the machine, runs blocks from the disk if its budget holds two of them beside
    /// all else. Otherwise the CPU does.
    private func streamDevice(_ map: DeviceMap, _ segments: ModelSegments, _ request: PlacementRequest) throws -> Device {
        let present = request.limits.filter { $0.value > 0 }.keys
        guard let main = (map.devices.filter(\.isGPU) + present.filter(\.isGPU).sorted()).first else { return .cpu }
        let use = try use(of: map, stream: main, segments, request).first { $0.device == main }
        guard let use, let budget = use.budget else { return main }
        return use.total <= budget ? main : .cpu
    }

    private func use(
        of map: DeviceMap, stream: Device, _ segments: ModelSegments, _ request: PlacementRequest
    ) throws -> [PlacementPlan.DeviceMemory] {
        var use: [Device: PlacementPlan.DeviceMemory] = [:]
        for (device, limit) in request.limits { use[device] = .init(device, budget: limit) }
        var running = Set<Device>()
        var headDevice = Device.cpu
        // The CPU holds one segment at a time of those that it runs from the disk.
        var window = 0
        var streamed = [ModelSegment]()
        var loading: [Device: Int] = [:]
        for segment in segments.all {
            let device = try device(segment, map)
            let runs = segment.runs(on: device, stream: stream)
            use[device, default: .init(device)].weights += segment.bytes.weights
            use[device, default: .init(device)].scales += segment.bytes.scales
            use[runs, default: .init(runs)].cache += segment.cache
            let beside = device == .disk ? segment.overhead.held : segment.overhead.padding
            use[runs]?.workspace += beside
            if runs == .cpu { use[runs]?.loading += beside }
            loading[device.loadingDevice] = max(loading[device.loadingDevice] ?? 0, segment.overhead.deviceLoading)
            running.insert(runs)
            if device == .disk {
                if runs == .cpu { window = max(window, segment.bytesPerToken) } else { streamed.append(segment) }
            }
            if segment.paths.contains(memory.tree.outputEmbedding) { headDevice = runs }
        }
        use[.cpu]?.workspace += window
        use[stream]?.workspace += ModelSegments.streamBytes(streamed)
        for (device, bytes) in loading { use[device]?.loading += bytes }
        if running.contains(.cpu) || (request.limits[.cpu] ?? 0) > 0 { use[.cpu]?.loading += segments.hostLoadingBytes }
        for device in running {
            use[device]?.workspace += memory.workspaceBytes(
                on: device, holdsHead: device == headDevice, crossesDevices: running.count > 1)
            if device.isGPU, !request.limitsAreGiven { use[device]?.context = PlacementFilling.contextBytes }
        }
        return use.values.sorted { $0.device < $1.device }
    }

    /// A plan of Nibble's own that exceeds a budget is refused. The user's plan and the reference's may be meant so: they get
    /// a warning.
    private func check(_ plan: inout PlacementPlan) {
        let short = plan.devices.compactMap { use -> DeviceMapError.MemoryShortage? in
            guard let budget = use.budget, budget < use.total else { return nil }
            return DeviceMapError.MemoryShortage(device: use.device, needed: use.total, free: budget)
        }
        guard !short.isEmpty else { return }
        if plan.planner == .nibble {
            plan.refusal = .doesNotFit(short, ways: ways(short, plan))
            return
        }
        for shortage in short {
            plan.warnings.append(
                "\(shortage.device) needs \(ByteCount.text(shortage.needed)) with scales, caches and activations, "
                    + "\(ByteCount.text(shortage.free)) are given")
        }
    }

    /// Two ways out of a shortage, the more effective first.
    private func ways(_ short: [DeviceMapError.MemoryShortage], _ plan: PlacementPlan) -> [String] {
        var ways = [String]()
        if let first = short.first {
            ways.append("raise its budget: --max-memory \(first.device.mapKey)=\(MemoryLimit.limitText(first.needed))")
        }
        if memory.plan.config == nil {
            ways.append("quantize: --load-in-4bit")
        } else if memory.plan.config?.loadIn8Bit == true {
            ways.append("quantize further: --load-in-4bit")
        }
        if memory.context > 64 { ways.append("plan for shorter sequences: --context \(max(memory.context / 2, 64))") }
        ways.append("take a smaller model")
        return Array(ways.prefix(2))
    }

    private func ranges(of map: DeviceMap, stream: Device, _ segments: ModelSegments) throws -> [PlacementPlan.ModuleRange] {
        var ranges = [PlacementPlan.ModuleRange]()
        for segment in segments.all {
            let device = try device(segment, map)
            let reason = reason(segment, device, stream: stream, segments)
            let bytes = segment.bytes.total + segment.cache
            if let last = ranges.last, last.device == device, last.reason == reason {
                ranges[ranges.count - 1].last = segment.paths.last ?? ""
                ranges[ranges.count - 1].bytes += bytes
            } else {
                ranges.append(
                    .init(
                        first: segment.paths.first ?? "", last: segment.paths.last ?? "", device: device, bytes: bytes,
                        reason: reason))
            }
        }
        return ranges
    }

    private func reason(
        _ segment: ModelSegment, _ device: Device, stream: Device, _ segments: ModelSegments
    ) -> String {
        if segment.isTable {
            guard !device.isGPU else { return segments.hasTiedHead ? "embedding and tied head" : "embedding" }
            let lookup = "embedding: a look-up costs nothing here"
            guard segments.hasTiedHead else { return lookup }
            return lookup + "; the tied head reads \(ByteCount.text(segment.bytesPerToken)) a token"
        }
        switch device {
        case .cuda: return "resident"
        case .cpu: return "computed on the CPU as stored"
        case .disk where segment.runs(on: device, stream: stream).isGPU: return "mapped, streamed through \(stream) for each use"
        case .disk: return "mapped, computed on the CPU"
        }
    }
}

extension MemoryLimit {
    /// Bytes as `max_memory` takes them, rounded up to whole megabytes.
    static func limitText(_ bytes: Int) -> String { "\((bytes + 999_999) / 1_000_000)MB" }
}
