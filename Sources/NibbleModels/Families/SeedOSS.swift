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

/// ERNIE 4.5, dense: Llama with rotation of neighbouring pairs.
///
///     nibble generate baidu/ERNIE-4.5-0.3B-PT --load-in-4bit --quant-type nf4 "The capital of France is"
enum Ernie45 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 2, "head_dim": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
            "max_position_embeddings": 131_072,
        ])
        var model = try LlamaLike(config, "Ernie4_5", rotary: .init(defaultTheta: 500_000, isInterleaved: true))
        let bias = try config.bool("use_bias", default: false)
        (model.queryKeyValueBias, model.outputBias, model.feedForwardBias) = (bias, bias, bias)
        return try model.architecture()
    }
}

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

/// Helium 1: Llama with rotation of neighbouring pairs.
///
///     nibble generate kyutai/helium-1-2b --load-in-4bit --quant-type nf4 "The capital of France is"
enum Helium {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 20, "head_dim": 128, "rms_norm_eps": 1e-8, "max_position_embeddings": 4096,
        ])
        var model = try LlamaLike(config, "Helium", rotary: .init(defaultTheta: 100_000, isInterleaved: true))
        try model.readBiases(feedForward: true)
        model.outputBias = false
        return try model.architecture()
    }
}

/// Code World Model: Llama 3 with windows in three layers of four.
///
///     nibble generate facebook/cwm --load-in-4bit --quant-type nf4 "def fibonacci(n):"
enum CWM {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-5, "sliding_window": 8192,
            "max_position_embeddings": 131_072,
            "rope_parameters": [
                "rope_type": "llama3", "rope_theta": 1_000_000.0, "factor": 16.0, "high_freq_factor": 4.0,
                "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
            ],
        ])
        var model = try LlamaLike(config, "Cwm", rotary: .init(defaultTheta: 1_000_000))
        model.feedForwardBias = try config.bool("mlp_bias", default: false)
        try model.slideByTypes { $0 % 4 != 0 }
        return try model.architecture()
    }
}
