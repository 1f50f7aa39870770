import NibbleCore

/// HunYuan dense (0.5B to 7B): norms on every head's query and key after their rotation, whose base a factor stretches.
///
///     nibble generate tencent/Hunyuan-1.8B-Instruct --load-in-4bit --quant-type nf4 "The capital of France is"
enum HunYuan {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["rms_norm_eps": 1e-5, "max_position_embeddings": 2048])
        let fields: Set = ["alpha", "factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"]
        var model = try LlamaLike(config, "HunYuanDenseV1", rotary: .init(hasStaticAlpha: true, familyFields: fields))
        try model.readBiases()
        model.normalizeHeads("query_layernorm", "key_layernorm")
        model.forEachBlock { $0.attention.normScope = .rotatedHead }
        return try model.architecture()
    }
}
