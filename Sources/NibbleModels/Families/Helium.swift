import NibbleCore

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
