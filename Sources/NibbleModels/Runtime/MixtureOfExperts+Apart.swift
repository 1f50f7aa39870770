import NibbleCore

extension MixtureOfExperts {
    /// The norms of a mixture beside a dense feed-forward, each with an input norm of its own (Gemma 4).
    struct Norms: Sendable {
        /// With the router's `scale` × E^−½ as its weight.
        let router: Norm
        let experts: Norm
        let expertsOutput: Norm
        let sharedOutput: Norm
        /// float32 [X]: factors on the weights of single experts.
        let expertScale: Tensor

        init(_ module: LocatedModule, _ weights: ModelWeights) throws {
            func norm(_ role: Role) throws -> Norm {
                guard let norm = try weights.norm(module.first(role)) else {
                    throw ModelError.missingWeight("norm", module: module.path)
                }
                return norm
            }
            guard let scales = module.first(.routerScales), let scale = weights.tensors[scales.path(of: "scale")],
                let expertScale = weights.tensors[scales.path(of: "per_expert_scale")]
            else { throw ModelError.missingWeight("scale", module: module.path) }
            var router = try norm(.routerNorm)
            router.weight = try scale.scaled(by: 1 / Float(scale.count).squareRoot(), on: weights.backend(scales.path))
            self.router = router
            self.expertScale = expertScale
            experts = try norm(.expertsNorm)
            expertsOutput = try norm(.expertsOutputNorm)
            sharedOutput = try norm(.sharedExpertOutputNorm)
        }
    }

    /// output = norm(shared(input)) + norm(experts(norm(stream))), where the router reads another norm of the stream.
    /// - Parameter input: the residual stream, with the norm that the shared expert reads.
    func runApart(
        _ norms: Norms, _ input: LinearInput, into output: Tensor, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws {
        guard let shared else { preconditionFailure("a mixture beside no dense feed-forward") }
        let (stream, scratch) = (input.tensor, buffers.normed(input.tokens))
        try run(shared, input, epilogue: .init(adapters: buffers.adapters), into: output, buffers, backend)
        try backend.normalize(output, norms.sharedOutput, residual: nil, into: output)
        let routing = LinearInput(stream, after: norms.router, scratch: scratch)
        _ = try route(routing, buffers, backend)
        try backend.activations(stream, after: norms.experts, into: scratch)
        // Attention is done with its projections.
        let sum = buffers.projections(input.tokens, width: output.shape[1])
        try runChosen(scratch, residual: nil, into: sum, buffers, backend)
        try backend.normalize(sum, norms.expertsOutput, residual: output, into: output)
    }
}

extension Tensor {
    /// A float32 tensor of this one's elements × `factor`, on the same backend.
    fileprivate func scaled(by factor: Float, on backend: any Backend) throws -> Tensor {
        let host = Tensor.host(.float32, shape)
        try backend.read(self, into: host.mutableHostBytes)
        let scaled = try backend.allocate(.float32, shape)
        try backend.copy(.host(host.hostElements(Float.self).map { $0 * factor }, .float32, shape), to: scaled)
        return scaled
    }
}
