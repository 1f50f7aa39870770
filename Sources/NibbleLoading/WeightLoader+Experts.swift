import NibbleCore
import NibbleModels

/// Sets of experts: fused 3-D tensors, or one tensor for each expert and projection.
extension WeightLoader {
    func loadExperts(_ tree: ModuleTree) throws {
        for module in tree.modules where module.isExperts {
            let backend = backend(module.path)
            setExperts(try experts(module, on: backend), of: module.path)
        }
    }

    private func experts(_ module: LocatedModule, on backend: any Backend) throws -> [Expert] {
        guard let gateUp = module.node.parameters.first(where: { $0.name == "gate_up_proj" }),
            let down = module.node.parameters.first(where: { $0.name == "down_proj" })
        else { throw ModelError.missingWeight("gate_up_proj, down_proj", module: module.path) }
        let count = gateUp.shape[0]
        let (inner, width) = (down.shape[2], down.shape[1])
        return try (0..<count).map { index in
            let name = "\(module.path).\(index)"
            func layer(_ projection: String, _ shape: Shape) throws -> Linear {
                let path = "\(name).\(projection)"
                guard let source = matching.expertSources[path + ".weight"] else {
                    throw LoadError.missingWeights([path + ".weight"], files: checkpoint.files.map(\.path))
                }
                let file = try checkpoint.tensor(source.key)
                guard file.shape == shape else {
                    throw LoadError.mismatchedWeights([.init(name: source.key, expected: shape, found: file.shape)])
                }
                let tensor = try castToStored(file, parameter: path, key: source.key)
                return linear(
                    path,
                    try linearWeight(
                        tensor, of: module.path, parameter: module.path(of: "down_proj"), name: path, key: source.key, file: file,
                        on: backend))
            }
            func slice(_ projection: String) throws -> Linear? {
                let (parameter, path) = (module.path(of: projection), "\(name).\(projection)")
                guard let source = matching.sources[parameter] else { return nil }
                let file = try checkpoint.tensor(source.key)
                let rows = file.rows(index..<index + 1)
                let tensor = try castToStored(
                    rows.viewed(as: [file.shape[1], file.shape[2]]), parameter: parameter, key: source.key)
                return linear(
                    path,
                    try linearWeight(
                        tensor, of: module.path, parameter: module.path(of: "down_proj"), name: path, key: source.key, file: file,
                        on: backend))
            }
            let gates =
                try slice("gate_up_proj").map { [$0] }
                ?? [layer("gate_proj", [inner, width]), layer("up_proj", [inner, width])]
            return Expert(
                gateUp: LinearGroup(gates), down: try slice("down_proj") ?? layer("down_proj", [width, inner]))
        }
    }

    private func linear(_ name: String, _ weight: LinearWeight) -> Linear {
        Linear(name: name, weight: weight, arithmetic: arithmetic)
    }
}
