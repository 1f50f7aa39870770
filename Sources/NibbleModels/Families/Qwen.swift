import NibbleCore

/// Qwen2 and Qwen2.5 (arXiv 2407.10671, 2412.15115): Llama with biases on queries, keys and values.
///
///     nibble generate Qwen/Qwen2.5-0.5B --load-in-4bit --quant-type nf4 "The capital of France is"
enum Qwen2 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try LlamaLike(
            config.filled(["num_key_value_heads": 32, "sliding_window": 4096, "max_position_embeddings": 32768]), "Qwen2")
        model.queryKeyValueBias = true
        try model.slideByLayerTypes()
        return try model.architecture()
    }

    /// Qwen1.5-MoE and Qwen2-MoE: mixtures of small experts beside one that sees every token.
    static func mixtureArchitecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 16, "sliding_window": 4096, "max_position_embeddings": 32768, "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
        ])
        var model = try LlamaLike(config, "Qwen2Moe")
        model.queryKeyValueBias = try config.bool("qkv_bias", default: true)
        try model.slideByLayerTypes { layer, limit in layer % 2 == 0 && layer < limit }
        let shared = try config.size("shared_expert_intermediate_size")
        try model.addQwenMixtures(
            count: 60,
            shared: [
                model.gated("shared_expert", inner: shared, role: .sharedExpert),
                linear("shared_expert_gate", 1, model.width, role: .sharedExpertGate),
            ])
        return try model.architecture()
    }
}

/// Qwen3 (arXiv 2505.09388): RMS norms on every head's query and key in place of biases.
///
///     nibble generate Qwen/Qwen3-0.6B --load-in-4bit --quant-type nf4 "The capital of France is"
enum Qwen3 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096, "max_position_embeddings": 32768,
        ])
        var model = try LlamaLike(config, "Qwen3")
        try model.normalizeHeads()
        try model.slideByLayerTypes()
        return try model.architecture()
    }

    static func mixtureArchitecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 4, "sliding_window": 4096, "max_position_embeddings": 32768, "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        ])
        var model = try LlamaLike(config, "Qwen3Moe")
        try model.normalizeHeads()
        if try config.bool("use_sliding_window", default: false) { try model.slide() }
        try model.addQwenMixtures(count: 128, routerFirst: false)
        return try model.architecture()
    }
}

extension LlamaLike {
    fileprivate mutating func normalizeHeads() throws {
        try readBiases()
        normalizeHeads("q_norm", "k_norm")
    }

    /// Mixtures in every `decoder_sparse_step`-th layer that `mlp_only_layers` does not name.
    mutating func addQwenMixtures(count: Int, shared: [ModuleNode] = [], routerFirst: Bool = true) throws {
        var experts = ExpertsDescription(
            count: try config.headCount("num_experts", "num_local_experts", default: count),
            topK: try config.headCount("num_experts_per_tok"),
            normalizesWeights: try config.bool("norm_topk_prob", default: false), activation: activation.function,
            width: try config.size("moe_intermediate_size"))
        if !shared.isEmpty { experts.shared = .gated }
        try config.require(experts.topK <= experts.count, "num_experts_per_tok", "at most the \(experts.count) experts")
        let step = try config.size("decoder_sparse_step", default: 1)
        let dense = Set(try config.doubles("mlp_only_layers") ?? [])
        let isSparse = (0..<layers).map { !dense.contains(Double($0)) && ($0 + 1) % step == 0 }
        let (gated, mixture) = (gated(), mixture(experts, shared: shared, routerFirst: routerFirst))
        feedForward = { isSparse[$0] ? mixture : gated }
        for layer in blocks.indices where isSparse[layer] { blocks[layer].feedForward = .experts(experts) }
    }
}
