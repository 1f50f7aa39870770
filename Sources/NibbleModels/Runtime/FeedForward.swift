import NibbleCore

/// The feed-forward half of a block.
enum FeedForward: Sendable {
    case plain(up: LinearGroup, Activation, down: LinearGroup)
    /// Gate and up are both multiplied by `scale`, which the result has to be divided by.
    case gated(gateUp: LinearGroup, Activation, down: LinearGroup, scale: Float)
    case experts(MixtureOfExperts)

    /// `nil` if the block has none.
    init?(
        _ module: LocatedModule, _ description: FeedForwardDescription, gateScale: Float, _ weights: ModelWeights
    ) throws {
        switch description {
        case .none: return nil
        case .plain(let activation):
            self = .plain(
                up: try weights.group(module.first(.up)), activation, down: try weights.group(module.first(.down)))
        case .gated(let activation):
            self = .gated(
                gateUp: try FeedForward.gateUp(module, weights), activation, down: try weights.group(module.first(.down)),
                scale: gateScale)
        case .experts(let description):
            self = .experts(try MixtureOfExperts(module, description, weights))
        }
    }

    static func gateUp(_ module: LocatedModule, _ weights: ModelWeights) throws -> LinearGroup {
        if let fused = module.first(.gateUp) { return try weights.group(fused) }
        return try weights.group(module.first(.gate), module.first(.up))
    }

    /// output = feedForward(input) × scale + residual. [T, E]; `output` may be `residual`, not `input`.
    func callAsFunction(
        _ input: LinearInput, epilogue: LinearEpilogue, into output: Tensor, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws {
        let tokens = input.tokens
        switch self {
        case .plain(let up, let activation, let down):
            let inner = buffers.inner(tokens, width: up.outFeatures)
            try backend.linear(input, up, epilogue: .init(activation: activation, adapters: buffers.adapters), into: inner)
            try backend.linear(inner, down, epilogue: epilogue, into: output)
        case .gated(let gateUp, let activation, let down, let scale):
            let inner = buffers.inner(tokens, width: gateUp.outFeatures)
            let gated = buffers.gated(tokens, width: down.inFeatures)
            try backend.linear(input, gateUp, epilogue: .init(scale: scale, adapters: buffers.adapters), into: inner)
            try backend.linear(
                inner, gatedBy: .product(activation), scratch: gated, down, epilogue: epilogue, into: output)
        case .experts(let mixture):
            if let norms = mixture.norms {
                try mixture.runApart(norms, input, into: output, buffers, backend)
            } else {
                try mixture(input, epilogue: epilogue, into: output, buffers, backend)
            }
        }
    }
}

/// A sparse mixture of experts, with a shared expert where there is one.
struct MixtureOfExperts: Sendable {
    let description: ExpertsDescription
    let router: LinearGroup
    let experts: ExpertSet
    let rule: RouterRule
    let shared: Shared?
    /// See ``ExpertsDescription/latent``.
    let latent: Latent?
    /// See ``ExpertsDescription/SharedExpert/apart``.
    let norms: Norms?

    /// An expert that sees every token, scaled by σ(gate · x) where it has a gate.
    struct Shared: Sendable {
        /// Up alone where the mixture has no gates.
        let gateUp: LinearGroup
        let down: LinearGroup
        let gate: LinearGroup?
    }

    /// Projections [L, E] and [E, L] around the routed experts.
    struct Latent: Sendable {
        let input: LinearGroup
        let output: LinearGroup
    }

    init(_ module: LocatedModule, _ description: ExpertsDescription, _ weights: ModelWeights) throws {
        self.description = description
        router = try weights.group(module.first(.router))
        guard let located = module.first(.experts), let experts = weights.experts[located.path] else {
            throw ModelError.missingWeight("experts", module: module.path)
        }
        self.experts = ExpertSet(experts)
        let bias = try description.router.choiceBias.map { name in
            guard let tensor = weights.tensors[module.path(of: name)] else {
                throw ModelError.missingWeight(name, module: module.path)
            }
            return tensor.viewed(as: [tensor.count])
        }
        norms = description.shared == .apart ? try Norms(module, weights) : nil
        rule = description.router.rule(choiceBias: bias, expertScale: norms?.expertScale)
        latent = try description.latent.map { _ in
            Latent(
                input: try weights.group(module.first(.latentInput)), output: try weights.group(module.first(.latentOutput)))
        }
        if description.shared != .none, let expert = module.first(.sharedExpert) {
            let gateUp =
                switch description.activation {
                case .gated: try FeedForward.gateUp(expert, weights)
                case .plain: try weights.group(expert.first(.up))
                }
            shared = Shared(
                gateUp: gateUp, down: try weights.group(expert.first(.down)),
                gate: description.shared == .gated ? try weights.group(module.first(.sharedExpertGate)) : nil)
        } else {
            shared = nil
        }
    }

