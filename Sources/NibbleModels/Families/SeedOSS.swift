import NibbleCore

/// Seed-OSS: Llama with biases on queries, keys and values.
///
///     nibble generate ByteDance-Seed/Seed-OSS-36B-Instruct --load-in-4bit --quant-type nf4 "The capital of France is"
enum SeedOSS {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 524_288])
        var model = try LlamaLike(config, "SeedOss")
        model.queryKeyValueBias = try config.bool("attention_bias", default: true)
        model.outputBias = try config.bool("attention_out_bias", default: false)
        model.feedForwardBias = try config.bool("mlp_bias", default: false)
        return try model.architecture()
    }
}
