import NibbleCore

/// OLMo (arXiv 2402.00838): Llama with layer norms that have no weights.
///
///     nibble generate allenai/OLMo-1B-hf --load-in-4bit --quant-type nf4 "The capital of France is"
enum OLMo {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try LlamaLike(config.filled(["max_position_embeddings": 2048]), "Olmo")
        try model.readBiases()
        try model.clip()
        model.norm = { [width = model.width] in
            layerNorm($0, [width], 1e-5, isAffine: false, role: $1, className: "OlmoLayerNorm")
        }
        model.blockEnd = [
            model.norm("input_layernorm", .attentionNorm), model.norm("post_attention_layernorm", .feedForwardNorm),
        ]
        return try model.architecture()
    }
}

extension LlamaLike {
    /// Clamps projections to ±`clip_qkv`.
    mutating func clip() throws {
        guard let clip = try config.optionalDouble("clip_qkv") else { return }
        try config.require(clip > 0, "clip_qkv", "a positive number")
        forEachBlock { $0.attention.clip = Float(clip) }
    }
}
