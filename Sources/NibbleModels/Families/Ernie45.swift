import NibbleCore

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
