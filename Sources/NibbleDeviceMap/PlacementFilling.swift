import NibbleCore

/// Nibble's own way to place a model: for every place of the tables and the head, fills the devices in order, and keeps the
/// placement with the least estimated time a token.
struct PlacementFilling {
    private let memory: ModelMemory
    private let request: PlacementRequest
    private let segments: ModelSegments
    /// GPUs ascending, then the CPU if it has a budget, then the disk.
    private let tiers: [Device]

    /// What a GPU's driver takes before anything is allocated.
    static let contextBytes = 400_000_000

    init(_ memory: ModelMemory, _ request: PlacementRequest) {
        self.memory = memory
        self.request = request
        segments = ModelSegments(memory)
        tiers = request.limits.keys.filter { $0 != .disk }.sorted() + [.disk]
    }

    /// A device for every segment.
    private struct CandidatePlacement {
        var devices: [String: Device]
        /// Where blocks from the disk run.
        var stream: Device
        /// Seconds a token.
        var cost: Double
    }

    /// What is decided before the chain is placed.
    private struct FixedPlaces {
        var tables: Device
        /// `nil`: the head goes to the end of the chain, or with the tables where it has no weight of its own.
        var head: Device?
        var stream: Device
        /// Whether activations pass between devices.
        var crossesDevices: Bool
    }

    func deviceMap() -> (map: DeviceMap, stream: Device) {
        var best: CandidatePlacement?
        for tables in placesForTables {
            for head in placesForHead {
                guard let candidate = candidate(tables: tables, head: head) else { continue }
                if best.map({ candidate.cost < $0.cost }) ?? true { best = candidate }
            }
        }
        guard let best else { return (.all(on: .disk), .cpu) }
        return (complete(best.devices).cleaned(), best.stream)
    }

    private var gpus: [Device] { tiers.filter(\.isGPU) }

    /// The CPU may hold tables and a tied head though no limit names it, unless a limit of 0 rules it out.
    private var cpuForTables: [Device] { request.limits[.cpu] == 0 ? [] : [.cpu] }
    private var placesForTables: [Device] { gpus + cpuForTables + [.disk] }
    private var placesForHead: [Device?] {
        guard segments.head != nil else { return [nil] }
        return [nil] + gpus + (segments.isHeadTied ? cpuForTables : [])
    }

    // MARK: One candidate

    /// Blocks on the disk run on the main GPU if it has room for two of them beside all else, or on the CPU.
    private func candidate(tables: Device, head: Device?) -> CandidatePlacement? {
        var places = FixedPlaces(tables: tables, head: head, stream: .cpu, crossesDevices: false)
        if let candidate = fill(places, .init()), Set(candidate.devices.values).count == 1, tables != .disk { return candidate }
        places.crossesDevices = !gpus.isEmpty
        guard let first = fill(places, .init()) else {
            return gpus.first.flatMap { streaming(places, through: $0, .init()) }
        }
        guard first.devices.values.contains(.disk) else { return first }
        let reserve = reserve(first)
        return gpus.first.flatMap { streaming(places, through: $0, reserve) } ?? streaming(places, through: .cpu, reserve)
    }

    /// Memory that streaming from the disk needs, set aside before anything else is placed.
    private struct StreamingReserve: Equatable {
        /// On the device that runs the blocks: buffers, caches, norms and biases.
        var blocks = 0
        /// On the CPU, for the largest segment that it runs straight from the disk.
        var window = 0
    }

    /// A larger reserve sends more to the disk, which may need a larger reserve; repeated until it suffices.
    private func streaming(
        _ places: FixedPlaces, through stream: Device, _ start: StreamingReserve
    ) -> CandidatePlacement? {
        var places = places
        places.stream = stream
        var reserve = start
        for _ in 0...segments.chain.count {
            guard let candidate = fill(places, reserve) else { return nil }
            let needed = self.reserve(candidate)
            guard needed.blocks > reserve.blocks || needed.window > reserve.window else { return candidate }
            reserve = StreamingReserve(
                blocks: max(needed.blocks, reserve.blocks), window: max(needed.window, reserve.window))
        }
        return nil
    }

