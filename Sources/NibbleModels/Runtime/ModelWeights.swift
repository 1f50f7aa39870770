package import NibbleCore

/// A model's loaded weights, by their paths in the module tree.
package struct ModelWeights: Sendable {
    /// By module path; biases and arithmetic included.
    package var linears: [String: Linear] = [:]
    /// By parameter path: norm weights and biases and relative biases as float32, embedding tables in their stored dtype.
    package var tensors: [String: Tensor] = [:]
    /// Fused experts by module path.
    package var experts: [String: [Expert]] = [:]
    /// Blocks whose weights stay in mapped files, by module path.
    package var streams: [String: any WeightStream] = [:]
    /// The backend that runs a module.
    package var backend: @Sendable (_ modulePath: String) -> any Backend

    package init(backend: @escaping @Sendable (_ modulePath: String) -> any Backend) {
        self.backend = backend
    }
}

/// Weights of one block that stay in mapped files and are read for each use.
package protocol WeightStream: Sendable {
    /// Starts to read the weights into memory. Returns at once.
    func prefetch()
    /// Makes the weights available to everything that is enqueued from now on. Other callers wait until ``release()``.
    func acquire() throws
    /// Marks everything enqueued so far as the last that reads the weights for this use.
    func release()
}

extension Optional where Wrapped == any WeightStream {
    /// Runs `body` with the weights acquired, where they are streamed.
    func during<Result>(_ body: () throws -> Result) throws -> Result {
        try self?.acquire()
        defer { self?.release() }
        return try body()
    }
}

extension ModelWeights {
    /// How linear layers are stored.
    var formats: Set<WeightFormat> {
        let experts = experts.values.joined().flatMap { $0.gateUp.layers + [$0.down] }
        return Set((Array(linears.values) + experts).map(\.weight.format))
    }

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

    /// A parameter by its name within a module.
    func parameter(_ name: String, of module: LocatedModule) throws -> Tensor {
        guard let tensor = tensors[module.path(of: name)] else {
            throw ModelError.missingWeight(name, module: module.path)
        }
        return tensor
    }

    func table(_ module: LocatedModule) throws -> Tensor {
        guard let table = tensors[module.path(of: "weight")] else {
            throw ModelError.missingWeight("weight", module: module.path)
        }
        return table
    }

    /// A buffer or parameter of one number; `nil` where the checkpoint has none.
    func number(_ path: String, of module: LocatedModule) throws -> Float? {
        guard let tensor = tensors[path] else { return nil }
        var number: Float = 1
        try withUnsafeMutableBytes(of: &number) { try backend(module.path).read(tensor, into: $0) }
        return number
    }

    /// The norm that `module` is, or that its children are together, one a head; `nil` where there is no such module.
    func norm(_ module: LocatedModule?) throws -> Norm? {
        guard let module else { return nil }
        guard case .norm(let description) = module.node.kind else { return try headNorms(module) }
        return Norm(
            kind: description.kind, epsilon: description.epsilon, weight: tensors[module.path(of: "weight")],
            bias: tensors[module.path(of: "bias")])
    }

    /// Norms of single heads as one norm with a weight [H, D] (StableLM).
    private func headNorms(_ module: LocatedModule) throws -> Norm? {
        let heads = module.descendants.filter { if case .norm = $0.node.kind { true } else { false } }
        guard let first = try norm(heads.first) else { return nil }
        func joined(_ name: String) throws -> Tensor? {
            let rows = heads.compactMap { tensors[$0.path(of: name)] }
            guard let row = rows.first, rows.count == heads.count else { return nil }
            let backend = backend(module.path)
            let all = try backend.allocate(row.dtype, [rows.count, row.count])
            for (index, row) in rows.enumerated() { try backend.copy(row, to: all.rows(index..<index + 1)) }
            return all
        }
        return Norm(kind: first.kind, epsilon: first.epsilon, weight: try joined("weight"), bias: try joined("bias"))
    }
}
