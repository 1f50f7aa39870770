public import NibbleCore

/// A model's weights as the loader leaves them, by their paths in the module tree.
public struct ModelWeights: Sendable {
    /// By module path; biases and arithmetic included.
    public var linears: [String: Linear] = [:]
    /// By parameter path: norm weights and biases and relative biases as float32, embedding tables in their stored dtype.
    public var tensors: [String: Tensor] = [:]
    /// Fused experts by module path.
    public var experts: [String: [Expert]] = [:]
    /// Where a module runs.
    public var backend: @Sendable (_ modulePath: String) -> any Backend

    public init(backend: @escaping @Sendable (_ modulePath: String) -> any Backend) {
        self.backend = backend
    }
}

extension ModelWeights {
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
