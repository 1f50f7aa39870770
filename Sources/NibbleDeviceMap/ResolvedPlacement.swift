package import NibbleCore
package import NibbleModels

/// A device map applied to one model: where every tensor is stored, and where every module runs.
///
/// A block runs on one device. What a map divides inside a block is brought together, on the block's first GPU if the map
/// names one. A block that lies wholly on the disk runs where the plan streams such blocks to, and norms on the disk run
/// beside it. Everything else on the disk runs on the CPU. All modules that turn tokens into hidden states lie with the token
/// table.
package struct ResolvedPlacement: Sendable {
    /// By parameter path, tied targets included.
    private var stored: [String: Device] = [:]
    /// By module path. What is inside a block runs where the block does.
    private var running: [String: Device] = [:]
    package private(set) var warnings: [String] = []

    /// - Throws: ``DeviceMapError/uncovered(_:)``
    package init(_ map: DeviceMap, _ tree: ModuleTree, stacks: [StackDescription], streamDevice: Device = .cpu) throws {
        let uncovered = tree.parameters.filter { map.device(of: $0.path) == nil }.map(\.path)
        guard uncovered.isEmpty else { throw DeviceMapError.uncovered(uncovered) }
        let parameters = Set(tree.parameters.map(\.path))
        let unknown = map.unknownNames { tree.module(at: $0) != nil || parameters.contains($0) }
        warnings = unknown.map { "the device map names \($0), which the model does not have" }

        var placed = Set<String>()
        let front = ModelSegments.front(tree, stacks).filter { $0.path != tree.outputEmbedding }
        place(front, map, &placed)
        for block in tree.located.all(.block) { place([block], map, streamDevice: streamDevice, &placed) }
        for module in tree.modules where !placed.contains(module.path) {
            let device =
                map.device(of: module.path) ?? module.node.parameters.first.flatMap { map.device(of: module.path(of: $0.name)) }
            guard let device else { continue }
            running[module.path] = device != .disk ? device : module.isHeld ? streamDevice : .cpu
            for parameter in module.node.parameters {
                stored[module.path(of: parameter.name)] = map.device(of: module.path(of: parameter.name)) ?? device
            }
        }
    }

    /// Gives modules that run together one device.
    private mutating func place(
        _ modules: [LocatedModule], _ map: DeviceMap, streamDevice: Device = .cpu, _ placed: inout Set<String>
    ) {
        let all = modules.flatMap(\.descendants)
        var wanted: [(path: String, device: Device)] = []
        for module in all {
            for parameter in module.node.parameters {
                let path = module.path(of: parameter.name)
                if let device = map.device(of: path) { wanted.append((path, device)) }
            }
        }
        let gpu = wanted.first { $0.device.isGPU }?.device
        let runs = gpu ?? (wanted.allSatisfy { $0.device == .disk } ? streamDevice : .cpu)
        if let gpu, wanted.contains(where: { $0.device != gpu }), let name = modules.first?.path {
            warnings.append("\(name) runs undivided on \(gpu), though the device map puts parts of it elsewhere")
        }
        for (path, device) in wanted { stored[path] = gpu ?? device }
        for module in all {
            running[module.path] = runs
            placed.insert(module.path)
        }
    }

    /// Where a parameter is stored.
    package func storage(of parameter: String) -> Device { stored[parameter] ?? .cpu }
    /// Where a module runs: a GPU or the CPU.
    package func device(of module: String) -> Device { running[module] ?? .cpu }
    /// Every device that holds or runs something.
    package var devices: Set<Device> { Set(stored.values).union(running.values) }
}

extension LocatedModule {
    /// Whether its parameters are held in memory even where weights beside it lie on the disk.
    fileprivate var isHeld: Bool {
        if case .norm = node.kind { true } else { false }
    }
}
