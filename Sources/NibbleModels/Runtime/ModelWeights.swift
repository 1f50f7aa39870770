public import NibbleCore

/// A model's weights as the loader leaves them, by their paths in the module tree.
public struct ModelWeights: Sendable {
    /// By module path; biases and arithmetic included.
    public var linears: [String: Linear] = [:]
    /// By parameter path: norm weights and biases and relative biases as float32, embedding tables in their stored dtype.
    public var tensors: [String: Tensor] = [:]
    /// Fused experts by module path.
    public var experts: [String: [Expert]] = [:]
    /// Blocks whose weights stay in mapped files, by module path.
    public var streams: [String: any WeightStream] = [:]
    /// Where a module runs.
    public var backend: @Sendable (_ modulePath: String) -> any Backend

    public init(backend: @escaping @Sendable (_ modulePath: String) -> any Backend) {
        self.backend = backend
    }
}

/// Weights of one block that stay in mapped files and are read for each use.
public protocol WeightStream: Sendable {
    /// Starts reading, so that the block finds its weights in memory. Returns at once.
    func prefetch()
    /// Gives the memory back; the weights stay readable.
    func release()
}

extension ModelWeights {
    /// The stream of a module's weight, or of the one it is tied to.
    func stream(_ module: String, _ tree: ModuleTree) -> (any WeightStream)? {
        if let stream = streams[module] { return stream }
        guard let source = tree.tied.first(where: { $0.target == module + ".weight" })?.source else { return nil }
        return streams[String(source.dropLast(".weight".count))]
    }

    func linear(_ module: LocatedModule?) throws -> Linear {
        guard let module, let linear = linears[module.path] else {
            throw ModelError.missingWeight("weight", module: module?.path ?? "a projection")
        }
        return linear
    }

    func group(_ modules: LocatedModule?...) throws -> LinearGroup { LinearGroup(try modules.map(linear)) }

    func table(_ module: LocatedModule) throws -> Tensor {
        guard let table = tensors[module.path(of: "weight")] else {
            throw ModelError.missingWeight("weight", module: module.path)
        }
        return table
    }

    /// The norm that `module` is; `nil` where there is no such module.
    func norm(_ module: LocatedModule?) throws -> Norm? {
        guard let module, case .norm(let description) = module.node.kind else { return nil }
        return Norm(
            kind: description.kind, epsilon: description.epsilon, weight: tensors[module.path(of: "weight")],
            bias: tensors[module.path(of: "bias")])
    }
}
