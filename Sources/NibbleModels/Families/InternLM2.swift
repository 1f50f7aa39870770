import NibbleCore

/// InternLM2 and 2.5 (arXiv 2403.17297): Llama with one fused projection, in which each key/value head follows its queries.
///
///     nibble generate internlm/internlm2_5-7b-chat --load-in-4bit --quant-type nf4 "The capital of France is"
enum InternLM2 {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let config = config.filled(["max_position_embeddings": 2048])
        var model = try LlamaLike(config, "InternLM2")
        let bias = try config.bool("bias", default: true)
        let (heads, keyValueHeads, headSize) = (model.heads, model.keyValueHeads, model.headSize)
        let attention = module("self_attn", "InternLM2Attention", role: .selfAttention) {
            linear("qkv_proj", (heads + 2 * keyValueHeads) * headSize, model.width, bias: bias, role: .queryKeyValue)
            linear("o_proj", model.width, heads * headSize, bias: bias, role: .attentionOutput)
        }
        model.forEachBlock {
            $0.attention.layout = .grouped(heads: heads, keyValueHeads: keyValueHeads, headSize: headSize)
        }
        model.keys = CheckpointKeys(
            basePrefix: "model",
            pairs: [
                ("model.tok_embeddings.", "model.embed_tokens."), (".attention.wqkv.", ".self_attn.qkv_proj."),
                (".attention.wo.", ".self_attn.o_proj."), (".feed_forward.w1.", ".mlp.gate_proj."),
                (".feed_forward.w3.", ".mlp.up_proj."), (".feed_forward.w2.", ".mlp.down_proj."),
                (".attention_norm.", ".input_layernorm."), (".ffn_norm.", ".post_attention_layernorm."),
                ("output.weight", "lm_head.weight"),
            ])
        return try model.architecture(attention: attention)
    }
}
