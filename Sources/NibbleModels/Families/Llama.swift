import NibbleCore

/// Llama 1 to 3 (arXiv 2302.13971, 2407.21783): RMS norms, rotary positions, grouped heads, a gated feed-forward.
///
///     nibble generate meta-llama/Llama-3.2-1B --load-in-4bit --quant-type nf4 "The capital of France is"
enum Llama {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try LlamaLike(config.filled(["max_position_embeddings": 2048]), "Llama")
        try model.readBiases(feedForward: true)
        return try model.architecture()
    }

    /// InternLM3, whose config has names of its own for the biases.
    ///
    ///     nibble generate internlm/internlm3-8b-instruct --load-in-4bit --quant-type nf4 "中国的首都是"
    static func internLM3Architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var config = config.filled([
            "num_key_value_heads": 2, "head_dim": 128, "rms_norm_eps": 1e-5, "max_position_embeddings": 32768,
        ])
        for (name, field) in [("qkv_bias", "attention_bias"), ("bias", "mlp_bias")] {
            config = config.filled([field: .bool(try config.bool(name, default: false))])
        }
        let (bias, feedForwardBias) = (
            try config.bool("attention_bias", default: false), try config.bool("mlp_bias", default: false)
        )
        try config.require(bias == feedForwardBias, "qkv_bias", "the same as bias")
        return try architecture(config)
    }

    /// IQuest-Coder-V1.
    ///
    ///     nibble generate IQuestLab/IQuest-Coder-V1-40B-Instruct --load-in-4bit --quant-type nf4 "def fibonacci(n):"
    static func iquestCoderArchitecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled([
            "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-5, "max_position_embeddings": 131_072,
        ])
        let clips = config.values["clip_qkv"].map { !$0.isNull } ?? false
        try config.require(!clips, "clip_qkv", "nothing")
        try config.require(!config.bool("use_sliding_window", default: false), "use_sliding_window", "false")
        return try architecture(config)
    }
}

extension LlamaLike {
    /// `attention_bias` and, where the family has it, `mlp_bias`: both false unless given.
    mutating func readBiases(feedForward: Bool = false) throws {
        queryKeyValueBias = try config.bool("attention_bias", default: false)
        outputBias = queryKeyValueBias
        if feedForward { feedForwardBias = try config.bool("mlp_bias", default: false) }
    }
}
