package import NibbleCore

/// A model's modules, and what the reference declares about them.
package struct ModuleTree: Sendable {
    /// The root has an empty name.
    package let root: ModuleNode
    /// Parameters that share storage, as target and source, in the reference's order of declaration.
    package let tied: [(target: String, source: String)]
    /// Classes whose modules are never divided between devices.
    package let noSplitClasses: Set<String>
    /// Name patterns of parameters that stay float32 when the load dtype is float16.
    package let keepInFloat32: [String]
    /// Names of parameters, whole parts from the end (`gate.weight`), that are float32 in every load dtype.
    package let alwaysFloat32: [String]
    /// The module that turns hidden states into logits.
    package let outputEmbedding: String

    package init(
        root: ModuleNode, tied: [(target: String, source: String)] = [], noSplitClasses: Set<String>,
        keepInFloat32: [String] = [], alwaysFloat32: [String] = [], outputEmbedding: String = "lm_head"
    ) {
        self.root = root
        self.tied = tied
        self.noSplitClasses = noSplitClasses
        self.keepInFloat32 = keepInFloat32
        self.alwaysFloat32 = alwaysFloat32
        self.outputEmbedding = outputEmbedding
    }
}

/// A module with its full name.
package struct LocatedModule: Sendable {
    package let path: String
    package let node: ModuleNode

    package init(path: String, node: ModuleNode) {
        self.path = path
        self.node = node
    }

    package func path(of member: String) -> String { path.isEmpty ? member : path + "." + member }

    package var children: [LocatedModule] { node.children.map { LocatedModule(path: path(of: $0.name), node: $0) } }

    /// This module and all below it, a parent before its children.
    package var descendants: [LocatedModule] { [self] + children.flatMap(\.descendants) }

    /// The first module with `role` at or below this one, in definition order.
    package func first(_ role: Role) -> LocatedModule? {
        if node.role == role { return self }
        for child in children {
            if let found = child.first(role) { return found }
        }
        return nil
    }

    package func all(_ role: Role) -> [LocatedModule] { descendants.filter { $0.node.role == role } }
}

/// A parameter with its full name.
package struct LocatedParameter: Sendable {
    package let path: String
    package let module: LocatedModule
    package let shape: Shape
    /// The parameter whose storage this one shares.
    package let tiedTo: String?
    /// Has known values that a checkpoint need not hold.
    package let isComputed: Bool
}

extension ModuleTree {
    package var located: LocatedModule { LocatedModule(path: "", node: root) }

    package var modules: [LocatedModule] { located.descendants }

    /// All parameters in definition order, tied targets included.
    package var parameters: [LocatedParameter] {
        let sources = Dictionary(tied.map { ($0.target, $0.source) }, uniquingKeysWith: { first, _ in first })
        return modules.flatMap { module in
            module.node.parameters.map {
                let path = module.path(of: $0.name)
                return LocatedParameter(
                    path: path, module: module, shape: $0.shape, tiedTo: sources[path], isComputed: $0.isComputed)
            }
        }
    }

    /// Buffers that checkpoints hold, by path.
    package var persistentBuffers: [(path: String, buffer: ModuleNode.Buffer)] {
        modules.flatMap { module in
            module.node.buffers.filter(\.isPersistent).map { (module.path(of: $0.name), $0) }
        }
    }

    /// The module at `path`, walking down from the root.
    package func module(at path: String) -> LocatedModule? {
        var current = located
        guard !path.isEmpty else { return current }
        for part in path.split(separator: ".") {
            guard let child = current.node.children.first(where: { $0.name.utf8.elementsEqual(part.utf8) }) else { return nil }
            current = LocatedModule(path: current.path(of: child.name), node: child)
        }
        return current
    }

    /// The dtype a floating parameter is stored in when the model is loaded in `loadDType`.
    package func storedDType(of parameter: String, loadDType: DType) -> DType {
        if alwaysFloat32.contains(where: { parameter == $0 || parameter.hasSuffix("." + $0) }) { return .float32 }
        guard loadDType == .float16 else { return loadDType }
        return keepInFloat32.contains { parameter.contains($0) } ? .float32 : loadDType
    }

    /// The same tree with another set of tied parameters.
    package func tying(_ tied: [(target: String, source: String)]) -> ModuleTree {
        ModuleTree(
            root: root, tied: tied, noSplitClasses: noSplitClasses, keepInFloat32: keepInFloat32, alwaysFloat32: alwaysFloat32,
            outputEmbedding: outputEmbedding)
    }
}
