import NibbleCore

/// GLM-4.5, 4.6 and 4.7 (arXiv 2508.06471): a mixture with DeepSeek-V3's router, half of every head rotated. The first layers are
/// dense.
///
///     nibble generate zai-org/GLM-4.5-Air --load-in-4bit --quant-type nf4 "The capital of France is"
enum GLM4MoE {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "intermediate_size": 10944, "max_position_embeddings": 131_072,
        ])
        var model = try LlamaLike(config, "Glm4Moe", rotary: .init(defaultShare: 0.5))
        model.queryKeyValueBias = try config.bool("attention_bias", default: false)
        if try config.bool("use_qk_norm", default: false) { model.normalizeHeads("q_norm", "k_norm") }
        let dense = try config.int("first_k_dense_replace", default: 1)
        try model.mix(DeepSeekMixture(className: "Glm4MoeMoE")) { $0 >= dense }
        model.ignoreFurtherLayers()
        return try model.architecture()
    }
}

/// Solar Open (Upstage): a mixture with DeepSeek-V3's router in every layer.
///
///     nibble generate upstage/Solar-Open-100B --load-in-4bit --quant-type nf4 "대한민국의 수도는"
enum SolarOpen {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-5, "moe_intermediate_size": 1280,
            "max_position_embeddings": 131_072,
        ]).aliasing(["intermediate_size": "moe_intermediate_size"])
        var model = try LlamaLike(config, "SolarOpen", rotary: .init(defaultTheta: 1_000_000))
        model.queryKeyValueBias = try config.bool("attention_bias", default: false)
        try model.mix(DeepSeekMixture(width: 1280, className: "SolarOpenMoE")) { _ in true }
        model.ignoreFurtherLayers()
        return try model.architecture()
    }
}

/// dots.llm1 (arXiv 2506.05767): Qwen 3's attention, a mixture with DeepSeek-V3's router.
///
///     nibble generate rednote-hilab/dots.llm1.inst --load-in-4bit --quant-type nf4 "The capital of France is"
enum Dots1 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 32, "sliding_window": 4096, "intermediate_size": 10944, "max_position_embeddings": 2048,
        ])
        var model = try LlamaLike(config, "Dots1")
        try model.readBiases()
        model.normalizeHeads("q_norm", "k_norm")
        let windowed = try config.int("max_window_layers", default: 62)
        try model.slideByTypes { $0 >= windowed }
        let dense = try config.int("first_k_dense_replace", default: 0)
        try model.mix(DeepSeekMixture(normalizes: false, className: "Dots1MoE")) { $0 >= dense }
        model.ignoreFurtherLayers()
        return try model.architecture()
    }
}
