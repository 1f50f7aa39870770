import NibbleCore

/// Granite 3 (arXiv 2405.04324 and later): Llama with four multipliers, on embeddings, scores, residuals and logits.
///
///     nibble generate ibm-granite/granite-3.1-2b-base --load-in-4bit --quant-type nf4 "def fibonacci(n):"
enum Granite {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try LlamaLike(config.filled(["max_position_embeddings": 2048]), "Granite")
        try model.readBiases(feedForward: true)
        let divisor = try config.float("logits_scaling", default: 1)
        try config.require(divisor != 0, "logits_scaling", "another number than zero")
        let attentionScale = try config.float("attention_multiplier", default: 1)
        let residualScale = try config.float("residual_multiplier", default: 1)
        model.embeddingScale = try config.float("embedding_multiplier", default: 1)
        model.head.scale = 1 / divisor
        model.forEachBlock {
            $0.attention.scale = attentionScale
            $0.residualScale = residualScale
        }
        return try model.architecture()
    }
}
