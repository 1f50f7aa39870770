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

    /// One matrix of an expert: its shape [N, K], and the fused parameter that holds it for all experts.
    private struct Projection {
        var name: String
        var parameter: String
        var shape: Shape
    }

    /// - Parameter prefix: the base prefix that names in files may lack.
    init(_ tree: ModuleTree, prefix: String) {
        self.prefix = prefix
        for module in tree.modules where module.isExperts {
            guard let down = module.node.parameters.first(where: { $0.name == "down_proj" }) else { continue }
            let (width, inner) = (down.shape[1], down.shape[2])
            let isGated = !module.node.parameters.contains { $0.name == "up_proj" }
            let first = (isGated ? ["gate_proj", "up_proj"] : ["up_proj"]).map {
                Projection(name: $0, parameter: isGated ? "gate_up_proj" : "up_proj", shape: [inner, width])
            }
            sets[module.path] = ExpertSet(
                count: down.shape[0],
                projections: first + [Projection(name: "down_proj", parameter: "down_proj", shape: [width, inner])])
        }
    }

    /// `key`, with the base prefix where the tree has it, if it names a weight of an expert that the model has.
    /// - Parameter key: a name as the tree writes it.
    func path(_ key: String) -> String? {
        for candidate in [key, prefix + "." + key] {
            guard let set = ExpertNames.set(of: candidate).flatMap({ sets[$0] }) else { continue }
            let parts = candidate.split(separator: ".", omittingEmptySubsequences: false).suffix(3).map(String.init)
            guard let index = Int(parts[0]), String(index) == parts[0], (0..<set.count).contains(index),
                parts[2].hasSameBytes(as: "weight"), set.projections.contains(where: { $0.name.hasSameBytes(as: parts[1]) })
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

    /// The weights that make up a fused parameter, with their shapes, expert by expert. Empty for other parameters.
    func weights(of parameter: String, in module: String) -> [(path: String, shape: Shape)] {
        guard let set = sets[module] else { return [] }
        let projections = set.projections.filter { parameter.hasByteSuffix("." + $0.parameter) }
        return (0..<set.count).flatMap { index in
            projections.map { ("\(module).\(index).\($0.name).weight", $0.shape) }
        }
    }
}
