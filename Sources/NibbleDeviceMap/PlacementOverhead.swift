import NibbleCore
import NibbleModels

/// What a part of a model takes beside the bytes it stores.
struct PlacementOverhead {
    /// Held in memory though the part lies on the disk: norms and biases.
    var held = 0
    /// What prepared layouts add: rows to a whole tile.
    var padding = 0
    /// While its largest weight is brought in: on the host, whose conversions these are, wherever the weight goes …
    var hostLoading = 0
    /// … and on the device it goes to.
    var deviceLoading = 0

    static func + (a: PlacementOverhead, b: PlacementOverhead) -> PlacementOverhead {
        PlacementOverhead(
            held: a.held + b.held, padding: a.padding + b.padding, hostLoading: max(a.hostLoading, b.hostLoading),
            deviceLoading: max(a.deviceLoading, b.deviceLoading))
    }
}

extension ModelMemory {
    func overhead(below module: LocatedModule) -> PlacementOverhead {
        let tied = Set(tree.tied.map(\.target))
        return module.descendants.reduce(PlacementOverhead()) { sum, module in
            module.node.parameters.reduce(sum) { sum, parameter in
                tied.contains(module.path(of: parameter.name)) ? sum : sum + overhead(parameter, of: module)
            }
        }
    }

    func overhead(_ parameter: ModuleNode.Parameter, of module: LocatedModule) -> PlacementOverhead {
        var costs = PlacementOverhead()
        let path = module.path(of: parameter.name)
        guard isMapped(parameter, of: module) else {
            costs.held = parameter.shape.count * DType.float32.byteCount
            return costs
        }
        let parts = parameter.shape.rank == 3 ? max(parameter.shape[0], 1) : 1
        let stored = tree.storedDType(of: path, loadDType: loadDType)
        let dense = parameter.shape.count / parts * stored.byteCount
        let isTransposed = if case .transposedLinear = module.node.kind { true } else { false }
        let copies = (stored == checkpointDType ? 0 : 1) + (isTransposed ? 1 : 0)
        guard let format = format(of: module), module.isLinear else {
            // The last copy is what is stored, on the CPU at least.
            costs.hostLoading = copies * dense
            return costs
        }
        costs.hostLoading = isStoredQuantized ? 0 : copies * dense
        let (rows, canonical) = (rows(parameter.shape, module) / parts, bytes(parameter, of: module))
        costs.deviceLoading = canonical.total / parts
        if case .fourBit(let fourBit) = format {
            let part = canonical.total / parts
            let padded = (rows + ModelMemory.tileRows - 1) / ModelMemory.tileRows * ModelMemory.tileRows
            costs.padding = parts * (part * padded / max(rows, 1) - part)
            // Nested scales are made from plain ones.
            let blocks = parameter.shape.count / parts / fourBit.blockSize + 1
            if fourBit.isNested { costs.deviceLoading += blocks * DType.float32.byteCount }
        }
        return costs
    }

    /// Rows of a tile in prepared 4-bit layouts.
    private static let tileRows = 16

    /// Whether a parameter on the disk stays in its file; the others are brought into memory.
    private func isMapped(_ parameter: ModuleNode.Parameter, of module: LocatedModule) -> Bool {
        switch module.node.kind {
        case .linear, .transposedLinear, .linearSubclass, .experts, .router: parameter.shape.rank >= 2
        case .embedding: module.node.role != .relativeBias
        default: false
        }
    }
}