    /// output = mixture(input) × scale + residual, of an epilogue's scale and residual. [T, E]
    func callAsFunction(
        _ input: LinearInput, epilogue: LinearEpilogue, into output: Tensor, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws {
        guard epilogue.scale != 1 else {
            return try run(input, residual: epilogue.residual, into: output, buffers, backend)
        }
        // Attention is done with its projections when the feed-forward runs.
        let sum = buffers.projections(input.tokens, width: output.shape[1])
        try run(input, residual: nil, into: sum, buffers, backend)
        // Without a residual: sum + sum × (scale − 1).
        let (base, factor) = epilogue.residual.map { ($0, epilogue.scale) } ?? (sum, epilogue.scale - 1)
        try backend.add(base, sum, scale: factor, into: output)
    }

    private func run(
        _ input: LinearInput, residual: Tensor?, into output: Tensor, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws {
        let tokens = input.tokens
        let input = try route(input, buffers, backend)
        if let latent {
            try run(latent, input, residual: residual, into: output, buffers, backend)
        } else {
            try runChosen(input, residual: residual, into: output, buffers, backend)
        }
        guard let shared else { return }
        var weight: Tensor?
        if let gate = shared.gate {
            let scores = buffers.router(tokens, width: 1)
            try backend.linear(input, gate, epilogue: .init(activation: .sigmoid, adapters: buffers.adapters), into: scores)
            weight = scores.viewed(as: Shape(tokens))
        }
        try run(
            shared, LinearInput(input),
            epilogue: .init(
                scale: description.sharedScale, rowScale: weight, residual: output, adapters: buffers.adapters), into: output,
            buffers, backend)
    }

    /// Leaves the experts of each token and their weights in the buffers. Returns the activations of `input`.
    func route(
        _ input: LinearInput, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws -> Tensor {
        let logits = buffers.router(input.tokens, width: router.outFeatures)
        let (ids, weights) = buffers.chosenExperts(input.tokens, count: description.topK)
        return try backend.route(
            input, through: router, adapters: buffers.adapters,
            RouteCall(logits: logits, rule: rule, topK: description.topK), ids: ids, weights: weights)
    }

    /// Runs the experts that ``route(_:_:_:)`` chose.
    func runChosen(
        _ input: Tensor, residual: Tensor?, into output: Tensor, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws {
        let (ids, weights) = buffers.chosenExperts(input.shape[0], count: description.topK)
        try backend.experts(
            input,
            ExpertsCall(
                ids: ids, weights: weights, experts: experts, activation: description.activation, residual: residual,
                adapters: buffers.adapters),
            into: output)
    }

    func run(
        _ shared: Shared, _ input: LinearInput, epilogue: LinearEpilogue, into output: Tensor, _ buffers: ActivationBuffers,
        _ backend: any Backend
    ) throws {
        let hidden = buffers.gated(input.tokens, width: shared.down.inFeatures)
        switch description.activation {
        case .gated(let activation):
            let inner = buffers.inner(input.tokens, width: shared.gateUp.outFeatures)
            try backend.linear(input, shared.gateUp, epilogue: .init(adapters: buffers.adapters), into: inner)
            try backend.gate(inner, activation, into: hidden)
        case .plain(let activation):
            try backend.linear(
                input, shared.gateUp, epilogue: .init(activation: activation, adapters: buffers.adapters), into: hidden)
        }
        try backend.linear(hidden, shared.down, epilogue: epilogue, into: output)
    }

    /// The chosen experts between their projections.
    private func run(
        _ latent: Latent, _ input: Tensor, residual: Tensor?, into output: Tensor, _ buffers: ActivationBuffers,
        _ backend: any Backend
    ) throws {
        let tokens = input.shape[0]
        let before = buffers.gated(tokens, width: latent.input.outFeatures)
        let sum = buffers.inner(tokens, width: latent.input.outFeatures)
        try backend.linear(input, latent.input, epilogue: .init(adapters: buffers.adapters), into: before)
        try runChosen(before, residual: nil, into: sum, buffers, backend)
        try backend.linear(sum, latent.output, epilogue: .init(residual: residual, adapters: buffers.adapters), into: output)
    }
}