    private func reserve(_ candidate: CandidatePlacement) -> StreamingReserve {
        let onDisk = segments.all.filter { $0.paths.contains { candidate.devices[$0] == .disk } }
        let held = onDisk.reduce(0) { $0 + $1.overhead.held }
        guard candidate.stream.isGPU else {
            return StreamingReserve(blocks: held, window: onDisk.map(\.bytesPerToken).max() ?? 0)
        }
        let onCPU = onDisk.lazy.filter { $0.runs(on: .disk, stream: candidate.stream) == .cpu }
        return StreamingReserve(
            blocks: ModelSegments.streamBytes(onDisk) + held + onDisk.reduce(0) { $0 + $1.cache },
            window: onCPU.map(\.bytesPerToken).max() ?? 0)
    }

    private func fill(_ places: FixedPlaces, _ reserve: StreamingReserve) -> CandidatePlacement? {
        var filling = DeviceFilling(free: budgets(places))
        guard filling.take(running: reserve.window, on: .cpu), filling.take(running: reserve.blocks, on: places.stream),
            filling.place(segments.tables, on: places.tables)
        else { return nil }
        var chain = segments.chain
        if let segment = segments.head {
            if let head = places.head {
                guard filling.place(segment, on: head) else { return nil }
            } else {
                chain.append(segment)
            }
        }
        var tier = 0
        // Once the CPU runs what lies on the disk, it holds the caches of all segments from the first one off the GPUs on.
        var holdsCaches = false
        for (index, segment) in chain.enumerated() {
            while true {
                let device = tiers[tier]
                if places.stream == .cpu, !device.isGPU, !holdsCaches {
                    guard filling.take(running: chain[index...].reduce(0) { $0 + $1.cache }, on: .cpu) else { return nil }
                    holdsCaches = true
                }
                let logits = segment.isHead ? logitsBytes(on: device, places) : 0
                if filling.place(segment, on: device, withCache: !holdsCaches && device != .disk, extra: logits) { break }
                guard tier + 1 < tiers.count else { return nil }
                tier += 1
            }
        }
        return CandidatePlacement(devices: filling.devices, stream: places.stream, cost: cost(filling.devices))
    }

    /// What is left of each device once the operations' own memory, and conversions on the host, are allotted.
    private func budgets(_ places: FixedPlaces) -> [Device: FreeMemory] {
        let tablesRun = segments.tables.runs(on: places.tables, stream: places.stream)
        let headDevice = places.head ?? (segments.head == nil ? tablesRun : nil)
        var free: [Device: FreeMemory] = [.disk: .unlimited, .cpu: .unlimited]
        for (device, limit) in request.limits {
            guard device != .disk else {
                free[device] = FreeMemory(running: limit, loading: .max)
                continue
            }
            let holdsHead = device == (headDevice ?? .cpu)
            let workspace = memory.workspaceBytes(on: device, holdsHead: holdsHead, crossesDevices: places.crossesDevices)
            if device.isGPU {
                let context = request.limitsAreGiven ? 0 : PlacementFilling.contextBytes
                free[device] = FreeMemory(running: limit - workspace - context, loading: .max, loadingStays: true)
            } else {
                free[device] = FreeMemory(running: limit - workspace, loading: limit - segments.hostLoadingBytes)
            }
        }
        return free
    }

    /// What a device takes beside the head's weight to compute logits. The CPU's budget counts them from the start where it
    /// may have to read the head from the disk.
    private func logitsBytes(on device: Device, _ places: FixedPlaces) -> Int {
        guard device.isGPU, request.limits[device] != nil else { return 0 }
        func workspace(_ holdsHead: Bool) -> Int {
            memory.workspaceBytes(on: device, holdsHead: holdsHead, crossesDevices: places.crossesDevices)
        }
        return workspace(true) - workspace(false)
    }

    // MARK: Choosing

    /// Seconds a token takes to read its weights, and to pass between devices.
    private func cost(_ devices: [String: Device]) -> Double {
        var seconds = 0.0
        var last: Device?
        for segment in segments.all {
            guard let device = segment.paths.first.flatMap({ devices[$0] }) else { continue }
            seconds += Double(segment.bytesPerToken) / device.bytesPerSecond
            if let last, last != device { seconds += 2e-5 }
            last = device
        }
        return seconds
    }

    /// Adds modules without tensors, beside the module before them.
    private func complete(_ placed: [String: Device]) -> DeviceMap {
        var entries: [String: Device] = [:]
        let tables = segments.tables.paths.first.flatMap { placed[$0] } ?? .cpu
        let empty = Set(segments.empty)
        var last = segments.chain.first.flatMap { placed[$0.paths[0]] } ?? tables
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
