import NibbleCore

/// The feed-forward half of a block.
enum FeedForward: Sendable {
    case plain(up: LinearGroup, Activation, down: LinearGroup)
    case gated(gateUp: LinearGroup, Activation, down: LinearGroup)
    case experts(MixtureOfExperts)

    init(_ module: LocatedModule, _ description: FeedForwardDescription, _ weights: ModelWeights) throws {
        switch description {
        case .plain(let activation):
            self = .plain(
                up: try weights.group(module.first(.up)), activation, down: try weights.group(module.first(.down)))
        case .gated(let activation):
            self = .gated(
                gateUp: try FeedForward.gateUp(module, weights), activation, down: try weights.group(module.first(.down)))
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
            try backend.linear(input, up, epilogue: .init(activation: activation), into: inner)
            try backend.linear(inner, down, epilogue: epilogue, into: output)
        case .gated(let gateUp, let activation, let down):
            let inner = buffers.inner(tokens, width: gateUp.outFeatures)
            let gated = buffers.gated(tokens, width: down.inFeatures)
            try backend.linear(input, gateUp, epilogue: .init(), into: inner)
            try backend.gate(inner, activation, into: gated)
            try backend.linear(gated, down, epilogue: epilogue, into: output)
        case .experts(let mixture):
            try mixture(try input.materialized(backend), epilogue: epilogue, into: output, buffers, backend)
        }
    }
}

/// A sparse mixture of experts, with a shared expert where there is one.
struct MixtureOfExperts: Sendable {
    let description: ExpertsDescription
    let router: LinearGroup
    let experts: [Expert]
    let shared: Shared?

    /// An expert that sees every token, scaled by σ(gate · x) where it has a gate.
    struct Shared: Sendable {
        let gateUp: LinearGroup
        let down: LinearGroup
        let gate: LinearGroup?
    }

    init(_ module: LocatedModule, _ description: ExpertsDescription, _ weights: ModelWeights) throws {
        self.description = description
        router = try weights.group(module.first(.router))
        guard let located = module.first(.experts), let experts = weights.experts[located.path] else {
            throw ModelError.missingWeight("experts", module: module.path)
        }
        self.experts = experts
        if description.shared != .none, let expert = module.first(.sharedExpert) {
            shared = Shared(
                gateUp: try FeedForward.gateUp(expert, weights), down: try weights.group(expert.first(.down)),
                gate: description.shared == .gated ? try weights.group(module.first(.sharedExpertGate)) : nil)
        } else {
            shared = nil
        }
    }

    /// output = mixture(input) × scale + residual, of an epilogue's scale and residual. [T, E]
    func callAsFunction(
        _ input: Tensor, epilogue: LinearEpilogue, into output: Tensor, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws {
        guard epilogue.scale != 1 else {
            return try run(input, residual: epilogue.residual, into: output, buffers, backend)
        }
        // Attention is done with its projections when the feed-forward runs.
        let sum = buffers.projections(input.shape[0], width: output.shape[1])
        try run(input, residual: nil, into: sum, buffers, backend)
        // Without a residual: sum + sum × (scale − 1).
        let (base, factor) = epilogue.residual.map { ($0, epilogue.scale) } ?? (sum, epilogue.scale - 1)
        try backend.add(base, sum, scale: factor, into: output)
    }

    private func run(
        _ input: Tensor, residual: Tensor?, into output: Tensor, _ buffers: ActivationBuffers, _ backend: any Backend
    ) throws {
        let tokens = input.shape[0]
        let logits = buffers.router(tokens, width: router.outFeatures)
        try backend.linear(input, router, epilogue: .init(), into: logits)
        try backend.experts(
            input,
            ExpertsCall(
                routerLogits: logits, experts: experts, topK: description.topK,
                normalizesWeights: description.normalizesWeights, activation: description.activation, residual: residual),
            into: output)
        guard let shared else { return }
        var weight: Tensor?
        if let gate = shared.gate {
            let scores = buffers.router(tokens, width: 1)
            try backend.linear(input, gate, epilogue: .init(activation: .sigmoid), into: scores)
            weight = scores.viewed(as: Shape(tokens))
        }
        let inner = buffers.inner(tokens, width: shared.gateUp.outFeatures)
        let gated = buffers.gated(tokens, width: shared.down.inFeatures)
        try backend.linear(input, shared.gateUp, epilogue: .init(), into: inner)
        try backend.gate(inner, description.activation, into: gated)
        try backend.linear(gated, shared.down, epilogue: .init(rowScale: weight, residual: output), into: output)
    }
}
