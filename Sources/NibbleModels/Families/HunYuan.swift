import NibbleCore

/// HunYuan dense (0.5B to 7B): norms on every head's query and key after their rotation, whose base a factor stretches.
///
///     nibble generate tencent/Hunyuan-1.8B-Instruct --load-in-4bit --quant-type nf4 "The capital of France is"
enum HunYuan {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        try model(config, "HunYuanDenseV1").architecture()
    }

    static func model(_ config: ConfigReader, _ prefix: String) throws -> LlamaLike {
        let config = config.filled(["rms_norm_eps": 1e-5, "max_position_embeddings": 2048])
        let fields: Set = ["alpha", "factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"]
        var model = try LlamaLike(config, prefix, rotary: .init(hasStaticAlpha: true, familyFields: fields))
        try model.readBiases()
        model.normalizeHeads("query_layernorm", "key_layernorm")
        model.forEachBlock { $0.attention.normScope = .rotatedHead }
        return model
    }
}

/// HunYuan MoE (Hunyuan-A13B): the dense model's attention, and a mixture beside an expert that sees every token.
///
///     nibble generate tencent/Hunyuan-A13B-Instruct --load-in-4bit --quant-type nf4 "The capital of France is"
enum HunYuanMoE {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try HunYuan.model(config, "HunYuanMoEV1")
        let count = try uniform("num_experts", config, default: 1)
        let topK = try uniform("moe_topk", config, default: 1)
        try config.require(topK <= count, "moe_topk", "at most the \(count) experts")
        var experts = ExpertsDescription(
            count: count, topK: topK, normalizesWeights: true, activation: model.activation.function, width: model.inner)
        experts.shared = .plain
        let mixture = module("mlp", "HunYuanMoEV1Moe", role: .feedForward) {
            module("gate", "HunYuanMoEV1Gate") { linear("wg", count, model.width, role: .router) }
            model.experts(experts)
            model.gated("shared_mlp", role: .sharedExpert)
        }
        model.mix(experts, mixture) { _ in true }
        return try model.architecture()
    }

    /// A number, or a list of one for each layer, which must be equal.
    private static func uniform(_ key: String, _ config: ConfigReader, default fallback: Int) throws -> Int {
        guard let list = config.value(key)?.array else { return try config.headCount(key, default: fallback) }
        try config.require(Set(list.map { $0.int }).count == 1, key, "the same number for each layer")
        return try config.replacing(key, list[0]).headCount(key)
    }
}
