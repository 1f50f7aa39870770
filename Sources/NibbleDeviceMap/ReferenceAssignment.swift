import NibbleCore

/// One run of the reference's assignment of modules to devices.
struct ReferenceAssignment {
    private let sizes: ModuleSizes
    private let limits: [Device: Double]
    private let devices: [Device]
    /// Devices that keep room for the largest layer, which may be moved there to run.
    private let mainDevices: Set<Device>

    private var map: [String: Device] = [:]
    private var used: [Device: Double] = [:]
    private var current = 0
    /// Names that are not placed yet, the next one last.
    private var queue: [String]
    private var largest: (bytes: Double, names: Set<String>)

    init(_ sizes: ModuleSizes, limits: [Device: Double]) {
        self.sizes = sizes
        self.limits = limits
        devices = limits.keys.filter { $0 != .disk }.sorted() + [.disk]
        mainDevices = devices.first.map { $0.isGPU ? [$0, .cpu] : [.cpu] } ?? [.cpu]
        let root = sizes.modules[""]
        let names = (root?.parameters ?? []) + (root?.children ?? []) + (root?.buffers ?? [])
        queue = names.reversed()
        largest = sizes.largestLayers(names, countingParameters: true)
    }

    mutating func run() -> [String: Device] {
        while let name = queue.popLast() { place(name) }
        return map
    }

    private mutating func place(_ name: String) {
        largest.names = largest.names.filter { $0 != name && !$0.hasPrefix(name + ".") }
        if largest.names.isEmpty { findLargest() }
        let (tied, owners) = tiedElsewhere(name)
        let needed = sizes[name] + owners.reduce(0) { $0 + sizes[$1] }
        let device = devices[current]
        let reserve = mainDevices.contains(device) ? largest.bytes : 0
        let room = (limits[device] ?? 0) - reserve - (used[device] ?? 0)

        if device == .disk || needed <= room {
            used[device, default: 0] += needed
            map[name] = device
            for owner in owners { map[owner] = device }
            queue.removeAll { owners.contains($0) }
        } else if !tied.isEmpty, sizes[name] <= room, let owner = owners.first(where: sizes.isDivisible),
            let place = queue.firstIndex(of: owner)
        {
            queue.replaceSubrange(place...place, with: members(of: owner).reversed())
            queue.append(name)
            findLargest()
        } else if sizes.isDivisible(name) {
            queue.append(contentsOf: members(of: name).reversed())
            findLargest()
        } else {
            used[device, default: 0] += reserve
            current += 1
            queue.append(name)
        }
    }

    /// What a module is divided into: its parameters and children. Its own buffers are not placed.
    private func members(of name: String) -> [String] {
        guard let module = sizes.modules[name] else { return [] }
        return module.parameters + module.children
    }

    private mutating func findLargest() {
        largest = sizes.largestLayers(queue.reversed())
    }

    /// Parameters outside `name` that share storage with one inside, and the queue entries that hold them.
    private func tiedElsewhere(_ name: String) -> (parameters: [String], owners: [String]) {
        // The reference compares text, so a short name may match in the middle of a longer one.
        func isInside(_ member: String) -> Bool { (member + ".").contains(name + ".") }
        var tied = [String]()
        for group in sizes.tiedGroups where group.contains(where: isInside) { tied += group.filter { !isInside($0) } }
        var owners = [String]()
        for parameter in tied {
            if let owner = queue.last(where: { parameter.hasPrefix($0 + ".") }), !owners.contains(owner) { owners.append(owner) }
        }
        return (tied, owners)
    }
}
