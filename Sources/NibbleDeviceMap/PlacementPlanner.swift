package import NibbleCore
package import NibbleModels
import NibbleQuantization

/// What is asked of placement.
package struct PlacementRequest: Sendable {
    package var deviceMap: DeviceMapRequest = .auto
    /// Bytes by device. What is not named does not exist, except the disk and, for embeddings and a tied head, the CPU.
    package var limits: [Device: Int] = [:]
    /// Whether the user named the limits. They then bound what Nibble allocates; measured ones also hold the driver's share.
    package var limitsAreGiven = true
    /// transformers' own plan, whatever it does.
    package var followsReference = false
    /// What a device's operations take beside activations.
    package var operationBytes = ModelMemory.roughOperationBytes

    package init() {}
}

/// Nibble's planner.
///
/// Where the reference keeps everything on GPUs, and they hold that, its plan is taken. Where that one spills, fails, or takes
/// more than it counts, devices are filled to their budgets by what Nibble really stores there: weights, scales, caches, activations. Embedding tables may stay on the
/// CPU, where a look-up costs nothing; a tied head runs where its table lies. Of all choices for the tables the one with
/// the least estimated time a token is taken.
package struct PlacementPlanner: Sendable {
    package let memory: ModelMemory
    /// Quantization as the reference would plan it.
    package let referencePlan: QuantizationPlan

    package init(_ memory: ModelMemory, referencePlan: QuantizationPlan) {
        self.memory = memory
        self.referencePlan = referencePlan
    }

    /// What stands in the way of loading is left in ``PlacementPlan/refusal``, so that the plan can be looked at.
    /// - Throws: ``DeviceMapError/uncovered(_:)``
    package func plan(_ request: PlacementRequest) throws -> PlacementPlan {
        let units = ModelSegments(memory)
        let (map, planner, stream) = try deviceMap(request, units)
        let uncovered = memory.tree.parameters.filter { map.device(of: $0.path) == nil }.map(\.path)
        guard uncovered.isEmpty else { throw DeviceMapError.uncovered(uncovered) }
        var plan = PlacementPlan(deviceMap: map, planner: planner, devices: [], ranges: [])
        plan.streamDevice = try stream ?? streamDevice(map, units, request)
        plan.devices = try use(of: map, stream: plan.streamDevice, units, request)
        plan.ranges = try ranges(of: map, stream: plan.streamDevice, units)
        if request.followsReference { plan.refusal = refusal(map) }
        check(&plan)
        return plan
    }

    /// `stream` is `nil` where the map does not decide it.
    private func deviceMap(
        _ request: PlacementRequest, _ units: ModelSegments
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
            || reference.entries.values.allSatisfy(\.isGPU) && fits(reference, units, request)
        if isTaken {
            return (reference, .reference, nil)
        }
        let filled = PlacementFilling(memory, request).deviceMap()
        return (filled.map, .nibble, filled.stream)
    }

    /// Whether budgets hold all that running takes, not weights alone.
    private func fits(_ map: DeviceMap, _ units: ModelSegments, _ request: PlacementRequest) throws -> Bool {
        try use(of: map, stream: .cpu, units, request).allSatisfy { use in use.budget.map { use.total <= $0 } ?? true }
    }

    /// Quantized layers off the GPU are refused by the reference unless everything lies on the CPU.
    private func refusal(_ map: DeviceMap) -> DeviceMapError? {
        guard let config = referencePlan.config, !config.int8EnableFP32CPUOffload else { return nil }
        let off = map.devices.filter { !$0.isGPU }
        return off.isEmpty || map.devices == [.cpu] ? nil : .offloadOfQuantizedModules(off)
    }

    // MARK: What a map takes

    private func device(_ unit: ModelSegment, _ map: DeviceMap) throws -> Device {
        let direct = unit.paths.lazy.compactMap { map.device(of: $0) }.first
        if let device = direct ?? unit.paths.lazy.compactMap({ firstDevice(below: $0, map) }).first { return device }
        throw DeviceMapError.uncovered(unit.paths)
    }

    /// Of a module that the map names part by part, the device of its first part.
    private func firstDevice(below path: String, _ map: DeviceMap) -> Device? {
        memory.tree.module(at: path)?.descendants.lazy.compactMap { map.device(of: $0.path) }.first
    }

    /// The main GPU, the first of the map or of the machine, runs blocks from the disk if its budget holds two of them beside
    /// all else; the CPU otherwise.
    private func streamDevice(_ map: DeviceMap, _ units: ModelSegments, _ request: PlacementRequest) throws -> Device {
        let present = request.limits.filter { $0.value > 0 }.keys
        guard let main = (map.devices.filter(\.isGPU) + present.filter(\.isGPU).sorted()).first else { return .cpu }
        let use = try use(of: map, stream: main, units, request).first { $0.device == main }
        guard let use, let budget = use.budget else { return main }
        return use.total <= budget ? main : .cpu
    }

    private func use(
        of map: DeviceMap, stream: Device, _ units: ModelSegments, _ request: PlacementRequest
    ) throws -> [PlacementPlan.DeviceMemory] {
        var use: [Device: PlacementPlan.DeviceMemory] = [:]
        for (device, limit) in request.limits { use[device] = .init(device, budget: limit) }
        var running = Set<Device>()
        var headDevice = Device.cpu
        // Of what the CPU runs from the disk, one part at a time is in memory.
        var window = 0
        var streamed = [ModelSegment]()
        for unit in units.all {
            let device = try device(unit, map)
            let runs = unit.runs(on: device, stream: stream)
            use[device, default: .init(device)].weights += unit.bytes.weights
            use[device, default: .init(device)].scales += unit.bytes.scales
            use[runs, default: .init(runs)].cache += unit.cache
            let beside = device == .disk ? unit.costs.held : unit.costs.padding
            use[runs]?.workspace += beside
            if runs == .cpu { use[runs]?.loading += beside }
            running.insert(runs)
            if device == .disk {
                if runs == .cpu { window = max(window, unit.streamed) } else { streamed.append(unit) }
            }
            if unit.paths.contains(memory.tree.outputEmbedding) { headDevice = runs }
        }
        use[.cpu]?.workspace += window
        use[stream]?.workspace += ModelSegments.streamBytes(streamed)
        for device in running {
            use[device]?.workspace += memory.workspaceBytes(
                on: device, holdsHead: device == headDevice, crossesDevices: running.count > 1)
            use[device]?.loading += units.loadingBytes(on: device)
            if device.isGPU, !request.limitsAreGiven { use[device]?.context = PlacementFilling.contextBytes }
        }
        return use.values.sorted { $0.device < $1.device }
    }

    /// A budget that a plan of Nibble's own exceeds is an error; one that the reference's or the user's plan exceeds may be
    /// what they want, and is said.
    private func check(_ plan: inout PlacementPlan) {
        let short = plan.devices.compactMap { use in
            use.budget.flatMap {
                $0 < use.total ? DeviceMapError.MemoryShortage(device: use.device, needed: use.total, free: $0) : nil
            }
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

    private func ranges(of map: DeviceMap, stream: Device, _ units: ModelSegments) throws -> [PlacementPlan.ModuleRange] {
        var ranges = [PlacementPlan.ModuleRange]()
        for unit in units.all {
            let device = try device(unit, map)
            let reason = reason(unit, device, stream: stream, units)
            let bytes = unit.bytes.total + unit.cache
            if let last = ranges.last, last.device == device, last.reason == reason {
                ranges[ranges.count - 1].last = unit.paths[unit.paths.count - 1]
                ranges[ranges.count - 1].bytes += bytes
            } else {
                ranges.append(
                    .init(
                        first: unit.paths.first ?? "", last: unit.paths.last ?? "", device: device, bytes: bytes, reason: reason))
            }
        }
        return ranges
    }

    private func reason(
        _ unit: ModelSegment, _ device: Device, stream: Device, _ units: ModelSegments
    ) -> String {
        if unit.isTable {
            guard !device.isGPU else { return units.hasTiedHead ? "embedding and tied head" : "embedding" }
            let lookup = "embedding: a look-up costs nothing here"
            guard units.hasTiedHead else { return lookup }
            return lookup + "; the tied head reads \(ByteCount.text(unit.streamed)) a token"
        }
        switch device {
        case .cuda: return "resident"
        case .cpu: return "computed on the CPU as stored"
        case .disk where unit.runs(on: device, stream: stream).isGPU: return "mapped, streamed through \(stream) for each use"
        case .disk: return "mapped, computed on the CPU"
        }
    }
}

extension MemoryLimit {
    /// Bytes as `max_memory` takes them, rounded up to whole megabytes.
    static func limitText(_ bytes: Int) -> String { "\((bytes + 999_999) / 1_000_000)MB" }
}
