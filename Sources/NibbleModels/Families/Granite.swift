import NibbleCore

/// Granite 3 (arXiv 2405.04324 and later): Llama with four multipliers, on embeddings, scores, residuals and logits.
///
///     nibble generate ibm-granite/granite-3.1-2b-base --load-in-4bit --quant-type nf4 "def fibonacci(n):"
enum Granite {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try LlamaLike(config.filled(["max_position_embeddings": 2048]), "Granite")
        try model.readBiases(feedForward: true)
        try model.multiply()
        return try model.architecture()
    }
}

/// Granite 3 MoE: Granite with a mixture of experts; the shared variety has one that sees every token.
///
///     nibble generate ibm-granite/granite-3.1-3b-a800m-instruct --load-in-4bit --quant-type nf4 "def fibonacci(n):"
enum GraniteMoE {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        try architecture(config, "GraniteMoe", sharedWidth: 0)
    }

    static func sharedArchitecture(_ config: ConfigReader) throws -> ModelArchitecture {
        try architecture(config, "GraniteMoeShared", sharedWidth: config.int("shared_intermediate_size", default: 0))
    }

    private static func architecture(
        _ config: ConfigReader, _ prefix: String, sharedWidth: Int
    ) throws -> ModelArchitecture {
        var model = try LlamaLike(config.filled(["max_position_embeddings": 2048]), prefix)
        try model.readBiases()
        try model.multiply()
        let mixture = try model.graniteMixture(
            count: config.headCount("num_local_experts", default: 8), hasShared: sharedWidth > 0)
        let shared = sharedWidth > 0 ? [model.graniteShared(width: sharedWidth, role: .sharedExpert)] : []
        model.afterAttention = { [model] in model.blockEnd + [mixture] + shared }
        return try model.architecture()
    }
}

/// Granite 4: Mamba 2, with attention in some layers or in all; a fused feed-forward and, in some models, a mixture beside it.
/// Positions are optional.
///
///     nibble generate ibm-granite/granite-4.0-micro --load-in-4bit --quant-type nf4 "def fibonacci(n):"
enum GraniteMoEHybrid {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let hasPositions = try config.optionalString("position_embedding_type") == "rope"
        var model = try LlamaLike(
            config.filled(["max_position_embeddings": 2048]), "GraniteMoeHybrid", rotary: hasPositions ? .init() : nil)
        let types = try config.aliasing(["layer_types": "layers_block_type"]).layerTypes(
            model.layers, known: ["mamba", "linear_attention", "attention", "full_attention"]
        ) { _ in "mamba" }
        let isMamba = types.map { $0 == "mamba" || $0 == "linear_attention" }
        if isMamba.contains(true) { try model.mixStateSpaces(where: isMamba, className: "MambaLayer") }
        try model.readBiases()
        try model.multiply()
        if !hasPositions { model.removeRotary { _ in true } }
        let count = try config.int("num_local_experts", default: 8)
        let mixture =
            try count > 0 ? [model.graniteMixture(count: config.headCount("num_local_experts", default: 8), hasShared: true)] : []
        let shared = model.graniteShared(
            width: try config.size("shared_intermediate_size", default: 1024), role: count > 0 ? .sharedExpert : .feedForward)
        model.attentionIsLast = true
        model.afterAttention = { [model] in model.blockEnd + mixture + [shared] }
        return try model.architecture()
    }
}

extension LlamaLike {
    /// Reads Granite's multipliers.
    /// - Parameter attention: the scale of scores, where it is not `attention_multiplier`.
    mutating func multiply(attention: Float? = nil) throws {
        let divisor = try config.float("logits_scaling", default: 1)
        try config.require(divisor != 0, "logits_scaling", "another number than zero")
        let attentionScale = try attention ?? config.float("attention_multiplier", default: 1)
        let residualScale = try config.float("residual_multiplier", default: 1)
        embeddingScale = try config.float("embedding_multiplier", default: 1)
        head.scale = 1 / divisor
        forEachBlock {
            $0.attention.scale = attentionScale
            $0.residualScale = residualScale
        }
    }

    /// The router and experts of every block, which files hold under names of their own.
    fileprivate mutating func graniteMixture(count: Int, hasShared: Bool) throws -> ModuleNode {
        var description = ExpertsDescription(
            count: count, topK: try config.headCount("num_experts_per_tok", default: 2), normalizesWeights: true,
            activation: activation.function, width: inner)
        description.shared = hasShared ? .plain : .none
        try config.require(description.topK <= count, "num_experts_per_tok", "at most the \(count) experts")
        forEachBlock { $0.feedForward = .experts(description) }
        keys = CheckpointKeys(
            basePrefix: "model",
            pairs: [
                (".block_sparse_moe.input_linear.weight", ".block_sparse_moe.experts.gate_up_proj"),
                (".block_sparse_moe.output_linear.weight", ".block_sparse_moe.experts.down_proj"),
                (".block_sparse_moe.router.layer.", ".block_sparse_moe.router."),
            ])
        return module("block_sparse_moe", "\(prefix)MoE") {
            router("router", description)
            experts(description)
        }
    }

    fileprivate func graniteShared(width inner: Int, role: Role) -> ModuleNode {
        module("shared_mlp", "\(prefix)MLP", role: role) {
            plain("activation", activation.className)
            linear("input_linear", 2 * inner, width, role: .gateUp)
            linear("output_linear", width, inner, role: .down)
        }
    }
}
