import NibbleCore

/// OLMo 2 (arXiv 2501.00656): norms on what a sublayer gives instead of what it gets, and on all of a token's queries and
/// keys together.
///
///     nibble generate allenai/OLMo-2-0425-1B --load-in-4bit --quant-type nf4 "The capital of France is"
enum OLMo2 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["rms_norm_eps": 1e-5, "max_position_embeddings": 2048])
        var model = try LlamaLike(config, "Olmo2")
        try model.readBiases()
        let epsilon = try config.float("rms_norm_eps", default: 1e-5)
        func norm(_ name: String, _ heads: Int, _ role: Role) -> ModuleNode {
            rmsNorm(name, heads * model.headSize, epsilon, role: role, className: "Olmo2RMSNorm")
        }
        model.attentionEnd = [norm("q_norm", model.heads, .queryNorm), norm("k_norm", model.keyValueHeads, .keyNorm)]
        model.blockEnd = [
            model.norm("post_attention_layernorm", .attentionOutputNorm),
            model.norm("post_feedforward_layernorm", .feedForwardOutputNorm),
        ]
        model.forEachBlock { $0.attention.normScope = .token }
        return try model.architecture()
    }
}
