import NibbleCore

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
