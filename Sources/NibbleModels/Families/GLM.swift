import NibbleCore

/// GLM-4 9B (arXiv 2406.12793): a fused gate and up projection, neighbouring pairs of half of every head rotated, biases on
/// queries, keys and values.
///
///     nibble generate THUDM/glm-4-9b-chat-hf --load-in-4bit --quant-type nf4 "The capital of France is"
enum GLM {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        try model(config, "Glm").architecture()
    }

    static func model(_ config: ConfigReader, _ prefix: String) throws -> LlamaLike {
        let config = config.filled([
            "num_key_value_heads": 2, "head_dim": 128, "rms_norm_eps": 1.5625e-7, "max_position_embeddings": 131_072,
        ])
        var model = try LlamaLike(config, prefix, rotary: .init(defaultShare: 0.5, isInterleaved: true))
        model.queryKeyValueBias = try config.bool("attention_bias", default: true)
        model.feedForward = { [model] _ in model.gatedFused("mlp", "\(prefix)MLP") }
        return model
    }
}

/// GLM-4-0414 and GLM-Z1: GLM-4 with norms on what a sublayer gives as well.
///
///     nibble generate THUDM/GLM-4-9B-0414 --load-in-4bit --quant-type nf4 "The capital of France is"
enum GLM4 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try GLM.model(config, "Glm4")
        model.blockEnd += [
            model.norm("post_self_attn_layernorm", .attentionOutputNorm),
            model.norm("post_mlp_layernorm", .feedForwardOutputNorm),
        ]
        return try model.architecture()
    }
}
