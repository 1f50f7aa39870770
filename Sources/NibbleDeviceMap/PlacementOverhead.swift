import NibbleCore
import NibbleModels

/// What part of a model takes beside the bytes it stores.
struct PlacementOverhead {
    /// Held in memory even where the weights lie on the disk: norms and biases.
    var held = 0
    /// Added by prepared layouts, which fill whole tiles of rows.
    var padding = 0
    /// Host memory while the largest weight is loaded, for conversions. It is needed wherever the weight goes.
    var hostLoading = 0
    /// Memory of the weight's own device while the largest weight is loaded.
    var deviceLoading = 0

    /// Both together. Weights are loaded one by one, so that loading takes the larger of the two.
    static func + (a: PlacementOverhead, b: PlacementOverhead) -> PlacementOverhead {
        PlacementOverhead(
            held: a.held + b.held, padding: a.padding + b.padding, hostLoading: max(a.hostLoading, b.hostLoading),
            deviceLoading: max(a.deviceLoading, b.deviceLoading))
    }
}

extension ModelMemory {
    /// Of a module with all below it, without tied targets.
    func overhead(below module: LocatedModule) -> PlacementOverhead {
        let tied = Set(tree.tied.map(\.target))
        return module.descendants.reduce(PlacementOverhead()) { sum, module in
            module.node.parameters.reduce(sum) { sum, parameter in
                tied.contains(module.path(of: parameter.name)) ? sum : sum + overhead(parameter, of: module)
            }
        }
    }

    func overhead(_ parameter: ModuleNode.Parameter, of module: LocatedModule) -> PlacementOverhead {
        var overhead = PlacementOverhead()
        let path = module.path(of: parameter.name)
        guard isMapped(parameter, of: module) else {
            overhead.held = parameter.shape.count * DType.float32.byteCount
            return overhead
        }
        let experts = parameter.shape.rank == 3 ? max(parameter.shape[0], 1) : 1
        let stored = tree.storedDType(of: path, loadDType: loadDType)
        let dense = parameter.shape.count / experts * stored.byteCount
        let isTransposed =
            if case .transposedLinear = module.node.kind { true } else { module.node.expertsLayout == .alternatingColumns }
        let isConverted = stored != checkpointDType || (decodesLayers && module.isLinear)
        let copies = (isConverted ? 1 : 0) + (isTransposed ? 1 : 0)
        guard let format = format(of: module), module.isLinear else {
            overhead.hostLoading = copies * dense
            return overhead
        }
        overhead.hostLoading = isStoredQuantized ? 0 : copies * dense
        let canonical = bytes(parameter, of: module).total / experts
        overhead.deviceLoading = canonical
        if case .fourBit(let fourBit) = format {
            let rows = rows(parameter.shape, module) / experts
            let padded = (rows + ModelMemory.tileRows - 1) / ModelMemory.tileRows * ModelMemory.tileRows
            overhead.padding = experts * (canonical * padded / max(rows, 1) - canonical)
            // Nested scales are made from plain ones.
            let blocks = parameter.shape.count / experts / fourBit.blockSize + 1
            if fourBit.isNested { overhead.deviceLoading += blocks * DType.float32.byteCount }
        }
        return overhead
    }

    /// Rows of a tile in prepared 4-bit layouts.
    private static let tileRows = 16

    /// Whether a parameter on the disk stays in its file. The others are read into memory.
    private func isMapped(_ parameter: ModuleNode.Parameter, of module: LocatedModule) -> Bool {
        switch module.node.kind {
        case .linear, .transposedLinear, .linearSubclass, .experts, .router: parameter.isMatrix(of: module)
        case .embedding: module.node.role != .relativeBias
        default: false
        }
    }
}
