import NibbleCore

/// GPT-NeoX and Pythia (arXiv 2204.06745, 2304.01373): attention and feed-forward side by side, each after a norm of its
/// own, a part of every head rotated, queries, keys and values interleaved by head.
///
///     nibble generate EleutherAI/pythia-160m --load-in-8bit "Once upon a time"
enum GPTNeoX {
    static func architecture(_ config: ConfigReader) throws -> ModelArchitecture {
        let width = try config.size("hidden_size")
        let layers = try config.layerCount("num_hidden_layers")
        let heads = try config.headCount("num_attention_heads")
        let headSize = try config.headSize(width: width, heads: heads)
        let inner = try config.size("intermediate_size")
        let vocabulary = try config.size("vocab_size")
        let epsilon = try config.float("layer_norm_eps", default: 1e-5)
        let activation = try config.activation("hidden_act", default: "gelu")
        let bias = try config.bool("attention_bias", default: true)
        let rotary = try config.rotary(headSize: headSize, partial: 0.25)

        let root = module("", "GPTNeoXForCausalLM") {
            module("gpt_neox", "GPTNeoXModel") {
                embedding("embed_in", vocabulary, width, role: .tokenEmbedding)
                dropout("emb_dropout")
                list("layers", layers) { _, name in
                    module(name, "GPTNeoXLayer", role: .block) {
                        layerNorm("input_layernorm", width, epsilon, role: .attentionNorm)
                        layerNorm("post_attention_layernorm", width, epsilon, role: .feedForwardNorm)
                        dropout("post_attention_dropout")
                        dropout("post_mlp_dropout")
                        module("attention", "GPTNeoXAttention", role: .selfAttention) {
                            linear("query_key_value", 3 * width, width, bias: bias, role: .queryKeyValue)
                            linear("dense", width, width, bias: bias, role: .attentionOutput)
                        }
                        module("mlp", "GPTNeoXMLP", role: .feedForward) {
                            linear("dense_h_to_4h", inner, width, bias: true, role: .up)
                            linear("dense_4h_to_h", width, inner, bias: true, role: .down)
                            plain("act", activation.className)
                        }
                    }
                }
                layerNorm("final_layer_norm", width, epsilon, role: .finalNorm)
                rotaryModule("rotary_emb", "GPTNeoXRotaryEmbedding", rotated: rotary.rotated)
            }
            linear("lm_head", vocabulary, width, role: .head)
        }

        var attention = AttentionDescription(heads: heads, headSize: headSize, layout: .interleaved(headSize: headSize))
        attention.rotary = 0
        var layer = LayerDescription(attention: attention, feedForward: .plain(activation.function))
        layer.isParallel = try config.bool("use_parallel_residual", default: true)
        var decoder = StackDescription(path: "gpt_neox", width: width, layers: Array(repeating: layer, count: layers))
        decoder.rotary = [rotary]

        return ModelArchitecture(
            modelType: "gpt_neox",
            tree: ModuleTree(
                root: root,
                tied: .tied(
                    try config.bool("tie_word_embeddings", default: false),
                    ("lm_head.weight", "gpt_neox.embed_in.weight")),
                noSplitClasses: ["GPTNeoXLayer"]),
            keys: CheckpointKeys(
                basePrefix: "gpt_neox", ignoredSuffixes: ["attention.bias", "attention.masked_bias"],
                // Files call the head embed_out.
                fileName: { $0.hasPrefix("lm_head.") ? "embed_out." + $0.dropFirst("lm_head.".count) : $0 },
                rename: { $0.hasPrefix("embed_out.") ? "lm_head." + $0.dropFirst("embed_out.".count) : $0 }),
            decoder: decoder, vocabularySize: vocabulary,
            maximumPositions: try config.optionalInt("max_position_embeddings"))
    }
}
