public import NibbleCore

/// A model's modules with everything about them that does not depend on weights.
public struct ModuleTree: Sendable {
    /// The root has an empty name.
    public let root: ModuleNode
    /// Parameters that share storage: target → source, in the reference's order of declaration.
    public let tied: [(target: String, source: String)]
    /// Classes whose modules are never divided between devices.
    public let noSplitClasses: Set<String>
    /// Name patterns of parameters that stay float32 when the load dtype is float16.
    public let keepInFloat32: [String]
    /// The module that turns hidden states into logits.
    public let outputEmbedding: String

    public init(
        root: ModuleNode, tied: [(target: String, source: String)] = [], noSplitClasses: Set<String>,
        keepInFloat32: [String] = [], outputEmbedding: String = "lm_head"
    ) {
        self.root = root
        self.tied = tied
        self.noSplitClasses = noSplitClasses
        self.keepInFloat32 = keepInFloat32
        self.outputEmbedding = outputEmbedding
    }
}

/// A module with its full name.
public struct LocatedModule: Sendable {
    public let path: String
    public let node: ModuleNode

    public init(path: String, node: ModuleNode) {
        self.path = path
        self.node = node
    }

    public func path(of member: String) -> String { path.isEmpty ? member : path + "." + member }

    public var children: [LocatedModule] { node.children.map { LocatedModule(path: path(of: $0.name), node: $0) } }

    /// This module and all below it, a parent before its children.
    public var descendants: [LocatedModule] { [self] + children.flatMap(\.descendants) }

    /// The first module with `role` at or below this one, in definition order.
    public func first(_ role: Role) -> LocatedModule? {
        if node.role == role { return self }
        for child in children {
            if let found = child.first(role) { return found }
        }
        return nil
    }

    public func all(_ role: Role) -> [LocatedModule] { descendants.filter { $0.node.role == role } }
}

/// A parameter with its full name.
public struct LocatedParameter: Sendable {
    public let path: String
    public let module: LocatedModule
    public let shape: Shape
    /// The parameter whose storage this one shares.
    public let tiedTo: String?
    /// Has known values that a checkpoint need not hold.
    public let isComputed: Bool
}

extension ModuleTree {
    public var located: LocatedModule { LocatedModule(path: "", node: root) }

    public var modules: [LocatedModule] { located.descendants }

    /// All parameters in definition order, tied targets included.
    public var parameters: [LocatedParameter] {
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
    public var persistentBuffers: [(path: String, buffer: ModuleNode.Buffer)] {
        modules.flatMap { module in
            module.node.buffers.filter(\.isPersistent).map { (module.path(of: $0.name), $0) }
        }
    }

    /// The module at `path`, walking down from the root.
    public func module(at path: String) -> LocatedModule? {
        var current = located
        guard !path.isEmpty else { return current }
        for part in path.split(separator: ".") {
            guard let child = current.node.children.first(where: { $0.name == part }) else { return nil }
            current = LocatedModule(path: current.path(of: child.name), node: child)
        }
        return current
    }

    /// The dtype a floating parameter is stored in when the model is loaded in `loadDType`.
    public func storedDType(of parameter: String, loadDType: DType) -> DType {
        guard loadDType == .float16 else { return loadDType }
        return keepInFloat32.contains { parameter.contains($0) } ? .float32 : loadDType
    }

    /// The same tree with another set of tied parameters.
    public func tying(_ tied: [(target: String, source: String)]) -> ModuleTree {
        ModuleTree(
            root: root, tied: tied, noSplitClasses: noSplitClasses, keepInFloat32: keepInFloat32,
            outputEmbedding: outputEmbedding)
    }
}
