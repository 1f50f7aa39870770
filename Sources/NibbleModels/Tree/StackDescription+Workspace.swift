import NibbleCore

extension StackDescription {
    /// The widths that running this stack's blocks takes, told from shapes alone.
    public func workspaceSizes(_ tree: ModuleTree) -> WorkspaceSizes {
        var sizes = WorkspaceSizes(width: width)
        guard let stack = tree.module(at: path) else { return sizes }
        for block in stack.all(.block) { sizes = sizes.widened(block.workspaceSizes(width: width)) }
        if let projectIn = stack.first(.projectIn) { sizes.projections = max(sizes.projections, projectIn.inFeatures) }
        if let projectOut = stack.first(.projectOut) { sizes.projections = max(sizes.projections, projectOut.outFeatures) }
        return sizes
    }
}

extension LocatedModule {
    /// Of a linear module: N, or 0 for any other.
    var outFeatures: Int { matrix.map { isTransposed ? $0[1] : $0[0] } ?? 0 }
    /// Of a linear module: K, or 0 for any other.
    var inFeatures: Int { matrix.map { isTransposed ? $0[0] : $0[1] } ?? 0 }

    private var matrix: Shape? { node.parameters.first { $0.shape.rank == 2 }?.shape }
    private var isTransposed: Bool { if case .transposedLinear = node.kind { true } else { false } }

    private func width(_ roles: Role...) -> Int { roles.reduce(0) { $0 + (first($1)?.outFeatures ?? 0) } }

    fileprivate func workspaceSizes(width: Int) -> WorkspaceSizes {
        var sizes = WorkspaceSizes(width: width)
        for attention in [first(.selfAttention), first(.crossAttention)].compactMap({ $0 }) {
            sizes.projections = max(sizes.projections, attention.width(.queryKeyValue, .query, .key, .value))
            sizes.attended = max(sizes.attended, attention.first(.attentionOutput)?.inFeatures ?? 0)
        }
        let feedForward = first(.feedForward) ?? self
        let part = feedForward.first(.sharedExpert) ?? feedForward
        sizes.inner = part.width(.gateUp, .gate, .up)
        sizes.gated = part.first(.down)?.inFeatures ?? 0
        sizes.router = feedForward.width(.router)
        return sizes
    }
}
