import NibbleCore

/// Fills devices in order, the tables first, and keeps the best of all places for the tables.
struct PlacementFilling {
    private let memory: ModelMemory
    private let request: PlacementRequest
    private let units: ModelSegments
    /// GPUs ascending, then the CPU if it has a budget, then the disk.
    private let tiers: [Device]

    /// What a GPU's driver takes before anything is allocated.
    static let contextBytes = 400_000_000

    init(_ memory: ModelMemory, _ request: PlacementRequest) {
        self.memory = memory
        self.request = request
        units = ModelSegments(memory)
        tiers = request.limits.keys.filter { $0 != .disk }.sorted() + [.disk]
    }

    /// One way to place everything.
    private struct Candidate {
        var devices: [String: Device]
        var stream: Device
        var cost: Double
    }

    func deviceMap() -> (map: DeviceMap, stream: Device) {
        var best: Candidate?
        for table in placesForTables {
            for head in placesForHead {
                guard let candidate = candidate(table: table, head: head) else { continue }
                if best.map({ candidate.cost < $0.cost }) ?? true { best = candidate }
            }
        }
        guard let best else { return (.all(on: .disk), .cpu) }
        return (complete(best.devices).cleaned(), best.stream)
    }

    private var gpus: [Device] { tiers.filter(\.isGPU) }

    /// The CPU may hold the tables though it was not named, unless it was ruled out.
    private var placesForTables: [Device] { gpus + (request.limits[.cpu] == 0 ? [] : [.cpu]) + [.disk] }
    /// `nil`: at the end of the chain.
    private var placesForHead: [Device?] { units.head == nil ? [nil] : [nil] + gpus.map { $0 } }

    // MARK: One candidate

    /// Blocks on the disk run on the main GPU if it has room for two of them beside all else, or on the CPU.
    private func candidate(table: Device, head: Device?) -> Candidate? {
        guard let first = fill(table: table, head: head, stream: .cpu, .init()) else {
            return gpus.first.flatMap { streaming(table: table, head: head, stream: $0, .init()) }
        }
        guard first.devices.values.contains(.disk) else { return first }
        let reserve = reserve(first)
        return gpus.first.flatMap { streaming(table: table, head: head, stream: $0, reserve) }
            ?? streaming(table: table, head: head, stream: .cpu, reserve)
    }

    /// What streaming takes before anything else is placed.
    private struct StreamingReserve: Equatable {
        /// On the device that runs the blocks: buffers, caches, norms and biases.
        var blocks = 0
        /// Of what runs on the CPU straight from the disk, the largest part has to have room there.
        var window = 0
    }

    /// What is put aside for streaming sends more to the disk, until it suffices.
    private func streaming(table: Device, head: Device?, stream: Device, _ start: StreamingReserve) -> Candidate? {
        var reserve = start
        for _ in 0...units.chain.count {
            guard let candidate = fill(table: table, head: head, stream: stream, reserve) else { return nil }
            let needed = self.reserve(candidate)
            guard needed.blocks > reserve.blocks || needed.window > reserve.window else { return candidate }
            reserve = StreamingReserve(blocks: max(needed.blocks, reserve.blocks), window: max(needed.window, reserve.window))
        }
        return nil
    }

    private func reserve(_ candidate: Candidate) -> StreamingReserve {
        let onDisk = units.all.filter { $0.paths.contains { candidate.devices[$0] == .disk } }
        let held = onDisk.reduce(0) { $0 + $1.costs.held }
        guard candidate.stream.isGPU else {
            return StreamingReserve(blocks: held, window: onDisk.map(\.streamed).max() ?? 0)
        }
        return StreamingReserve(
            blocks: ModelSegments.streamBytes(onDisk) + held + onDisk.reduce(0) { $0 + $1.cache },
            window: onDisk.lazy.filter { $0.runs(on: .disk, stream: candidate.stream) == .cpu }.map(\.streamed).max() ?? 0)
    }

    /// Bytes of a device that are left: for what runs, and for weights while they are brought in.
    private struct FreeMemory {
        var running: Int
        var loading: Int

        static let unlimited = FreeMemory(running: .max, loading: .max)

        /// `false` if it does not fit.
        mutating func take(weights: Int = 0, running other: Int = 0) -> Bool {
            guard weights + other <= running, weights <= loading else { return weights + other == 0 }
            if running != .max { running -= weights + other }
            if loading != .max { loading -= weights }
            return true
        }
    }

