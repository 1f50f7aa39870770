import NibbleCore
import NibbleModels

/// The names that the weights of single experts have where a checkpoint holds them one by one: `M.experts.3.gate_proj.weight`.
struct ExpertNames {
    /// By the path of a set of experts.
    private var sets: [ByteText: ExpertSet] = [:]
    private let prefix: String

    private struct ExpertSet {
        var count: Int
        var projections: [Projection]
    }

    /// One matrix of an expert: its shape [N, K], and the fused parameters that hold it, and its bias, for all experts.
    private struct Projection {
        var name: String
        var parameter: String
        var bias: String?
        var shape: Shape
    }

    /// - Parameter prefix: the base prefix that names in files may lack.
    init(_ tree: ModuleTree, prefix: String) {
        self.prefix = prefix
        for module in tree.modules where module.isExperts {
            guard let down = module.node.parameters.first(where: { $0.name == "down_proj" }) else { continue }
            sets[module.path] = ExpertSet(count: down.shape[0], projections: ExpertNames.projections(module.node, down.shape))
        }
    }

    private static func projections(_ node: ModuleNode, _ down: Shape) -> [Projection] {
        func projection(_ name: String, of parameter: String? = nil, _ shape: Shape) -> Projection {
            let bias = node.parameters.first { $0.name == name + "_bias" }?.name
            return Projection(name: name, parameter: parameter ?? name, bias: bias, shape: shape)
        }
        guard node.expertsLayout == .rows else {
            let (width, inner) = (down[2], down[1])
            return [projection("gate_up_proj", [2 * inner, width]), projection("down_proj", [width, inner])]
        }
        let (width, inner) = (down[1], down[2])
        let isGated = !node.parameters.contains { $0.name == "up_proj" }
        let first = (isGated ? ["gate_proj", "up_proj"] : ["up_proj"]).map {
            projection($0, of: isGated ? "gate_up_proj" : "up_proj", [inner, width])
        }
        return first + [projection("down_proj", [width, inner])]
    }

    /// `key`, with the base prefix where the tree has it, if it names a weight or a bias of an expert that the model has.
    /// - Parameter key: a name as the tree writes it.
    func path(_ key: String) -> String? {
        for candidate in [key, prefix + "." + key] {
            guard let set = ExpertNames.set(of: candidate).flatMap({ sets[$0] }) else { continue }
            let parts = candidate.split(separator: ".", omittingEmptySubsequences: false).suffix(3).map(String.init)
            guard let index = Int(parts[0]), String(index) == parts[0], (0..<set.count).contains(index),
                let projection = set.projections.first(where: { $0.name.hasSameBytes(as: parts[1]) }),
                parts[2].hasSameBytes(as: "weight") || projection.bias != nil && parts[2].hasSameBytes(as: "bias")
            else { continue }
            return candidate
        }
        return nil
    }

    /// The path of the set that a weight of a single expert belongs to.
    static func set(of path: String) -> String? {
        let parts = path.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count > 3 ? parts.dropLast(3).joined(separator: ".") : nil
    }

    /// The weights, or the biases, that make up a fused parameter, with their shapes, expert by expert. Empty for other parameters.
    func weights(of parameter: String, in module: String) -> [(path: String, shape: Shape)] {
        guard let set = sets[module] else { return [] }
        let weights = set.projections.filter { parameter.hasByteSuffix("." + $0.parameter) }
        let biases = set.projections.filter { $0.bias.map { parameter.hasByteSuffix("." + $0) } ?? false }
        return (0..<set.count).flatMap { index in
            weights.map { ("\(module).\(index).\($0.name).weight", $0.shape) }
                + biases.map { ("\(module).\(index).\($0.name).bias", [$0.shape[0]]) }
        }
    }
}
