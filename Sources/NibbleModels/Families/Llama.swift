import NibbleCore

/// Llama 1 to 3 (arXiv 2302.13971, 2407.21783) and all that share its block: RMS norms, rotary positions, grouped heads,
/// a gated feed-forward.
///
///     nibble generate meta-llama/Llama-3.2-1B --load-in-4bit --quant-type nf4 "The capital of France is"
enum Llama {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let width = try config.size("hidden_size")
        let layers = try config.int("num_hidden_layers")
        let heads = try config.size("num_attention_heads")
        let keyValueHeads = try config.size("num_key_value_heads", default: heads)
        let headSize = try config.optionalInt("head_dim") ?? config.headSize(width: width, heads: heads)
        let inner = try config.size("intermediate_size")
        let vocabulary = try config.size("vocab_size")
        let epsilon = try config.float("rms_norm_eps", default: 1e-6)
        let attentionBias = try config.bool("attention_bias", default: false)
        let feedForwardBias = try config.bool("mlp_bias", default: false)
        let rotary = try config.rotary(headSize: headSize)
        try config.require(heads % keyValueHeads == 0, "num_key_value_heads", "a divisor of the \(heads) heads")

        let root = module("", "LlamaForCausalLM") {
            module("model", "LlamaModel") {
                embedding("embed_tokens", vocabulary, width, role: .tokenEmbedding)
                list("layers", layers) { _, name in
                    module(name, "LlamaDecoderLayer", role: .block) {
                        module("self_attn", "LlamaAttention", role: .selfAttention) {
                            linear("q_proj", heads * headSize, width, bias: attentionBias, role: .query)
                            linear("k_proj", keyValueHeads * headSize, width, bias: attentionBias, role: .key)
                            linear("v_proj", keyValueHeads * headSize, width, bias: attentionBias, role: .value)
                            linear("o_proj", width, heads * headSize, bias: attentionBias, role: .attentionOutput)
                        }
                        module("mlp", "LlamaMLP", role: .feedForward) {
                            linear("gate_proj", inner, width, bias: feedForwardBias, role: .gate)
                            linear("up_proj", inner, width, bias: feedForwardBias, role: .up)
                            linear("down_proj", width, inner, bias: feedForwardBias, role: .down)
                            plain("act_fn", "SiLUActivation")
                        }
                        rmsNorm("input_layernorm", width, epsilon, role: .attentionNorm, className: "LlamaRMSNorm")
                        rmsNorm("post_attention_layernorm", width, epsilon, role: .feedForwardNorm, className: "LlamaRMSNorm")
                    }
                }
                rmsNorm("norm", width, epsilon, role: .finalNorm, className: "LlamaRMSNorm")
                rotaryModule("rotary_emb", "LlamaRotaryEmbedding", rotated: rotary.rotated)
            }
            linear("lm_head", vocabulary, width, role: .head)
        }

        var attention = AttentionDescription(heads: heads, keyValueHeads: keyValueHeads, headSize: headSize)
        attention.rotary = 0
        let layer = LayerDescription(
            attention: attention, feedForward: .gated(try config.activation("hidden_act", default: "silu")))
        var decoder = StackDescription(path: "model", width: width, layers: Array(repeating: layer, count: layers))
        decoder.rotary = [rotary]

        return ModelArchitecture(
            modelType: "llama",
            tree: ModuleTree(
                root: root,
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: false), ("lm_head.weight", "model.embed_tokens.weight")),
                noSplitClasses: ["LlamaDecoderLayer"]),
            keys: CheckpointKeys(basePrefix: "model"),
            decoder: decoder, vocabularySize: vocabulary,
            maximumPositions: try config.optionalInt("max_position_embeddings"))
    }
}
