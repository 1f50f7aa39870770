import NibbleCore

/// HyperCLOVA X SEED Think (arXiv 2506.22403): Granite's multipliers, and norms on what a sublayer gives as well.
///
///     nibble generate naver-hyperclovax/HyperCLOVAX-SEED-Think-14B --load-in-4bit --quant-type nf4 "대한민국의 수도는"
enum HyperCLOVAX {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        var model = try LlamaLike(config.filled(["max_position_embeddings": 2048]), "HyperCLOVAX")
        try model.readBiases(feedForward: true)
        try model.multiply(attention: config.value("attention_multiplier") == nil ? model.blocks.first?.attention.scale : nil)
        // Unlike Granite, the logits are multiplied.
        model.head.scale = try config.float("logits_scaling", default: 1)
        let hasOutputNorms = try config.bool("use_post_norm", default: true)
        model.blockEnd += [("post_norm1", Role.attentionOutputNorm), ("post_norm2", .feedForwardOutputNorm)].map {
            hasOutputNorms ? model.norm($0, $1) : plain($0, "Identity")
        }
        return try model.architecture()
    }
}