    private func fill(table: Device, head: Device?, stream: Device, _ reserve: StreamingReserve) -> Candidate? {
        let headDevice = head ?? (units.head == nil ? units.tables.runs(on: table, stream: stream) : nil)
        var free = budgets(headDevice: headDevice)
        guard free[.cpu]?.take(running: reserve.window) ?? true, free[stream]?.take(running: reserve.blocks) ?? true
        else { return nil }
        var devices: [String: Device] = [:]
        guard place(units.tables, on: table, &free, &devices) else { return nil }
        if let unit = units.head, let head {
            guard place(unit, on: head, &free, &devices) else { return nil }
        }
        let chain = units.chain + (head == nil ? units.head.map { [$0] } ?? [] : [])
        var tier = 0
        // Where the CPU runs what lies on the disk, all caches from the first unit off the GPUs on lie in its memory.
        var holdsCaches = false
        for (index, unit) in chain.enumerated() {
            while true {
                if stream == .cpu, !tiers[tier].isGPU, !holdsCaches {
                    guard free[.cpu]?.take(running: chain[index...].reduce(0) { $0 + $1.cache }) ?? true else { return nil }
                    holdsCaches = true
                }
                if place(unit, on: tiers[tier], withCache: !holdsCaches && tiers[tier] != .disk, &free, &devices) { break }
                guard tier + 1 < tiers.count else { return nil }
                tier += 1
            }
        }
        return Candidate(devices: devices, stream: stream, cost: cost(devices))
    }

    /// What is left of each device once activations, and what loading takes, are allotted.
    private func budgets(headDevice: Device?) -> [Device: FreeMemory] {
        var free: [Device: FreeMemory] = [.disk: .unlimited, .cpu: .unlimited]
        for (device, limit) in request.limits {
            guard device != .disk else {
                free[device] = FreeMemory(running: limit, loading: .max)
                continue
            }
            // A head at the chain's end may come to lie on any device.
            let holdsHead = headDevice.map { $0 == device } ?? true
            let workspace = memory.workspaceBytes(on: device, holdsHead: holdsHead, crossesDevices: !gpus.isEmpty)
            let loading = units.loadingBytes(on: device)
            if device.isGPU {
                let context = request.limitsAreGiven ? 0 : PlacementFilling.contextBytes
                free[device] = FreeMemory(running: limit - workspace - loading - context, loading: .max)
            } else {
                free[device] = FreeMemory(running: limit - workspace, loading: limit - loading)
            }
        }
        return free
    }

    private func place(
        _ unit: ModelSegment, on device: Device, withCache: Bool = true, _ free: inout [Device: FreeMemory],
        _ devices: inout [String: Device]
    ) -> Bool {
        let weights = unit.bytes.total + unit.costs.padding
        guard free[device]?.take(weights: weights, running: withCache ? unit.cache : 0) ?? (weights == 0) else { return false }
        for path in unit.paths { devices[path] = device }
        return true
    }

    // MARK: Choosing

    /// Seconds a token takes to read its weights, and to pass between devices.
    private func cost(_ devices: [String: Device]) -> Double {
        var seconds = 0.0
        var last: Device?
        for unit in units.all {
            guard let device = unit.paths.first.flatMap({ devices[$0] }) else { continue }
            seconds += Double(unit.streamed) / device.bytesPerSecond
            if let last, last != device { seconds += 2e-5 }
            last = device
        }
        return seconds
    }

    /// Adds modules without tensors, beside the module before them.
    private func complete(_ placed: [String: Device]) -> DeviceMap {
        var entries: [String: Device] = [:]
        let first = units.chain.first.flatMap { placed[$0.paths[0]] } ?? units.tables.paths.first.flatMap { placed[$0] } ?? .cpu
        let empty = Set(units.empty)
        var last = first
        for module in memory.tree.modules {
            if let device = placed[module.path] {
                entries[module.path] = device
                last = device
            } else if empty.contains(module.path) {
                entries[module.path] = last
            } else {
                for parameter in module.node.parameters {
                    let path = module.path(of: parameter.name)
                    if let device = placed[path] { entries[path] = device }
                }
            }
        }
        return DeviceMap(entries)
    }
}

extension Device {
    /// Rough speeds at which weights are read, good enough to compare places.
    fileprivate var bytesPerSecond: Double {
        switch self {
        case .cuda: 1e12
        case .cpu: 2e10
        case .disk: 1e9
        }
    }
}
