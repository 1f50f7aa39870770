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
}

extension LlamaLike {
    /// `attention_bias` and, where the family has it, `mlp_bias`: both false unless given.
    mutating func readBiases(feedForward: Bool = false) throws {
        queryKeyValueBias = try config.bool("attention_bias", default: false)
        outputBias = queryKeyValueBias
        if feedForward { feedForwardBias = try config.bool("mlp_bias", default: false) }
    }
}
